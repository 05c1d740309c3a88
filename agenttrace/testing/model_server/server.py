"""The server: its thread, its event loop, its port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final, Self

from agenttrace.testing.model_server.answering import Answering
from agenttrace.testing.model_server.connection import Connection
from agenttrace.testing.model_server.exchanges import Exchange, Exchanges
from agenttrace.testing.model_server.model_names import by_model_name
from agenttrace.testing.model_server.scripts import Script, echo

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024
_STOP_TIMEOUT: Final = 5.0


class ModelServer:
    """A model server on loopback, in a daemon thread with its own event loop.

    The script is asked for every request that can be read.  Its answer to a `RETRIEVE`,
    `CANCEL` or `MODELS` lends only its faults: what is retrieved is what was created.

    Args:
        script: Answers requests; None echoes.
        port: The port to listen on; 0 takes a free one.
        models: What `GET /models` lists.
        remember: How many exchanges and responses are kept; older ones are forgotten.

    >>> with ModelServer() as server:
    ...     server.base_url.startswith("http://127.0.0.1:")
    True
    """

    by_model_name: Final = staticmethod(by_model_name)
    """A script whose switchboard is the name of the model; see `model_names`."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        port: int = 0,
        models: tuple[str, ...] = ("test-model",),
        remember: int = 10_000,
    ) -> None:
        self._port = port
        self._exchanges = Exchanges(remember)
        self._answering = Answering(script or echo, self._exchanges, models, remember)
        self._serving: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens; the same one again after `stop` and `start`."""
        return self._port

    @property
    def script(self) -> Script:
        """What answers requests; another one holds from the next request on."""
        return self._answering.script

    @script.setter
    def script(self, script: Script) -> None:
        self._answering.script = script

    @property
    def url(self) -> str:
        """The root, without a path: what Azure's clients call the endpoint."""
        return f"http://{_HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients are given as `base_url`."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[Exchange]:
        """What was asked so far, oldest first."""
        return self._exchanges.snapshot()

    def wait_for_request(self, number: int = 1, timeout: float = 5.0) -> Exchange:
        """Block until *number* requests have come since the start, and return it.

        Raises:
            TimeoutError: Fewer have come in *timeout* seconds.
            LookupError: It came, and is forgotten.
        """
        return self._exchanges.wait_for(number, timeout)

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
            RuntimeError: It is running already.
        """
        if self._thread is not None:
            message = f"the model server is running already, at {self.base_url}"
            raise RuntimeError(message)
        listener = socket.create_server((_HOST, self._port), backlog=_BACKLOG)
        listener.settimeout(0)
        self._port = listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(listener, ready),
            name="agenttrace-models",
            daemon=True,
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close every connection and stop, at once; requests in flight are *cut*."""
        thread, self._thread = self._thread, None
        if thread is not None and self._stopping is not None:
            self._call(self._stopping.set)
            thread.join(_STOP_TIMEOUT)

    def release(self) -> None:
        """End every stall of the requests that are open, now or still to come in them.

        Background responses that are under way complete at their next poll.
        """
        self._call(self._answering.release)

    def _call(self, callback: Callable[[], object]) -> None:
        # It may have stopped already, or be stopping just now.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        try:
            # Neither the application's event loop policy nor its patched `asyncio.run`;
            # and made on this thread, so that no span of the application is current.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._main(listener, ready))
        finally:
            listener.close()
            ready.set()

    async def _main(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        # Not `asyncio.start_server`: a client that it accepts while it is being closed
        # is logged as an error.
        self._loop.add_reader(listener, self._accept, listener)
        ready.set()
        await self._stopping.wait()
        self._loop.remove_reader(listener)
        if self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(self._serving)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            # It has gone again before it was its turn.
            return
        client.settimeout(0)
        task = asyncio.get_running_loop().create_task(self._serve(client))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # One that is cancelled before its first step closes nothing itself.
        task.add_done_callback(lambda _: client.close())

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        await Connection(reader, writer, self._answering.answer).serve()
