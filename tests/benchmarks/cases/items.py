"""What an item of a decorated generator costs, in units of the least it can cost.

Making the tracing context current for a step and putting it away again is one `set` and
one `reset` of a context variable, so that is the unit, on the same interpreter and in
the same context: inside a span, among a dozen variables, as in a web application.  An
asynchronous generator is compared with an empty asynchronous wrapper: another frame to
be awaited is what any wrapper costs.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context.context import Context

import agenttrace
from agenttrace.context import scope
from tests.benchmarks import harness

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

ITEMS: Final = 4000
"""Items of a batch: what the span itself costs is less than 1 % of it."""

VARIABLES: Final = 12
TAKES: Final = 5


def numbers() -> Generator[int]:
    for number in range(ITEMS):  # noqa: UP028 - its own frame resumes for each item
        yield number


async def async_numbers() -> AsyncGenerator[int]:
    for number in range(ITEMS):
        yield number


async def wrapped_numbers() -> AsyncGenerator[int]:
    async for number in async_numbers():
        yield number


def nanoseconds(make: Callable[[], Generator[Any]]) -> float:
    """Return the CPU time of an item."""
    began = time.thread_time_ns()
    for _ in make():
        pass
    return (time.thread_time_ns() - began) / ITEMS


async def async_nanoseconds(make: Callable[[], AsyncGenerator[Any]]) -> float:
    """Return the CPU time of an item."""
    began = time.thread_time_ns()
    async for _ in make():
        pass
    return (time.thread_time_ns() - began) / ITEMS


def set_and_reset() -> float:
    """Return the CPU time of one `set` and one `reset`, without the loop around.

    Of the very variable that is set for every item: how long it takes depends on where
    in its context a variable happens to be.
    """
    _, activate, put_away = scope.accessors()
    value = Context()  # not the one that is there: to set that again is for free
    began = time.thread_time_ns()
    for _ in range(ITEMS):
        put_away(activate(value))
    between = time.thread_time_ns()
    for _ in range(ITEMS):
        pass
    return (2 * between - began - time.thread_time_ns()) / ITEMS


def in_some_context(
    take: Callable[[asyncio.Runner], tuple[float, ...]],
) -> tuple[float, ...]:
    """Measure in a context with new variables, so that no layout is favoured."""
    for number in range(VARIABLES):
        ContextVar[int](f"application {number}").set(0)
    with agenttrace.span("request"), asyncio.Runner() as runner:
        return take(runner)


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what both kinds of generator come to."""
    traced = agenttrace.traced(numbers)
    async_traced = agenttrace.traced(async_numbers)

    def added(runner: asyncio.Runner) -> tuple[float, ...]:
        def looped(make: Callable[[], AsyncGenerator[Any]]) -> float:
            return runner.run(async_nanoseconds(make))

        both: list[float] = []
        for pair in (
            (partial(nanoseconds, traced), partial(nanoseconds, numbers)),
            (partial(looped, async_traced), partial(looped, wrapped_numbers)),
        ):
            ours, plain, unit = harness.in_turns(1, *pair, set_and_reset, takes=TAKES)
            both += (ours[0] - plain[0], unit[0])
        return tuple(both)

    with harness.tracing():
        samples = [
            copy_context().run(in_some_context, added) for _ in range(rounds * 3)
        ]
    for row, place in (("item", 0), ("async_item", 2)):
        more = [sample[place] for sample in samples]
        unit = [sample[place + 1] for sample in samples]
        yield harness.Figure(
            row, harness.ratios(more, unit), harness.against(more, unit, "ns")
        )


if __name__ == "__main__":
    harness.main(measure)
