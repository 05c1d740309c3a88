"""Until when a process lived that nobody can ask: its last sign of any kind."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

import agenttrace
from agenttrace.delivery import segment_files
from agenttrace.delivery.otlp import decode, frame_of
from agenttrace.journal import Slot, State, read_journal
from agenttrace.model import Outcome
from agenttrace.recovery import Recovery, last_sign
from agenttrace.testing import kill_and_recover
from tests.delivery.given import span_data
from tests.recovery.given import (
    FIRST,
    SECOND,
    STARTED_AT,
    TICK,
    Child,
    bury,
    die_at,
    hold_up,
    slot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import NoReturn

    from agenttrace.delivery.frames import Frame
    from agenttrace.model import SpanData

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

LATER = TICK + 7_000_000
LATEST = TICK + 9_000_000
TO_COME = 2**64 - 1


def frame_until(*ends: int) -> Frame:
    """Return a frame of spans that ended then."""
    one = span_data("told")._replace(trace_id=b"t" * 16, span_id=b"t" * 8)
    return frame_of([one._replace(start_time=1, end_time=end) for end in ends])


def told(slot: Slot) -> Slot:
    """Return what stays of *slot* when its span is told elsewhere."""
    return slot._replace(state=State.FREE, outcome=None, ended_by=None)


def recovered(directory: Path) -> list[SpanData]:
    """Recover what is in *directory*; return what is sent, in order."""
    held, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()
    for _, settle in held:
        settle()
    assert recovery.wait(0)
    return [span for frame, _ in held for span in decode(frame.payload)]


def end_of_lost(directory: Path) -> int:
    """Recover what is in *directory*; return when what was open has ended."""
    (end,) = {
        span.end_time
        for span in recovered(directory)
        if span.attributes.get("agenttrace.outcome") == Outcome.LOST
    }
    return end


@pytest.mark.parametrize("times", range(3))
def test_what_a_process_told_of_no_span_lasted_longer_than_those_around_it(
    times: int,
) -> None:
    """A child that is longer than its parent is a riddle on every dashboard."""

    def work(die: Callable[[], NoReturn]) -> None:
        with agenttrace.span("run"):
            for number in range(times + 1):
                with agenttrace.span(f"step {number}"):
                    time.sleep(0.002)
            die()

    captured = kill_and_recover(work)

    run = captured.span("run")
    steps = [captured.span(f"step {number}") for number in range(times + 1)]
    assert run.outcome is Outcome.LOST
    assert run.children == steps
    assert run.ended >= max(step.ended for step in steps)


@pytest.mark.parametrize(
    "sign",
    [
        slot(2)._replace(started_at=LATER - 1),
        slot(2)._replace(last_beat=LATER),
        slot(2, State.ENDED)._replace(end_time=LATER),
        told(slot(2, State.ENDED)._replace(end_time=LATER)),
        slot(2, State.JUDGED)._replace(last_beat=LATER),
    ],
    ids=["start", "heartbeat", "end", "end that is told", "heartbeat of a judged one"],
)
def test_any_sign_in_the_journal_is_one_of_the_process(
    tmp_path: Path, sign: Slot
) -> None:
    """Ticks are a quarter of a second apart, and a kill comes in between."""
    bury(tmp_path, FIRST, [slot(1), sign])

    assert end_of_lost(tmp_path) == LATER


def test_a_span_that_stands_in_the_spool_alone_is_a_sign(tmp_path: Path) -> None:
    """It had no slot: the journal was full, or the slot is another span's by now."""
    frames = [frame_until(TICK + 1), frame_until(LATER, TICK)]
    bury(tmp_path, FIRST, [slot(1)], frames=frames)

    assert end_of_lost(tmp_path) == LATER


def test_a_sign_in_one_journal_of_a_process_counts_for_all_of_them(
    tmp_path: Path,
) -> None:
    """Who is configured again has a journal more, and the same spans open."""
    bury(tmp_path, FIRST, [slot(1)])
    bury(tmp_path, SECOND, [slot(2, State.ENDED)._replace(end_time=LATER)])

    assert end_of_lost(tmp_path) == LATER


@pytest.mark.parametrize(
    ("slots", "frames"),
    [
        ([slot(2)._replace(last_beat=TO_COME)], []),
        ([told(slot(2, State.ENDED)._replace(end_time=TO_COME))], []),
        ([], [frame_until(TO_COME)]),
    ],
    ids=["heartbeat", "end", "frame"],
)
def test_nothing_ends_later_than_it_is_recovered(
    tmp_path: Path, slots: Sequence[Slot], frames: Sequence[Frame]
) -> None:
    """A damaged number, or a clock that was set back, says nothing of the process."""
    bury(tmp_path, FIRST, [slot(1), *slots], frames=frames)

    assert end_of_lost(tmp_path) == TICK


@pytest.mark.parametrize("point", ["sign kept", "recovered", "recovered and appended"])
def test_who_recovers_after_another_has_open_spans_end_at_the_same_instant(
    tmp_path: Path, point: str
) -> None:
    """What said so, a frame, is delivered and gone: a span has one final form."""
    directory = tmp_path / "instances"
    bury(directory, FIRST, [slot(1)], frames=[frame_until(LATER)])
    bury(directory, SECOND, [slot(2), slot(3)])

    def body() -> None:
        die_at(point)
        recovered(directory)

    assert Child(body).wait() < 0
    for path in directory.glob("*.spool"):
        path.unlink()

    assert end_of_lost(directory) == LATER


@pytest.mark.parametrize("sign", [LATER, TO_COME])
def test_a_sign_that_was_written_down_stands_unless_it_is_still_to_come(
    tmp_path: Path, sign: int
) -> None:
    """It is under no checksum, and a disk makes up numbers."""
    bury(tmp_path, FIRST, [slot(1), slot(2)._replace(last_beat=LATEST)])
    with read_journal(tmp_path / f"{FIRST}.journal", writable=True) as journal:
        journal.keep_sign(sign)

    assert end_of_lost(tmp_path) == (LATER if sign == LATER else LATEST)


def test_without_any_sign_a_span_has_taken_some_time(tmp_path: Path) -> None:
    """A clock that was set back by years leaves none that can be believed."""
    ahead = time.time_ns() * 2
    open_one = slot(1)._replace(started_at=ahead, last_beat=ahead)
    bury(tmp_path, FIRST, [open_one])
    journal = tmp_path / f"{FIRST}.journal"
    data = bytearray(journal.read_bytes())
    data[48:56] = ahead.to_bytes(8, "little")
    journal.write_bytes(data)

    assert end_of_lost(tmp_path) == ahead + 1


def test_who_asks_how_long_a_process_is_silent_sees_the_same_sign(
    tmp_path: Path,
) -> None:
    """`guard` would tell of another instant than the dashboard shows afterwards."""
    slots = [slot(1), told(slot(2, State.ENDED)._replace(end_time=LATER))]
    bury(tmp_path, FIRST, slots, frames=[frame_until(STARTED_AT)])
    files = segment_files.files_of(tmp_path, FIRST)

    with read_journal(tmp_path / f"{FIRST}.journal") as journal:
        seen = last_sign(journal, files, time.time_ns())

    assert seen == LATER == end_of_lost(tmp_path)
