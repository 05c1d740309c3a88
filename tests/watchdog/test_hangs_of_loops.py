"""Event loops that cannot go on: somebody is on their thread and does not leave it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import Any

import pytest

import agenttrace
from tests.watchdog.hangs import LOOPS, hang_of, running

pytestmark = pytest.mark.usefixtures("traced")

Factory = Any


@pytest.mark.parametrize("factory", LOOPS)
def test_a_tool_that_sleeps_on_the_loop(factory: Factory) -> None:
    """The commonest mistake of all, and the loop cannot say a word about it."""
    done = threading.Event()

    def dozes() -> None:
        while not done.is_set():
            time.sleep(0.5)

    @agenttrace.tool
    async def blocking() -> None:
        dozes()

    with running(blocking, factory, done.set):
        report = hang_of("execute_tool blocking", "event_loop_blocked", "dozes")

    assert [frame.function.rpartition(".")[2] for frame in report.links[0].frames] == [
        "blocking",
        "dozes",
    ]


@pytest.mark.parametrize("factory", LOOPS)
def test_a_tool_that_computes_on_the_loop(factory: Factory) -> None:
    """No call is to be seen: only that the step does not end."""
    done = threading.Event()

    async def computes() -> None:
        with agenttrace.span("compute"):
            while not done.is_set():
                sum(range(100))

    with running(computes, factory, done.set):
        hang_of("compute", "event_loop_blocked", "computes")


def test_a_call_that_keeps_the_interpreter_to_itself() -> None:
    """While it lasts no thread of ours runs; between two of them one does."""
    done = threading.Event()

    def matches() -> None:
        while not done.is_set():
            re.match(r"(a+)+$", "a" * 20 + "b")

    async def parses() -> None:
        with agenttrace.span("parse"):
            matches()

    with running(parses, asyncio.new_event_loop, done.set):
        hang_of("parse", "event_loop_blocked", "matches")


@pytest.mark.parametrize("factory", LOOPS)
def test_a_task_that_could_go_on_is_told_with_the_one_that_keeps_it(
    factory: Factory,
) -> None:
    """The victim waits for nothing that is not there: another one has the thread."""
    done = threading.Event()

    def hogs() -> None:
        done.wait()

    async def both() -> None:
        async def blocks() -> None:
            await asyncio.sleep(0)
            hogs()

        task = asyncio.create_task(blocks(), name="the hog")
        with agenttrace.span("victim"):
            await asyncio.sleep(1000)
        await task

    with running(both, factory, done.set):
        report = hang_of("victim", "event_loop_blocked", "hogs")

    assert [link.name.split(" (")[0] for link in report.links][-1] == "the hog"


def test_a_callback_that_blocks_the_loop() -> None:
    """It belongs to no task at all."""
    done = threading.Event()

    def calls_back() -> None:
        done.wait()

    async def waits() -> None:
        with agenttrace.span("victim"):
            asyncio.get_running_loop().call_soon(calls_back)
            await asyncio.Event().wait()

    with running(waits, asyncio.new_event_loop, done.set):
        report = hang_of("victim", "event_loop_blocked", "calls_back")

    assert report.links[-1].kind == "callback"


def test_a_loop_that_waits_for_itself() -> None:
    """`result()` of a coroutine on the very loop that would have to run it."""
    futures: list[Any] = []

    async def never() -> None:
        pass

    def waits_here(loop: asyncio.AbstractEventLoop) -> None:
        futures.append(asyncio.run_coroutine_threadsafe(never(), loop))
        futures[0].result()

    async def blocks() -> None:
        with agenttrace.span("itself"):
            waits_here(asyncio.get_running_loop())

    def release() -> None:
        futures[0].set_running_or_notify_cancel()
        futures[0].set_result(None)

    with running(blocks, asyncio.new_event_loop, release):
        hang_of("itself", "event_loop_blocked", "waits_here")
