"""With no span open and nothing to deliver, no thread of ours wakes."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import agenttrace
from agenttrace.runtime.process import PROCESS
from tests.benchmarks import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLING = 1.0
"""Seconds after the last span in which a thread may find that there is no more."""


def wake_ups() -> int:
    """Return how often the threads but this one have slept, and the ticker ticked."""
    here = threading.get_native_id()
    others = [
        task for task in Path("/proc/self/task").iterdir() if int(task.name) != here
    ]
    lines = [
        line.split()
        for task in others
        for line in (task / "status").read_text().splitlines()
    ]
    slept = sum(int(words[1]) for words in lines if words[0] == _SLEPT)
    return slept + PROCESS.ticker.ticks


_SLEPT = "voluntary_ctxt_switches:"


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield the wake-ups of a second.  Only Linux counts them."""
    if sys.platform != "linux":
        return
    samples: list[float] = []
    with harness.tracing() as (runtime, _):
        for _ in range(max(rounds // 3, 1)):
            with agenttrace.span("work"):
                pass
            assert runtime.flush(60)
            assert PROCESS.ticker.ticks
            time.sleep(SETTLING)
            before = wake_ups()
            time.sleep(1.0)
            samples.append(wake_ups() - before)
    yield harness.Figure("idle", samples)


if __name__ == "__main__":
    harness.main(measure)
