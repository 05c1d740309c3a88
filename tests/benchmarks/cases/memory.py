"""What an open span holds, and what is left of it when it has been delivered."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

    from agenttrace.runtime import Runtime

SPANS: Final = 5000


def opened() -> AbstractContextManager[Span]:
    """Return the block of a span that is open."""
    block = agenttrace.span("chat gpt-4o")
    block.__enter__().set_attributes(attributes(17))
    return block


def open_and_close(runtime: Runtime) -> tuple[float, float]:
    """Return the bytes of each span while all are open, and after their delivery."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    # One below the other: their blocks, contexts and tokens are part of the price.
    blocks = [opened() for _ in range(SPANS)]
    gc.collect()
    full = tracemalloc.get_traced_memory()[0]
    while blocks:
        blocks.pop().__exit__(None, None, None)
    assert runtime.flush(60)
    # The watchdog lets go of spans that have ended some time later.
    while runtime.spans.awake:
        time.sleep(0.01)
    assert runtime.flush(60)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    return (full - before) / SPANS, (after - before) / SPANS


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield both."""
    with harness.tracing() as (runtime, _):
        # What is allocated once: the sender's connection, caches, words for slots.
        open_and_close(runtime)
        tracemalloc.start()
        open_and_close(runtime)
        samples = [open_and_close(runtime) for _ in range(max(rounds // 2, 5))]
        tracemalloc.stop()
    yield harness.Figure("memory", [full for full, _ in samples])
    yield harness.Figure("left", [left for _, left in samples])


if __name__ == "__main__":
    harness.main(measure)
