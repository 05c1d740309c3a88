"""Spans start in signal handlers and finalizers, in the middle of others' starts."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import pytest

from agenttrace.journal import Journal
from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from agenttrace.testing.garbage import collect_garbage
from tests.journal.given import slots_of, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

FAILED = Ending(Outcome.ERROR, EndedBy.EXCEPTION, KeyError())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Yield a small journal, which makes slots ready a few at a time."""
    made = Journal(tmp_path, first_slots=512, on_low=lambda: None)
    yield made
    made.close(remove=True)


def life(journal: Journal, name: str, ending: Ending) -> None:
    """Have a span start, be where it says it is, and end."""
    record = span(name)
    journal.take(record)
    assert record.words[record.word] == record.started_at
    journal.ended(record, 1, ending)
    journal.free(record)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers")
def test_a_signal_handler_may_start_spans_anywhere(journal: Journal) -> None:
    """With a lock, this would hang; without care, two would share a slot."""
    handled = 0

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal handled
        handled += 1
        life(journal, f"handler {handled}", FAILED)

    before = signal.signal(signal.SIGVTALRM, handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
    try:
        while handled < 100:
            life(journal, f"step {handled % 40}", RETURNED)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

    assert slots_of(journal.path) == []
    records = [span() for _ in range(512)]
    for record in records:
        journal.take(record)
    assert len(slots_of(journal.path)) == 512, "no slot got lost, none was given twice"


def test_a_finalizer_may_start_spans_anywhere(journal: Journal) -> None:
    """The collector runs where something is allocated, which is almost everywhere."""
    finalized = 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal finalized
            finalized += 1
            life(journal, f"finalizer {finalized % 40}", RETURNED)

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for number in range(3000):
            Cycle()
            life(journal, f"step {number}", FAILED)
    finally:
        gc.set_threshold(*before)
    collect_garbage()

    assert finalized == 3000
    assert slots_of(journal.path) == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers")
def test_a_handler_that_raises_leaves_no_span_that_never_was(journal: Journal) -> None:
    """Its slot would be recovered as a lost span that nobody ever started."""

    class TimeIsUpError(Exception):
        pass

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGVTALRM, handler)
    raised = 0
    record = span()
    gc.disable()  # what is raised in a callback of the collector reaches nobody
    try:
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.001)
                for number in range(20_000):
                    record = span(f"step {number % 3000}")
                    journal.take(record)
                    journal.free(record)
            except TimeIsUpError:
                raised += 1
                if getattr(record, "slot", -1) >= 0:
                    journal.free(record)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        gc.enable()

    assert raised == 200, "what it raises is the application's"
    assert slots_of(journal.path) == []
