"""Agents and tools that take long, and get somewhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import agenttrace
from tests.hangs.catalogue import LIMIT, STEP, healthy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_LONG = round(2.5 * LIMIT / STEP)
"""Steps that together take longer than anything may be silent."""


@healthy(2)
async def long_tool_that_tells_its_progress() -> None:
    """A tool that takes long and says so, in an agent that says nothing."""

    @agenttrace.tool
    async def crawl() -> None:
        for page in range(_LONG):
            await asyncio.sleep(STEP)
            agenttrace.heartbeat(f"page {page}", progress=page / _LONG)

    @agenttrace.agent
    async def clerk() -> None:
        await crawl()

    await clerk()


@healthy(2)
async def long_tool_in_a_thread() -> None:
    """The same, on a thread of a pool."""

    @agenttrace.tool
    def crawl() -> None:
        for _ in range(_LONG):
            time.sleep(STEP)
            agenttrace.heartbeat()

    @agenttrace.agent
    async def clerk() -> None:
        await asyncio.to_thread(crawl)

    await clerk()


@healthy(19)
async def agent_whose_sub_agents_take_turns() -> None:
    """An agent that never says a word, and whose tools come and go for long."""

    @agenttrace.tool
    async def look_up() -> None:
        await asyncio.sleep(STEP)

    @agenttrace.agent
    async def researcher() -> None:
        for _ in range(_LONG):
            await look_up()

    @agenttrace.agent
    async def desk() -> None:
        await asyncio.gather(researcher(), researcher())

    await desk()


@healthy(2)
async def approval_by_a_human() -> None:
    """A hold, for longer than anything may be silent."""

    @agenttrace.tool
    async def pay() -> None:
        with agenttrace.hold("approval"):
            await asyncio.sleep(2 * LIMIT)

    @agenttrace.agent
    async def clerk() -> None:
        await pay()

    await clerk()


@healthy(3)
def approval_that_is_asked_for_further_up() -> None:
    """A hold of an agent, beneath which a tool waits in a hold of its own."""
    with agenttrace.span("agent"), agenttrace.hold("a human"):
        with agenttrace.span("ask"), agenttrace.hold("the same human"):
            time.sleep(1.5 * LIMIT)
        with agenttrace.span("thank"):
            time.sleep(STEP)


@healthy(1)
async def generator_that_yields_slowly() -> None:
    """A decorated generator whose items come one by one, for long."""

    @agenttrace.agent
    async def tokens() -> AsyncIterator[int]:
        for number in range(_LONG):
            await asyncio.sleep(STEP)
            yield number

    assert [number async for number in tokens()] == list(range(_LONG))


@healthy(1)
def generator_that_threads_take_turns_at() -> None:
    """A plain one, each item of which another thread of a pool takes."""

    @agenttrace.traced
    def items() -> Iterator[int]:
        for number in range(_LONG):
            time.sleep(STEP)
            yield number

    stream = items()
    for _ in range(_LONG):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(next, stream).result()
    assert list(stream) == []


@healthy(8)
async def lock_that_all_have_in_turn() -> None:
    """Eight tasks that share two places: each waits, and gets its turn."""
    places = asyncio.Semaphore(4)

    async def works() -> None:
        with agenttrace.span("work"):
            async with places:
                await asyncio.sleep(STEP)

    await asyncio.gather(*(works() for _ in range(8)))


@healthy(12)
async def workers_that_are_idle_between_items() -> None:
    """Workers of a queue: idle ones have nothing open, and items come now and then."""
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def works() -> None:
        while True:
            await queue.get()
            with agenttrace.span("item"):
                await asyncio.sleep(0.05)
            queue.task_done()

    workers = [asyncio.create_task(works()) for _ in range(3)]
    for number in range(12):
        queue.put_nowait(number)
        await asyncio.sleep(LIMIT / 6)
    await queue.join()
    for worker in workers:
        worker.cancel()


@healthy(1)
def process_that_reports_line_by_line() -> None:
    """A tool that runs another program for long, and passes on what that says."""
    program = (
        "import time\n"
        f"for n in range({_LONG}): time.sleep({STEP}); print(n, flush=True)"
    )

    @agenttrace.tool
    def convert() -> None:
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                agenttrace.heartbeat(line.strip())

    convert()


@healthy(1)
def work_of_other_processes() -> None:
    """A tool that waits for processes, and has their results one after the other."""
    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
        agenttrace.span("map"),
    ):
        # Interpreters start while the clock runs, and take longer than the work.
        with agenttrace.hold("start"):
            list(pool.map(abs, range(2)))
        for _ in pool.map(time.sleep, [STEP] * 8):
            agenttrace.heartbeat()


@healthy(2)
def child_that_was_forked() -> None:
    """A fork in the middle of a tool: parent and child each have their own clock."""
    if not hasattr(os, "fork"):
        return
    with agenttrace.span("parent"):
        time.sleep(STEP)
        pid = os.fork()
        if not pid:
            with agenttrace.span("child"):
                for _ in range(4):
                    time.sleep(STEP)
                    agenttrace.heartbeat()
            agenttrace.shutdown(20)
            os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(STEP / 4)
            agenttrace.heartbeat()


@healthy(2_000)
async def two_thousand_tasks() -> None:
    """Two thousand tasks, each of which sleeps for a while."""

    async def works(number: int) -> None:
        await asyncio.sleep(number / 1_000)
        with agenttrace.span("task"):
            await asyncio.sleep(STEP)

    await asyncio.gather(*(works(number) for number in range(2_000)))


@healthy(1)
async def loop_that_is_busy_with_short_steps() -> None:
    """A loop that never rests, and that nobody keeps to himself."""

    def computes() -> None:
        until = time.perf_counter() + 0.005
        while time.perf_counter() < until:
            sum(range(100))

    with agenttrace.span("busy"):
        until = time.monotonic() + LIMIT / 2
        while time.monotonic() < until:
            computes()
            await asyncio.sleep(0)


@healthy(8)
def threads_that_take_turns_at_a_lock() -> None:
    """Eight threads that share one lock, and each get their turn."""
    lock = threading.Lock()

    def works() -> None:
        with agenttrace.span("work"), lock:
            time.sleep(LIMIT / 16)

    threads = [threading.Thread(target=works) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
