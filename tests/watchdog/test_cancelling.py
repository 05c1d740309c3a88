"""`on_stuck="cancel"` cancels the task that hangs, once, and no other."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import pytest

import agenttrace
from agenttrace import safety
from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
from agenttrace.watchdog import watch
from agenttrace.watchdog.cancelling import cancel_all
from tests.watchdog.given import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def fresh() -> Iterator[FreshRuntime]:
    """Return a runtime that judges nobody: the test cancels by itself."""
    with fresh_runtime(on_stuck="off") as made:
        yield made


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


async def cancelled(task: asyncio.Task[None], span: str) -> str:
    """Cancel what *span* is current in; return what *task* was told."""
    await asyncio.sleep(0)
    (record,) = [each for each in agenttrace.open_spans() if each.name == span]
    assert await asyncio.to_thread(cancel_all, [(record, "because")])
    with pytest.raises(asyncio.CancelledError) as told:
        await task
    return str(told.value)


@pytest.mark.usefixtures("fresh")
def test_the_task_of_a_decorated_coroutine_is_cancelled() -> None:
    """With a message, so that whoever catches it knows why."""

    @agenttrace.tool
    async def search() -> None:
        await forever()

    async def run() -> str:
        return await cancelled(asyncio.create_task(search()), "execute_tool search")

    assert asyncio.run(run()) == "because"


@pytest.mark.usefixtures("fresh")
def test_the_task_of_a_block_is_cancelled_and_not_those_it_has_started() -> None:
    """They have the same current span, but it is not they who made it so."""

    async def work(tasks: list[asyncio.Task[None]]) -> None:
        with agenttrace.span("plan"):
            tasks.extend(asyncio.create_task(forever()) for _ in range(3))
            await forever()

    async def run() -> list[bool]:
        others: list[asyncio.Task[None]] = []
        await cancelled(asyncio.create_task(work(others)), "plan")
        untouched = [not task.done() for task in others]
        for task in others:
            task.cancel()
        return untouched

    assert asyncio.run(run()) == [True, True, True]


@pytest.mark.usefixtures("fresh")
def test_the_task_that_waits_for_a_generator_is_cancelled() -> None:
    """A stream that hangs, hangs in its consumer's task."""

    @agenttrace.agent
    async def stream() -> AsyncIterator[int]:
        yield 1
        await forever()

    async def read() -> None:
        async for _ in stream():
            pass

    async def run() -> str:
        return await cancelled(asyncio.create_task(read()), "invoke_agent stream")

    assert asyncio.run(run()) == "because"


@pytest.mark.usefixtures("fresh")
def test_a_task_that_has_left_the_span_by_then_is_not_cancelled() -> None:
    """The loop was busy: what hung has gone on, and is somewhere else."""

    async def work(leave: asyncio.Event) -> str:
        with agenttrace.span("plan"):
            await leave.wait()
        await asyncio.sleep(0)
        return "done"

    async def run() -> str:
        leave = asyncio.Event()
        task = asyncio.create_task(work(leave))
        await asyncio.sleep(0)
        (record,) = agenttrace.open_spans()
        leave.set()
        await asyncio.sleep(0)
        cancel_all([(record, "too late")])
        return await task

    assert asyncio.run(run()) == "done"


@pytest.mark.usefixtures("fresh")
def test_what_hangs_in_no_task_cannot_be_cancelled() -> None:
    """A thread has no such thing."""
    with agenttrace.span("plan"):
        (record,) = agenttrace.open_spans()

        assert not cancel_all([(record, "because")])


@pytest.mark.usefixtures("fresh")
def test_a_thousand_tasks_are_found_at_one_look() -> None:
    """To look at all of them for each takes minutes, for as long as they hang."""

    async def hangs() -> None:
        with agenttrace.span("step"):
            await forever()

    def cancels() -> tuple[int, float]:
        asked = [(each, "because") for each in agenttrace.open_spans()]
        began = time.thread_time()
        return cancel_all(asked), time.thread_time() - began

    async def run() -> tuple[int, float]:
        tasks = [asyncio.create_task(hangs()) for _ in range(1_000)]
        await asyncio.sleep(0)
        found = await asyncio.to_thread(cancels)
        await asyncio.wait(tasks)
        return found

    number, seconds = asyncio.run(run())

    assert number == 1_000
    assert seconds < 5  # of CPU; it takes a tenth, and took 20


def test_what_a_tick_has_no_time_to_cancel_the_next_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No span is open any more by then, and without one it would not tick."""
    monkeypatch.setattr(watch, "_BUDGET", 0.002)
    said: list[str] = []

    async def hangs() -> None:
        try:
            with agenttrace.span("step"):
                await forever()
        except asyncio.CancelledError as error:
            said.append(str(error))

    async def run() -> None:
        tasks = [asyncio.create_task(hangs()) for _ in range(20)]
        await asyncio.wait(tasks, timeout=60)

    with fresh_runtime(heartbeat_timeout=1.0, on_stuck="cancel"):
        asyncio.run(run())

    assert [each.partition(" for ")[0] for each in said] == [
        "agenttrace: no progress"
    ] * 20


@pytest.mark.usefixtures("fresh")
def test_tasks_that_share_a_span_and_have_not_entered_it_are_left_alone() -> None:
    """Made current in a task, a span is that one's: nobody else has it in hand."""

    async def run() -> tuple[int, bool]:
        begun = asyncio.Event()

        async def enters() -> None:
            with agenttrace.span("outer"), agenttrace.span("inner"):
                others.append(asyncio.create_task(forever()))
                begun.set()
                await forever()

        others: list[asyncio.Task[None]] = []
        task = asyncio.create_task(enters())
        await begun.wait()
        (record,) = [each for each in agenttrace.open_spans() if each.name == "outer"]
        number = await asyncio.to_thread(cancel_all, [(record, "because")])
        await asyncio.wait([task])
        is_left = not others[0].done()
        others[0].cancel()
        return number, is_left

    assert asyncio.run(run()) == (1, True)


def test_a_task_that_hangs_is_cancelled_by_the_watchdog_and_told_twice() -> None:
    """The verdict first, as it was; then what came of the cancellation."""

    @agenttrace.agent(heartbeat_timeout=math.inf)
    async def run() -> None:
        await search()

    @agenttrace.tool
    async def search() -> None:
        await forever()

    with fresh_runtime(heartbeat_timeout=1.0, on_stuck="cancel") as fresh:
        before = safety.counts()["tasks_cancelled"]  # all are new in here
        with pytest.raises(asyncio.CancelledError) as told:
            asyncio.run(asyncio.wait_for(run(), 60))
        until(lambda: len(fresh.exported()) == 3)
        sent = {
            span.name: (span.attributes or {})["agenttrace.outcome"]
            for span in fresh.exported()
        }
        # The ticker counts when it has cancelled all, and the first is over by then.
        until(lambda: safety.counts()["tasks_cancelled"] > before)
        counted = safety.counts()["tasks_cancelled"]

    assert str(told.value).startswith("agenttrace: no progress for ")
    assert counted == before + 1
    assert sent == {
        "execute_tool search": "stuck",
        "agenttrace.late_finish: execute_tool search": "cancelled",
        "invoke_agent run": "cancelled",
    }
