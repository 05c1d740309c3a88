"""Threads that hang, and tasks that wait for them."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
from opentelemetry import trace
from opentelemetry.context import Context

import agenttrace
from tests.watchdog.hangs import PATIENCE, hang_of, running

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
