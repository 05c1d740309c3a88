"""Threads that hang, and tasks that wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest

import agenttrace
from tests.watchdog.hangs import LOOPS, PATIENCE, hang_of, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

pytestmark = pytest.mark.usefixtures("traced")

Factory = Any


@contextmanager
def in_thread(
    body: Callable[[], object], release: Callable[[], object]
) -> Generator[None]:
    """Run *body* in a plain thread meanwhile; *release* lets it end."""
    thread = threading.Thread(target=body, name="plain")
    thread.start()
    try:
        yield
    finally:
        release()
        thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("factory", LOOPS)
def test_a_tool_in_a_thread_waits_for_a_lock(factory: Factory) -> None:
    """The task waits for a thread, the thread for a lock: both stacks are told."""
    lock = threading.Lock()
    lock.acquire()

    def locked_out() -> None:
        with lock:
            pass

    @agenttrace.tool
    async def search() -> None:
        await asyncio.to_thread(locked_out)

    with running(search, factory, lock.release):
        report = hang_of("execute_tool search", "lock", "locked_out")

    assert [link.kind for link in report.links] == ["task", "thread"]
    assert report.where is not None
    assert report.where.source == "with lock:"


def test_a_tool_in_a_thread_of_anyio_waits_for_a_lock() -> None:
    """Its threads are not those of a pool, and known by the task that uses them."""
    lock = threading.Lock()
    lock.acquire()

    def locked_out() -> None:
        lock.acquire()

    async def search() -> None:
        with agenttrace.span("search"):
            await anyio.to_thread.run_sync(locked_out)

    with running(search, asyncio.new_event_loop, lock.release):
        report = hang_of("search", "lock", "locked_out")

    assert [link.kind for link in report.links] == ["task", "thread"]


def test_a_span_of_the_thread_itself_is_told_by_the_threads_stack() -> None:
    """The tool is decorated: its span belongs to the thread, and not to the task."""
    done = threading.Event()

    @agenttrace.tool
    def look_up() -> None:
        done.wait()

    async def calls() -> None:
        await asyncio.to_thread(look_up)

    with running(calls, asyncio.new_event_loop, done.set):
        report = hang_of("execute_tool look_up", "awaiting_nothing", "look_up")

    assert [link.kind for link in report.links] == ["thread"]
    assert report.certain


def test_a_plain_thread_waits_for_a_socket() -> None:
    """Without a loop there is nothing but the stack of the thread."""
    ours, theirs = socket.socketpair()

    def reads() -> None:
        with agenttrace.span("read"):
            ours.recv(1)

    with in_thread(reads, lambda: theirs.sendall(b"x")):
        report = hang_of("read", "network_wait", "reads")
    ours.close()
    theirs.close()

    assert [str(link) for link in report.links] == ["thread plain"]


def test_a_plain_thread_waits_for_a_queue() -> None:
    """What it stands in is a lock; what it waits for is an item."""
    items: queue.Queue[int] = queue.Queue()

    def takes() -> None:
        with agenttrace.span("take"):
            items.get()

    with in_thread(takes, lambda: items.put(1)):
        report = hang_of("take", "awaiting_nothing", "takes")

    assert "queue that is empty" in report.why


def test_a_thread_that_joins_another_leads_to_that_one() -> None:
    """As far as threads wait for threads, the last of them is to blame."""
    lock = threading.Lock()
    lock.acquire()

    def last() -> None:
        with lock:
            pass

    def first() -> None:
        with agenttrace.span("join"):
            thread = threading.Thread(target=last, name="the last")
            thread.start()
            thread.join()

    with in_thread(first, lock.release):
        report = hang_of("join", "lock", "last")

    assert [str(link) for link in report.links] == ["thread plain", "thread the last"]


def test_a_thread_that_waits_for_a_result_leads_to_the_worker() -> None:
    """A pool's thread is found by the work that it has in its hands."""
    lock = threading.Lock()
    lock.acquire()

    def works() -> None:
        lock.acquire()

    def waits() -> None:
        with ThreadPoolExecutor(1, "worker") as pool, agenttrace.span("result"):
            pool.submit(works).result()

    with in_thread(waits, lock.release):
        report = hang_of("result", "lock", "works")

    assert [str(link) for link in report.links] == ["thread plain", "thread worker_0"]


