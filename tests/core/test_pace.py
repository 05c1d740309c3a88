"""A thread of agenttrace has the interpreter for a moment, and for no longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace import pace
from agenttrace.pace import LONGEST, MOST, PAUSE, SLICE, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = SLICE / 10


class Machine:
    """Has the time that `pace` reads, and others who want the interpreter.

    Args:
        others: Seconds for which each pause of the thread is used.
    """

    def __init__(self, others: float = 0.0) -> None:
        self.now = 1_000.0
        self.others = others
        self.pauses: list[float] = []

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Be what `pace` reads and sleeps by."""
        patch.setattr(pace, "perf_counter", lambda: self.now)
        patch.setattr(pace, "_sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(self.now)
        self.now += seconds + self.others

    def work(self, seconds: float) -> Iterator[None]:
        """Make steps that take *seconds* together."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            yield

    def slices(self, seconds: float) -> list[float]:
        """Return how long each slice of work that takes *seconds* was."""
        begun = self.now
        for _ in Pace().along(self.work(seconds)):
            pass
        ends = [*self.pauses, self.now]
        after = [begun, *(at + PAUSE + self.others for at in self.pauses)]
        return [end - start for start, end in zip(after, ends, strict=True)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    machine.put_in_place(monkeypatch)
    return machine


def test_what_is_done_in_a_moment_is_done_at_one_go(machine: Machine) -> None:
    """A sleep costs as much as some spans do."""
    assert len(machine.slices(SLICE * 0.9)) == 1
    assert machine.pauses == []


def test_the_first_slices_are_the_shortest(machine: Machine) -> None:
    """Most often there is little to do, and then it is nobody's loss."""
    slices = machine.slices(LONGEST * 20)

    assert slices[0] == pytest.approx(SLICE, abs=2 * STEP)
    assert slices[1] == pytest.approx(2 * SLICE, abs=2 * STEP)
    assert max(slices) == pytest.approx(LONGEST, abs=2 * STEP)


def test_who_waited_begins_with_a_short_slice_again(machine: Machine) -> None:
    """However much there was to do the last time."""
    own = Pace()
    for _ in own.along(machine.work(LONGEST * 20)):
        pass
    machine.now += 60.0

    own.begin()
    machine.pauses.clear()
    begun = machine.now
    for _ in own.along(machine.work(LONGEST)):
        pass

    assert machine.pauses[0] - begun == pytest.approx(SLICE, abs=2 * STEP)


def test_who_has_waited_for_busy_others_takes_half_as_long(machine: Machine) -> None:
    """Who waits 5 ms for a quarter of one would never come to an end."""
    machine.others = 0.005

    slices = machine.slices(0.1)

    assert slices[1:-1] == pytest.approx([0.0025] * len(slices[1:-1]), abs=2 * STEP)


@given(st.floats(0, 0.02) | st.just(3_600.0), st.floats(0, 0.05))
def test_nobody_is_kept_waiting_for_longer_than_that(
    others: float, seconds: float
) -> None:
    """Whoever else there is, and however much there is to do."""
    machine = Machine(others)
    with pytest.MonkeyPatch.context() as patch:
        machine.put_in_place(patch)
        slices = machine.slices(seconds)

    owed = min((others + PAUSE) / 2, MOST)
    assert max(slices) <= max(LONGEST, owed) + 2 * STEP


def test_an_applications_test_may_forbid_sleeping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many do, or count how often it was done; nothing of that is agenttrace's."""
    forbidden = Mock(side_effect=AssertionError)
    monkeypatch.setattr(time, "sleep", forbidden)
    monkeypatch.setattr(time, "perf_counter", forbidden)
    until = time.monotonic() + 0.02

    steps = Pace().along(iter(time.monotonic, None))
    assert any(now > until for now in steps)

    forbidden.assert_not_called()


def test_everything_comes_along_in_its_order(machine: Machine) -> None:
    """It is a loop like any other."""
    assert list(Pace().along("abc")) == ["a", "b", "c"]
    assert list(Pace().along(())) == list[str]()
    assert machine.pauses == []
