"""What a stack that stands still is waiting for, by the functions it ends in.

A stack ends in functions that exist in order to wait, and the innermost of them says
the least: every `Queue.get` ends in a lock, every read of a socket under anyio in an
`Event.wait`.  So a function on its way there that knows more overrules it.  The search
ends at the first line of the application's: what it calls is what it waits for.

It is a table and a pure function.  What resolves a wait, a task or a thread that can be
looked at in its turn, is the business of `chains` and `threads`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace.watchdog.frames import Whose, package_of, short, whose

if TYPE_CHECKING:
    from agenttrace.watchdog.frames import Line


class Cause(StrEnum):
    """Why a span hangs."""

    NETWORK_WAIT = "network_wait"
    """It waits for another machine or process: a socket, a name server."""
    EVENT_LOOP_BLOCKED = "event_loop_blocked"
    """Something holds its event loop's thread, itself or another task."""
    LOCK = "lock"
    """It waits for what another one has: a lock, a semaphore, a place in a pool."""
    THREAD = "thread"
    """A thread works for it, or is to; what that waits for cannot be told."""
    SUBTASK = "subtask"
    """It waits for a task of which no more can be told."""
    AWAITING_NOTHING = "awaiting_nothing"
    """It waits for a signal in this process: an event, a queue, a bare future."""
    SLEEP = "sleep"
    """It sleeps, on purpose: it polls, or backs off."""
    UNKNOWN = "unknown"
    """It can be seen where it stands, and not for what it waits."""


class Wait(NamedTuple):
    """What a stack waits for.

    Attributes:
        cause: Its class.
        what: In words, to follow "waits for".
        weight: How much is known: more overrules less.
    """

    cause: Cause
    what: str
    weight: int


_PRIMITIVE, _LIBRARY, _KNOWN = 1, 2, 3


def _waits(cause: Cause, weight: int, what: str, *functions: str) -> dict[str, Wait]:
    wait = Wait(cause, what, weight)
    return dict.fromkeys(functions, wait)