def test_work_that_no_thread_has_begun_is_said_to_be_that() -> None:
    """A pool of one, whose one worker is busy elsewhere."""
    done = threading.Event()

    async def waits() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(done.set)
            # In a context of its own, so that the span has no part in it.
            contextvars.Context().run(pool.submit, done.wait)
            with agenttrace.span("queued"):
                await loop.run_in_executor(pool, print)

    with running(waits, asyncio.new_event_loop, done.set):
        report = hang_of("queued", "thread", "waits")

    assert "no thread of its pool is free" in report.why


def test_a_thread_that_waits_for_a_task_leads_back_to_the_loop() -> None:
    """`run_coroutine_threadsafe` from a worker: task, thread, task."""

    async def needs_an_event() -> None:
        await asyncio.Event().wait()

    async def calls() -> None:
        loop = asyncio.get_running_loop()

        def comes_back() -> None:
            asyncio.run_coroutine_threadsafe(needs_an_event(), loop).result()

        with agenttrace.span("round"):
            await asyncio.to_thread(comes_back)

    with running(calls):
        report = hang_of("round", "awaiting_nothing", "needs_an_event")

    assert [link.kind for link in report.links] == ["task", "thread", "task"]


def test_a_deadlock_through_async_to_sync_is_followed_to_its_end() -> None:
    """Django's bridges: the lock is held by whoever waits for the thread."""
    sync: Any = pytest.importorskip("asgiref.sync")

    async def calls() -> None:
        lock = asyncio.Lock()

        async def needs_the_lock() -> None:
            async with lock:
                pass

        def in_between() -> None:
            sync.async_to_sync(needs_the_lock)()

        async with lock:
            with agenttrace.span("view"):
                await sync.sync_to_async(in_between)()

    with running(calls):
        report = hang_of("view", "lock", "needs_the_lock")

    assert [link.kind for link in report.links] == ["task", "thread", "task"]


def test_a_thread_that_is_handed_a_call_of_the_interpreters_own() -> None:
    """`queue.get` in a thread: no line of its stack is the application's."""
    items: queue.Queue[int] = queue.Queue()

    async def takes() -> None:
        with agenttrace.span("take"):
            await asyncio.to_thread(items.get)

    with running(takes, asyncio.new_event_loop, lambda: items.put(1)):
        report = hang_of("take", "awaiting_nothing", "takes")

    assert [link.kind for link in report.links] == ["task", "thread"]
    assert "queue that is empty" in report.why


def test_a_thread_with_a_loop_of_its_own_leads_into_that_loop() -> None:
    """Frameworks run a loop in a thread so that synchronous code can call them."""

    async def hangs() -> None:
        await asyncio.Event().wait()

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(hangs()))
        await asyncio.wait(tasks)

    def runs() -> None:
        with agenttrace.span("nested"):
            asyncio.run(main())

    with in_thread(
        runs, lambda: tasks[0].get_loop().call_soon_threadsafe(tasks[0].cancel)
    ):
        report = hang_of("nested", "awaiting_nothing", "hangs")

    assert [link.kind for link in report.links][-2:] == ["task", "task"]


def test_a_thread_at_work_is_said_to_be_at_work() -> None:
    """Pure computing has no cause but the thread that computes."""
    stop: list[bool] = []

    def computes() -> None:
        with agenttrace.span("compute"):
            while not stop:
                sum(range(100))

    with in_thread(computes, lambda: stop.append(True)):
        hang_of("compute", "thread", "computes")


def test_a_decorated_generator_is_found_in_whatever_thread_drives_it() -> None:
    """Web servers take each item in another thread of a pool."""
    lock = threading.Lock()
    lock.acquire()

    @agenttrace.traced
    def items() -> Iterator[int]:
        yield 1
        lock.acquire()
        yield 2

    stream = items()
    with ThreadPoolExecutor(1, "first") as first:
        first.submit(next, stream).result()

    with in_thread(lambda: list(stream), lock.release):
        report = hang_of("items", "lock", "items")

    assert [str(link) for link in report.links] == ["thread plain"]
