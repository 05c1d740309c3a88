"""A cancellation, a drop or a close takes as many turns of the loop as ever.

Time-outs, shutdowns and tests count on it, and a turn is where others get to run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import agenttrace
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from tests.context.runners import Runner

    Decorate = Callable[[Any], Any]
    Scene = Callable[[Decorate], Coroutine[Any, Any, list[int]]]

PATIENCE = 200
"""Turns; whatever takes longer never comes."""


class Turns:
    """Counts the turns of the running loop until something has happened."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()

    async def until(self, done: Callable[[], bool] | None = None) -> int:
        """Return after how many turns *done*, or `happened`, is true."""
        done = done or self.happened.is_set
        for turn in range(PATIENCE):
            if done():
                return turn
            await asyncio.sleep(0)
        return -1


async def cleaning_up(turns: Turns, *, cleanup: int) -> None:
    """Take *cleanup* turns to clean up, then say so."""
    for _ in range(cleanup):
        await asyncio.sleep(0)
    turns.happened.set()


def suspended(turns: Turns, cleanup: int) -> Callable[[], AsyncGenerator[int]]:
    """Return a generator function that waits at its yield."""

    async def body() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            await cleaning_up(turns, cleanup=cleanup)

    return body


def waiting(turns: Turns, cleanup: int) -> Callable[[], AsyncGenerator[int]]:
    """Return a generator function that waits before its first item."""

    async def body() -> AsyncGenerator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            await cleaning_up(turns, cleanup=cleanup)

    return body


async def begun(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Return a task that has come as far as it does by itself."""

    async def run() -> object:
        return await work

    task = asyncio.create_task(run())
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def cancelled_in_a_coroutine(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for cleanup in range(3):
        turns = Turns()

        async def work(turns: Turns = turns, cleanup: int = cleanup) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await cleaning_up(turns, cleanup=cleanup)

        task = await begun(decorate(work)())
        task.cancel()
        counts += [await turns.until(), await turns.until(task.done)]
    return counts


async def cancelled_in_a_step(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for cleanup in range(3):
        turns = Turns()

        async def consume(turns: Turns = turns, cleanup: int = cleanup) -> None:
            async for _ in decorate(waiting(turns, cleanup))():
                pass

        task = await begun(consume())
        task.cancel()
        counts += [await turns.until(), await turns.until(task.done)]
    return counts


async def cancelled_between_steps(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for cleanup in range(3):
        turns = Turns()

        async def consume(turns: Turns = turns, cleanup: int = cleanup) -> None:
            async for _ in decorate(suspended(turns, cleanup))():
                await asyncio.Event().wait()

        task = await begun(consume())
        task.cancel()
        counts.append(await turns.until(task.done))
        # Its traceback keeps the frame that keeps the generator.
        del task
        collect_garbage()
        counts.append(await turns.until())
    return counts


async def closed(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for cleanup in range(3):
        turns = Turns()
        stream = decorate(suspended(turns, cleanup))()
        await anext(stream)
        task = asyncio.create_task(stream.aclose())
        counts += [await turns.until(), await turns.until(task.done)]
    return counts


async def dropped(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for cleanup in range(3):
        turns = Turns()
        stream = decorate(suspended(turns, cleanup))()
        await anext(stream)
        del stream
        counts.append(await turns.until())
    return counts


async def dropped_in_a_cycle(decorate: Decorate) -> list[int]:
    turns = Turns()
    cycle: list[Any] = [decorate(suspended(turns, 1))()]
    cycle.append(cycle)
    await anext(cycle[0])
    del cycle
    collect_garbage()
    return [await turns.until()]


async def read_to_the_end(decorate: Decorate) -> list[int]:
    counts: list[int] = []
    for hops in range(3):

        async def body(hops: int = hops) -> AsyncGenerator[int]:
            for number in range(3):
                for _ in range(hops):
                    await asyncio.sleep(0)
                yield number

        async def consume(body: Any = body) -> None:  # noqa: ANN401 - as it is
            async for _ in decorate(body)():
                pass

        task = asyncio.create_task(consume())
        counts.append(await Turns().until(task.done))
    return counts


async def timed_out(decorate: Decorate) -> list[int]:
    turns = Turns()

    async def work() -> None:
        async with asyncio.timeout(0):
            async for _ in decorate(waiting(turns, 2))():
                pass

    task = asyncio.create_task(work())
    counts = [await turns.until(task.done)]
    await asyncio.wait([task])
    return counts


async def a_failing_group(decorate: Decorate) -> list[int]:
    turns = Turns()

    async def fail() -> None:
        raise LookupError

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            stream = decorate(waiting(turns, 2))()
            group.create_task(anext(stream))
            group.create_task(decorate(fail)())

    task = asyncio.create_task(work())
    counts = [await turns.until(), await turns.until(task.done)]
    await asyncio.wait([task])
    return counts


async def gathered(decorate: Decorate) -> list[int]:
    async def work(number: int) -> int:
        for _ in range(number):
            await asyncio.sleep(0)
        return number

    task = asyncio.ensure_future(
        asyncio.gather(*(decorate(work)(number) for number in range(5)))
    )
    return [await Turns().until(task.done), *task.result()]


async def a_task_that_is_returned(decorate: Decorate) -> list[int]:
    def start() -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(0))

    task = decorate(start)()
    return [await Turns().until(task.done)]


SCENES: list[Scene] = [
    cancelled_in_a_coroutine,
    cancelled_in_a_step,
    cancelled_between_steps,
    closed,
    dropped,
    dropped_in_a_cycle,
    read_to_the_end,
    timed_out,
    a_failing_group,
    gathered,
    a_task_that_is_returned,
]


@pytest.mark.parametrize(
    ("scenario", "scene"),
    [(f"turns: {scene.__name__}", scene) for scene in SCENES],
    ids=[scene.__name__ for scene in SCENES],
)
@pytest.mark.usefixtures("spans")
def test_it_takes_as_many_turns_as_without_a_decorator(
    scenario: str, scene: Scene, runner: Runner
) -> None:
    """Nothing is put between a cause and its effect."""
    del scenario
    alone = runner.run(scene(lambda fn: fn))

    traced = runner.run(scene(agenttrace.agent))

    assert traced == alone
    assert -1 not in alone