_FUNCTIONS: Final[dict[str, Wait]] = {
    # Within the process.
    **_waits(
        Cause.LOCK,
        _PRIMITIVE,
        "a lock",
        "asyncio/locks.py:Lock.acquire",
        "threading.py:_RLock.acquire",
        "anyio/_backends/_asyncio.py:Lock.acquire",
    ),
    **_waits(
        Cause.LOCK,
        _PRIMITIVE,
        "a semaphore",
        "asyncio/locks.py:Semaphore.acquire",
        "threading.py:Semaphore.acquire",
        "anyio/_backends/_asyncio.py:Semaphore.acquire",
        "anyio/_backends/_asyncio.py:CapacityLimiter.acquire_on_behalf_of",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "a condition that nobody has notified",
        "asyncio/locks.py:Condition.wait",
        "threading.py:Condition.wait",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "an event that nobody has set",
        "asyncio/locks.py:Event.wait",
        "threading.py:Event.wait",
        "anyio/_backends/_asyncio.py:Event.wait",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "the others at a barrier",
        "asyncio/locks.py:Barrier.wait",
        "threading.py:Barrier.wait",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "an item of a queue that is empty",
        "asyncio/queues.py:Queue.get",
        "queue.py:Queue.get",
        "anyio/streams/memory.py:MemoryObjectReceiveStream.receive",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "room in a queue that is full",
        "asyncio/queues.py:Queue.put",
        "queue.py:Queue.put",
        "anyio/streams/memory.py:MemoryObjectSendStream.send",
    ),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "a queue whose items are not all done",
        "asyncio/queues.py:Queue.join",
        "queue.py:Queue.join",
    ),
    **_waits(Cause.SLEEP, _PRIMITIVE, "a time to pass", "asyncio/tasks.py:sleep"),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "the end of a sleep that has none",
        "anyio/_core/_eventloop.py:sleep_forever",
    ),
    **_waits(
        Cause.LOCK,
        _KNOWN,
        "a module that another thread imports",
        "<frozen importlib._bootstrap>:_ModuleLock.acquire",
    ),
    **_waits(
        Cause.THREAD,
        _KNOWN,
        "another thread",
        "threading.py:Thread.join",
        "threading.py:Thread._wait_for_tstate_lock",
        "concurrent/futures/_base.py:Future.result",
        "concurrent/futures/_base.py:Future.exception",
        "concurrent/futures/_base.py:wait",
        "concurrent/futures/_base.py:as_completed",
        "asgiref/current_thread_executor.py:CurrentThreadExecutor.run_until_future",
    ),
    # A place in a pool: it is the others who have it that hang.
    **_waits(
        Cause.LOCK,
        _KNOWN,
        "a connection of a pool, all of which are in use",
        "httpcore/_async/connection_pool.py:AsyncPoolRequest.wait_for_connection",
        "httpcore/_sync/connection_pool.py:PoolRequest.wait_for_connection",
        "httpcore2/_async/connection_pool.py:AsyncPoolRequest.wait_for_connection",
        "httpcore2/_sync/connection_pool.py:PoolRequest.wait_for_connection",
        "aiohttp/connector.py:BaseConnector._wait_for_available_connection",
        "asyncpg/pool.py:Pool._acquire",
        "urllib3/connectionpool.py:HTTPConnectionPool._get_conn",
        "sqlalchemy/pool/impl.py:QueuePool._do_get",
    ),
    # Beyond it.
    **_waits(
        Cause.NETWORK_WAIT,
        _KNOWN,
        "data from a socket",
        "asyncio/streams.py:StreamReader._wait_for_data",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_recv",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_recv_into",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_recvfrom",
        "anyio/_backends/_asyncio.py:SocketStream.receive",
        "anyio/_backends/_asyncio.py:UNIXSocketStream.receive",
        "httpcore/_async/http11.py:AsyncHTTP11Connection._receive_event",
        "httpcore2/_async/http11.py:AsyncHTTP11Connection._receive_event",
        "httpcore/_backends/sync.py:SyncStream.read",
        "httpcore2/_backends/sync.py:SyncStream.read",
        "socket.py:SocketIO.readinto",
        "ssl.py:SSLSocket.read",
        "ssl.py:SSLSocket.recv",
        "ssl.py:SSLSocket.recv_into",
    ),
    **_waits(
        Cause.NETWORK_WAIT,
        _KNOWN,
        "a socket to take data",
        "asyncio/streams.py:FlowControlMixin._drain_helper",
        "asyncio/streams.py:StreamWriter.drain",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_sendall",
        "anyio/_backends/_asyncio.py:SocketStream.send",
        "ssl.py:SSLSocket.write",
        "ssl.py:SSLSocket.send",
    ),
    **_waits(
        Cause.NETWORK_WAIT,
        _KNOWN,
        "a connection",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_connect",
        "asyncio/selector_events.py:BaseSelectorEventLoop.sock_accept",
        "asyncio/base_events.py:BaseEventLoop.create_connection",
        "asyncio/base_events.py:BaseEventLoop._create_connection_transport",
        "socket.py:create_connection",
        "socket.py:socket.accept",
        "ssl.py:SSLSocket.do_handshake",
    ),
    **_waits(
        Cause.NETWORK_WAIT,
        _KNOWN,
        "a name server",
        "asyncio/base_events.py:BaseEventLoop.getaddrinfo",
        "socket.py:getaddrinfo",
    ),
    # Files of another process, and processes: neither a network nor ours.
    **_waits(
        Cause.UNKNOWN,
        _KNOWN,
        "another process to end or to answer",
        "asyncio/subprocess.py:Process.wait",
        "asyncio/subprocess.py:Process.communicate",
        "subprocess.py:Popen.wait",
        "subprocess.py:Popen._wait",
        "subprocess.py:Popen._try_wait",
        "subprocess.py:Popen.communicate",
        "subprocess.py:Popen._communicate",
        "multiprocessing/popen_fork.py:Popen.wait",
        "multiprocessing/popen_fork.py:Popen.poll",
        "multiprocessing/connection.py:Connection._recv",
        "multiprocessing/connection.py:Connection._send",
        "multiprocessing/connection.py:wait",
    ),
    **_waits(
        Cause.UNKNOWN,
        _KNOWN,
        "a worker of a pool",  # of processes or of threads
        "multiprocessing/pool.py:ApplyResult.wait",
        "multiprocessing/pool.py:IMapIterator.next",
    ),
}
_NETWORK: Final = frozenset(
    {
        *("aiohttp", "aiokafka", "aiomysql", "aiopg", "anthropic", "asyncpg", "boto3"),
        *("botocore", "elastic_transport", "grpc", "httpcore", "httpcore2", "httplib2"),
        *("httpx", "httpx2", "kafka", "motor", "mysql", "openai", "paramiko", "pika"),
        *("psycopg", "psycopg2", "pymongo", "pymysql", "redis", "requests", "urllib3"),
        *("websocket", "websockets"),
    }
)
"""Packages that wait for nothing but the network, whatever they wait with."""
_CALLS: Final[dict[str, Wait]] = {
    # Functions in C have no frame: what they are called is all there is.
    **_waits(Cause.LOCK, _PRIMITIVE, "a lock", "acquire", "__enter__"),
    **_waits(Cause.LOCK, _PRIMITIVE, "a lock on a file", "flock", "lockf"),
    **_waits(
        Cause.AWAITING_NOTHING,
        _PRIMITIVE,
        "a signal that nobody has sent",
        *("pause", "sigwait", "sigwaitinfo"),
    ),
    **_waits(
        Cause.UNKNOWN,
        _PRIMITIVE,
        "another process to end or to answer",
        *("wait3", "wait4", "waitid", "waitpid"),
    ),
    **_waits(
        Cause.UNKNOWN,
        _PRIMITIVE,
        "data from a file, a pipe or a terminal",
        *("input", "read", "readinto", "readline", "readlines"),
    ),
    **_waits(Cause.SLEEP, _PRIMITIVE, "a time to pass", "sleep"),
    **_waits(
        Cause.NETWORK_WAIT,
        _PRIMITIVE,
        "data from a socket",
        *("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg"),
        *("sock_recv", "sock_recv_into", "sock_recvfrom"),
    ),
    **_waits(
        Cause.NETWORK_WAIT,
        _PRIMITIVE,
        "a socket to take data",
        *("send", "sendall", "sendto", "sendmsg", "sendfile", "sock_sendall"),
    ),
    **_waits(
        Cause.NETWORK_WAIT,
        _PRIMITIVE,
        "a connection",
        *("accept", "connect", "connect_ex", "do_handshake", "_accept"),
        *("sock_connect", "sock_accept", "create_connection"),
    ),
    **_waits(Cause.NETWORK_WAIT, _PRIMITIVE, "a name server", "getaddrinfo"),
    **_waits(
        Cause.NETWORK_WAIT, _PRIMITIVE, "a file or socket to be ready", "poll", "select"
    ),
}


