"""What an open span holds, and what is left of it when it has been delivered."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Final

import agenttrace
from tests.benchmarks import harness
from tests.benchmarks.peer import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.runtime import Runtime

SPANS: Final = 5000
SLOT: Final = 0
"""Bytes of a slot that are mapped, not allocated, where there is a journal."""


def open_and_close(runtime: Runtime) -> tuple[float, float]:
    """Return the bytes of each span while all are open, and after their delivery."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    # One below the other: their blocks, contexts and tokens are part of the price.
    blocks = [agenttrace.span("chat gpt-4o") for _ in range(SPANS)]
    for block in blocks:
        span = block.__enter__()
        for key, value in attributes(17).items():
            span.set_attribute(key, value)
    del span
    gc.collect()
    opened = tracemalloc.get_traced_memory()[0]
    for block in reversed(blocks):
        block.__exit__(None, None, None)
    del block, blocks
    assert runtime.flush(60)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    return (opened - before) / SPANS, (after - before) / SPANS


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield both."""
    with harness.tracing() as (runtime, _):
        # What is allocated once: the sender's connection, caches, words for slots.
        open_and_close(runtime)
        tracemalloc.start()
        open_and_close(runtime)
        samples = [open_and_close(runtime) for _ in range(max(rounds // 2, 2))]
        tracemalloc.stop()
    yield harness.figure("memory", [opened for opened, _ in samples])
    yield harness.figure("left", [after for _, after in samples])


if __name__ == "__main__":
    harness.main(measure)
