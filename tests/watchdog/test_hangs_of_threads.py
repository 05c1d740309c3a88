"""Threads that hang, and tasks that wait for them."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
from opentelemetry import trace
from opentelemetry.context import Context

import agenttrace
from tests.watchdog.given import until
from tests.watchdog.hangs import PATIENCE, hang_of, running

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

pytestmark = pytest.mark.usefixtures("traced")

Factory = Any
Waiting = Callable[[list[Future[Any]]], Any]
Hang = tuple[Callable[[], object], Callable[[], object]]
"""What hangs, and what ends it."""
ELSEWHERE = "work of another process, or of a thread of no pool"


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


@pytest.mark.parametrize("waits", [futures.wait, futures.as_completed])
def test_the_worker_is_found_of_several_futures_that_are_waited_for(
    waits: Waiting,
) -> None:
    """Neither has a frame of a future on the stack; both know what they were given."""
    lock = threading.Lock()
    lock.acquire()

    def fetches() -> None:
        lock.acquire()

    def gathers() -> None:
        with ThreadPoolExecutor(1, "fetcher") as pool, agenttrace.span("gather"):
            given: list[Future[Any]] = [pool.submit(int), pool.submit(fetches)]
            list(waits(given))

    with in_thread(gathers, lock.release):
        report = hang_of("gather", "lock", "fetches")

    assert [str(link) for link in report.links] == ["thread plain", "thread fetcher_0"]


def test_threads_that_wait_for_each_other_are_said_to_do_so() -> None:
    """Each of them alone says that it waits for a thread, which sends one astray."""
    release: Future[None] = Future()
    submitted = threading.Event()
    both: list[Future[None]] = []

    def waits_for_right() -> None:
        with agenttrace.span("left"):
            submitted.wait(PATIENCE)
            both[1].result()

    def waits_for_left() -> None:
        submitted.wait(PATIENCE)
        either = (both[0], release)
        futures.wait(either, return_when=futures.FIRST_COMPLETED)

    with ThreadPoolExecutor(2, "side") as pool:
        both += (pool.submit(waits_for_right), pool.submit(waits_for_left))
        submitted.set()
        try:
            report = hang_of("left", "thread", "waits_for_left")
        finally:
            release.set_result(None)

    assert "waits for a thread that waits for it" in report.why


def on_a_locked_file(folder: Path) -> Hang:
    """Wait for the lock of a file, which another descriptor of it has."""
    first, second = ((folder / "lock").open("w") for _ in range(2))
    fcntl.flock(first, fcntl.LOCK_EX)

    def waits() -> None:
        with first, second:
            fcntl.flock(second, fcntl.LOCK_EX)

    return waits, lambda: fcntl.flock(first, fcntl.LOCK_UN)


def on_a_pipe(_: Path) -> Hang:
    """Wait for data from a pipe."""
    reader, writer = os.pipe()

    def waits() -> None:
        os.read(reader, 1)
        os.close(reader)

    return waits, lambda: os.close(writer)


def on_a_connection(_: Path) -> Hang:
    """Wait for a message of another process."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def waits() -> None:
        with reader:
            reader.recv()

    def release() -> None:
        with writer:
            writer.send(None)

    return waits, release


def on_a_child(_: Path) -> Hang:
    """Wait for a process to end, by its number."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def waits() -> None:
        _, status = os.waitpid(child.pid, 0)
        child.returncode = status

    assert child.stdin is not None
    return waits, child.stdin.close


def on_a_signal(_: Path) -> Hang:
    """Wait for a signal."""
    waiting: list[int] = []

    def waits() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        waiting.append(threading.get_ident())
        signal.sigwait({signal.SIGUSR2})

    return waits, lambda: signal.pthread_kill(waiting[0], signal.SIGUSR2)


def on_a_pool_of_processes(folder: Path) -> Hang:
    """Wait for the result of another process, which reads from a pipe."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)

    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    reading = pool.submit(Path.read_bytes, pipe)

    def waits() -> None:
        with pool:
            reading.result()

    return waits, lambda: pipe.write_bytes(b"")


