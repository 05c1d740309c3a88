"""What a long recovery costs.  Generous: it is an order of magnitude that is held."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from agenttrace.recovery import Recovery
from tests.recovery.given import FIRST, OTHER, bury, names_in, slot

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.recovery.search import Settle

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

ORPHANS = 100_000
SECONDS = 10.0
MEBIBYTES = 64.0


class Sink:
    """Takes frames, settles them at once, and counts their spans."""

    def __init__(self) -> None:
        self.spans = 0

    def send(self, frame: Frame, settle: Settle) -> bool:
        self.spans += len(frame.ids)
        settle()
        return True


def test_a_hundred_thousand_orphans_are_recovered_in_seconds(tmp_path: Path) -> None:
    """They are delivered by a process that has been restarted to work."""
    middle = ORPHANS * 3 // 4  # of two processes, so that neither is all there is
    bury(tmp_path, FIRST, (slot(number) for number in range(1, middle + 1)))
    bury(tmp_path, OTHER, (slot(number) for number in range(middle + 1, ORPHANS + 1)))
    sink = Sink()
    recovery = Recovery(tmp_path, sink.send)
    gc.collect()

    begun, worked = time.perf_counter(), time.thread_time()
    found = recovery.run()
    took, worked = time.perf_counter() - begun, time.thread_time() - worked

    print(f"{ORPHANS} orphans in {took:.2f} s, {worked:.2f} s of work")  # noqa: T201 - a figure is asked for
    assert (found.lost, sink.spans) == (ORPHANS, ORPHANS)
    assert recovery.wait(0)
    assert names_in(tmp_path) == []
    assert worked < SECONDS  # on the clock there are the neighbours, too


def test_the_memory_of_a_long_recovery_is_bounded(tmp_path: Path) -> None:
    """A tenth of them under a tracer: what is kept for each of them is what counts."""
    orphans = ORPHANS // 10
    bury(tmp_path, FIRST, (slot(number) for number in range(1, orphans + 1)))
    sink = Sink()
    recovery = Recovery(tmp_path, sink.send)
    gc.collect()

    tracemalloc.start()
    try:
        recovery.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    print(f"{peak / 2**20:.1f} MiB at the peak, {peak / orphans:.0f} bytes an orphan")  # noqa: T201 - a figure is asked for
    assert sink.spans == orphans
    assert peak / 2**20 < MEBIBYTES
    assert peak / orphans < 400
