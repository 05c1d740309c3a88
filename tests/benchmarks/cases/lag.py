"""How late an event loop becomes while 2,000 spans a second are exported."""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICK: Final = 0.001
TICKS: Final = 1000
"""Of a window: one second, whose ten latest ticks are beyond the 99th percentile."""
SPANS_A_TICK: Final = 2


def some_spans() -> None:
    """Do what a busy agent does in a millisecond."""
    for number in range(SPANS_A_TICK):
        with agenttrace.span("chat gpt-4o") as span:
            for key, value in attributes(number).items():
                span.set_attribute(key, value)


def nothing() -> None:
    """Do nothing."""


async def lag(work: Callable[[], None]) -> float:
    """Return by how many milliseconds the latest hundredth of the ticks was late."""
    late: list[float] = []
    for _ in range(TICKS):
        wanted = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        late.append((time.perf_counter() - wanted) * 1000)
        work()
    return quantiles(late, n=100)[-1]


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what busy windows have beyond the idle ones beside them."""
    with harness.tracing(), asyncio.Runner() as runner:
        busy, idle = harness.in_turns(
            max(rounds, 3),
            lambda: runner.run(lag(some_spans)),
            lambda: runner.run(lag(nothing)),
        )
    yield harness.Figure(
        "lag", harness.differences(busy, idle), harness.against(busy, idle, "ms")
    )


if __name__ == "__main__":
    harness.main(measure)
