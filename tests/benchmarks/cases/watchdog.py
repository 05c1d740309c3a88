"""What watching costs while nothing is wrong, and how late it says that something is.

A hundred thousand spans are open, and none is due.  Then one of them is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import agenttrace
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.runtimes import Nowhere
from agenttrace.watchdog.report import describe
from tests.benchmarks import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

SPANS: Final = 99_000
WINDOW: Final = 3.0
"""Seconds in which the watching thread's CPU time is taken."""
LIMIT: Final = 1.0
"""Seconds that the one span may be silent which is to be judged."""
BEATS: Final = 20_000
TASKS: Final = 1000
BLOCKED: Final = 0.5
PATIENCE: Final = 60.0
TICKER: Final = "agenttrace-ticker"


def cpu_of(thread: threading.Thread) -> float:
    """Return the CPU time of *thread* in seconds."""
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def watching() -> float:
    """Return what part of a core the watching thread takes, in per cent."""
    (ticker,) = [t for t in threading.enumerate() if t.name == TICKER]
    before, ticks = cpu_of(ticker), PROCESS.ticker.ticks
    time.sleep(WINDOW)
    assert PROCESS.ticker.ticks > ticks
    return (cpu_of(ticker) - before) / WINDOW * 100


def late(judged: list[tuple[str, float]]) -> float:
    """Return the seconds by which a hook is called later than the limit has passed."""
    found = len(judged)
    began = time.monotonic()
    with agenttrace.span("the stuck one", heartbeat_timeout=LIMIT):
        while len(judged) == found:
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.01)
    name, at = judged[-1]
    assert name == "the stuck one"
    return at - began - LIMIT


def beating() -> float:
    """Return the microseconds of one heartbeat."""
    began = time.thread_time_ns()
    for _ in range(BEATS):
        agenttrace.heartbeat()
    return (time.thread_time_ns() - began) / BEATS / 1000


def reporting() -> float:
    """Return the milliseconds of a report on what blocks a loop of 1,000 tasks."""
    took: list[float] = []
    blocked = threading.Event()

    async def main() -> None:
        others = [asyncio.create_task(asyncio.sleep(PATIENCE)) for _ in range(TASKS)]
        await asyncio.sleep(0)
        with agenttrace.span("blocks"):
            blocked.set()
            time.sleep(BLOCKED)  # noqa: ASYNC251 - that is what is reported on
        for other in others:
            other.cancel()

    def report() -> None:
        assert blocked.wait(PATIENCE)
        (span,) = [each for each in agenttrace.open_spans() if each.name == "blocks"]
        limits: Any = {"idle": 1.0, "limit": 1.0, "rule": "silence"}
        began = time.perf_counter()
        found = describe(span, now=time.time_ns(), **limits)
        took.append((time.perf_counter() - began) * 1000)
        assert found.cause == "event_loop_blocked"

    thread = threading.Thread(target=report)
    thread.start()
    asyncio.run(main())
    thread.join()
    return took[0]


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield all four."""
    judged: list[tuple[str, float]] = []
    runtime = agenttrace.configure(
        span_exporter=Nowhere(),
        stuck_hooks=[lambda report: judged.append((report.name, time.monotonic()))],
    )
    assert runtime.status().journal
    with agenttrace.span("beats"):
        yield harness.Figure("heartbeat", [beating() for _ in range(rounds)])
    yield harness.Figure("report", [reporting() for _ in range(rounds)])
    with ExitStack() as stack:
        for _ in range(SPANS):
            stack.enter_context(agenttrace.span("chat gpt-4o"))
        yield harness.Figure("watch", [watching() for _ in range(max(rounds // 2, 1))])
        yield harness.Figure("late", [late(judged) for _ in range(max(rounds // 2, 1))])
    runtime.shutdown()


if __name__ == "__main__":
    harness.main(measure)