def wait_of(lines: list[Line], call: str | None = None) -> Wait | None:
    """Return what a stack waits for that ends in *lines*; None where none tells.

    Args:
        lines: Outermost first.
        call: The function without a frame that the innermost of them is calling, or
            whose result it awaits.
    """
    best = None if call is None else _CALLS.get(call)
    network: Wait | None = None
    purposeful = False
    for code, _ in reversed(lines):
        owner, package = whose(code.co_filename), package_of(code.co_filename)
        if owner is Whose.APPLICATION:
            break
        # A library that is served by one of the network does not wait for it.
        purposeful |= owner is Whose.LIBRARY and package not in _NETWORK
        known = _FUNCTIONS.get(
            f"{short(code.co_filename).replace(chr(92), '/')}:{code.co_qualname}"
        )
        if known is None and code.co_filename.endswith(".pyx"):
            known = _CALLS.get(code.co_name)
        # Of what weighs the same the outer one: it knows why.
        if known is not None and (best is None or known.weight >= best.weight):
            best = known
        if package in _NETWORK and not purposeful:
            network = Wait(Cause.NETWORK_WAIT, f"the network, in {package}", _LIBRARY)
    if network is None or (best is not None and best.weight >= network.weight):
        return best
    if best is not None and best.cause is Cause.SLEEP:
        # A client that sleeps has an answer, and does not like it: it tries again.
        return best
    return network


def is_purposeful(lines: list[Line]) -> bool:
    """Return whether anybody but interpreter and agenttrace has a part in *lines*."""
    return any(whose(code.co_filename) > Whose.INTERPRETER for code, _ in lines)
