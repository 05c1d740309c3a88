"""What tracing adds to 2,000 concurrent runs of three spans, beside what the SDK adds.

Memory decides here: thousands of spans are open at once, and none of them is still in a
cache when its run goes on.  How fast that is differs from machine to machine, and on
one of them from hour to hour, by a third; so it is a ratio (ADR 9).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import bare_sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

RUNS: Final = 2000
TAKES: Final = 5


async def run(start: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Be an agent that calls a model and a tool, and waits for both."""
    with start("invoke_agent triage"):
        with start("chat gpt-4o"):
            await asyncio.sleep(0)
        with start("execute_tool search"):
            await asyncio.sleep(0)


async def microseconds(start: Callable[[str], AbstractContextManager[Any]]) -> float:
    """Return the CPU time of this thread for a run."""
    began = time.thread_time_ns()
    await asyncio.gather(*[run(start) for _ in range(RUNS)])
    return (time.thread_time_ns() - began) / RUNS / 1000


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what is added to each run."""
    untraced = nullcontext[None]()
    with (
        harness.tracing() as (runtime, receiver),
        bare_sdk(receiver) as sdk,
        asyncio.Runner() as runner,
    ):

        def plain() -> float:
            return runner.run(microseconds(lambda _: untraced))

        def traced() -> float:
            took = runner.run(microseconds(agenttrace.span))
            assert runtime.flush(60)
            return took

        def by_the_sdk() -> float:
            with sdk.context():
                took = runner.run(microseconds(sdk.tracer.start_as_current_span))
            sdk.flush()
            return took

        ours, without, theirs = harness.in_turns(
            rounds, traced, plain, by_the_sdk, takes=TAKES
        )
    we_add = harness.differences(ours, without)
    sdk_adds = harness.differences(theirs, without)
    yield harness.Figure(
        "fanout",
        harness.ratios(we_add, sdk_adds),
        f"{harness.against(we_add, sdk_adds)}, a run untraced {median(without):.3g} us",
    )


if __name__ == "__main__":
    harness.main(measure)
