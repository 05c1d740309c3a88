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
from contextvars import ContextVar
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

_VARIABLES: Final = tuple(ContextVar[int](f"application {n}") for n in range(12))


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


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what both kinds of generator come to."""
    for variable in _VARIABLES:
        variable.set(0)
    traced = agenttrace.traced(numbers)
    async_traced = agenttrace.traced(async_numbers)
    with (
        harness.tracing(),
        agenttrace.span("request"),
        asyncio.Runner() as runner,
    ):

        def looped(make: Callable[[], AsyncGenerator[Any]]) -> float:
            return runner.run(async_nanoseconds(make))

        sides = {
            "item": (partial(nanoseconds, traced), partial(nanoseconds, numbers)),
            "async_item": (
                partial(looped, async_traced),
                partial(looped, wrapped_numbers),
            ),
        }
        for row, pair in sides.items():
            ours, plain, unit = harness.in_turns(rounds * 10, *pair, set_and_reset)
            added = harness.differences(ours, plain)
            yield harness.figure(
                row,
                harness.ratios(added, unit),
                harness.against(added, unit, "ns"),
            )


if __name__ == "__main__":
    harness.main(measure)
