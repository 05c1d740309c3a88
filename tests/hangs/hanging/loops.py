"""Event loops that cannot go on: somebody is on their thread and does not leave it."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time

import agenttrace
from tests.hangs.catalogue import block, hang


@hang("execute_tool blocking", "event_loop_blocked", kinds=("task",))
async def tool_that_sleeps_on_the_loop() -> None:
    """A tool that calls `time.sleep` on the loop."""

    def dozes() -> None:
        time.sleep(60)  # here

    @agenttrace.tool
    async def blocking() -> None:
        dozes()

    await blocking()


@hang("execute_tool compute", "event_loop_blocked", kinds=("task",))
async def tool_that_computes_on_the_loop() -> None:
    """A tool that computes on the loop, and does not come to an end."""

    @agenttrace.tool
    async def compute() -> None:
        while True:
            sum(range(1_000))  # here

    await compute()


@hang("execute_tool parse", "event_loop_blocked", kinds=("task",), within=30.0)
async def tool_that_keeps_the_interpreter() -> None:
    """A tool in calls of C, each of which keeps the interpreter to itself."""

    def matches() -> None:
        while True:
            re.match(r"(a+)+$", "a" * 18 + "b")  # here

    @agenttrace.tool
    async def parse() -> None:
        matches()

    await parse()


@block("execute_tool parse", seconds=1.0)
async def one_long_call_that_keeps_the_interpreter() -> None:
    """One call of C that keeps the interpreter to itself for seconds, and ends."""
    seconds, letters = 0.0, 16
    while seconds < 0.08:
        await asyncio.sleep(0)  # to find out how long blocks nobody for long
        letters += 1
        began = time.thread_time()
        re.match(r"(a+)+$", "a" * letters + "b")
        seconds = time.thread_time() - began
    letters += 4  # sixteen times as long

    @agenttrace.tool
    async def parse() -> None:
        await asyncio.sleep(0.5)
        re.match(r"(a+)+$", "a" * letters + "b")  # here
        await asyncio.sleep(0.5)

    await parse()


@block("execute_tool blocking", seconds=1.0)
async def tool_that_sleeps_on_the_loop_for_a_while() -> None:
    """A tool that sleeps on the loop for a while, and ends."""

    @agenttrace.tool
    async def blocking() -> None:
        await asyncio.sleep(0.5)
        time.sleep(1.5)  # noqa: ASYNC251 - which is what is to be told # here
        await asyncio.sleep(0.5)

    await blocking()


@hang("victim", "event_loop_blocked", kinds=("task", "task"))
async def task_that_another_one_keeps_from_going_on() -> None:
    """A healthy task whose loop another one keeps to itself."""
    done = threading.Event()

    def hogs() -> None:
        done.wait()  # here

    async def blocks() -> None:
        await asyncio.sleep(0.1)
        hogs()

    # In a context of its own, so that it is no part of the span's work.
    task = asyncio.create_task(blocks(), context=contextvars.Context())
    with agenttrace.span("victim"):
        await asyncio.sleep(1)
    await task


@hang("victim", "event_loop_blocked")
async def callback_that_blocks_the_loop() -> None:
    """A plain callback that does not come back."""
    done = threading.Event()

    def calls_back() -> None:
        done.wait()  # here

    loop = asyncio.get_running_loop()
    loop.call_later(0.1, calls_back, context=contextvars.Context())
    with agenttrace.span("victim"):
        await asyncio.sleep(1)


@hang("itself", "event_loop_blocked", kinds=("task",))
async def loop_that_waits_for_itself() -> None:
    """A loop that waits for a result that it would have to compute itself."""
    loop = asyncio.get_running_loop()

    async def never_begins() -> None:
        pass

    def waits_here() -> None:
        asyncio.run_coroutine_threadsafe(never_begins(), loop).result()  # here

    with agenttrace.span("itself"):
        waits_here()