def on_a_thread_of_no_pool(_: Path) -> Hang:
    """Wait for the result of a thread that nothing leads to."""
    done, result = threading.Event(), Future[None]()
    result.set_running_or_notify_cancel()

    def works() -> None:
        done.wait(PATIENCE)
        result.set_result(None)

    def waits() -> None:
        with in_thread(works, done.set):
            result.result()

    return waits, done.set


def on_a_pool_of_threads(_: Path) -> Hang:
    """Wait for the result of a thread, in a pool that looks like one of processes."""
    lock = threading.Lock()
    lock.acquire()

    def waits() -> None:
        with ThreadPool(1) as pool:
            pool.apply(lock.acquire)

    return waits, lock.release


def on_an_import(folder: Path) -> Hang:
    """Wait for a module that another thread is importing."""
    name = f"slow_{folder.name}"
    (folder / f"{name}.py").write_text(f"import {__name__} as here; here.importing()")
    begun, done = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        done.wait(PATIENCE)

    vars(sys.modules[__name__])["importing"] = slow
    first = threading.Thread(target=importlib.import_module, args=(name,))

    def waits() -> None:
        sys.path.insert(0, str(folder))
        first.start()
        begun.wait(PATIENCE)
        importlib.import_module(name)
        first.join(PATIENCE)
        sys.path.remove(str(folder))

    return waits, done.set


@pytest.mark.parametrize(
    ("hang", "cause", "why"),
    [
        (on_a_locked_file, "lock", "a lock on a file"),
        (on_a_pipe, "unknown", "data from a file, a pipe or a terminal"),
        (on_a_connection, "unknown", "another process to end or to answer"),
        (on_a_child, "unknown", "another process to end or to answer"),
        (on_a_signal, "awaiting_nothing", "a signal that nobody has sent"),
        (on_a_pool_of_processes, "unknown", ELSEWHERE),
        (on_a_thread_of_no_pool, "unknown", ELSEWHERE),
        (on_a_pool_of_threads, "unknown", "a worker of a pool"),
        (on_an_import, "lock", "a module that another thread imports"),
    ],
)
def test_what_a_thread_waits_for_beyond_its_process_is_told(
    hang: Callable[[Path], Hang], cause: str, why: str, tmp_path: Path
) -> None:
    """That a thread is at work would be no lead, and mostly not even true."""
    waits, release = hang(tmp_path)

    def body() -> None:
        with agenttrace.span("hang"):
            waits()

    with in_thread(body, release):
        # On its way there it may wait for a file: what it needs is imported first.
        until(lambda: hang_of("hang", cause, "waits").why == f"it waits for {why}")


def test_a_call_that_nothing_is_known_of_is_named() -> None:
    """What is written in C has no frame, but the line that calls it has its name."""
    release = threading.Event()

    def computes() -> None:
        with agenttrace.span("compute"):
            while not release.is_set():
                sum(range(10_000_000))

    why = "its thread is at work, or in a call of sum, which has no frame"

    with in_thread(computes, release.set):
        # Between two calls it is at work, and for a moment in the call of another.
        until(lambda: why in hang_of("compute", "thread", "computes").why)


def test_what_is_no_call_is_not_named_as_one() -> None:
    """A thread that turns in a loop would be said to be in a variable of it."""

    class Work:
        turns = 0

    def stop() -> None:
        Work.turns = 1

    def counts() -> None:
        with agenttrace.span("count"):
            while Work.turns < 1:
                pass

    why = "its thread is at work, or in a call without a frame"

    with in_thread(counts, stop):
        # At first it still enters the span.
        until(lambda: hang_of("count", "thread", "counts").why == why)


@pytest.mark.usefixtures("traced")
def test_a_span_that_a_thread_has_only_started_is_not_known_to_be_its_own() -> None:
    """It may have been handed to anybody by now; that of a block has not."""
    done = threading.Event()

    def works() -> None:
        with agenttrace.span("block"):
            span = trace.get_tracer("any").start_span("handed on", Context())
            done.wait(PATIENCE)
            span.end()

    with in_thread(works, done.set):
        block = hang_of("block", "awaiting_nothing", "works")
        handed_on = hang_of("handed on", "awaiting_nothing", "works")

    assert (block.certain, handed_on.certain) == (True, False)
