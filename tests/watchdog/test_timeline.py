"""A host that sleeps and a clock that is set take no time of the watchdog's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.watchdog.timeline import LATE, TICK, Timeline
from tests.watchdog.given import world

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

usual = st.integers(TICK // 2, LATE // 2).map(lambda passed: (passed, passed))
late = st.integers(LATE + 1, 10**13).map(lambda passed: (passed, passed))
suspended = st.integers(1, 10**13).map(lambda asleep: (TICK + asleep, TICK))
clock_set = st.integers(-(10**12), 10**12).map(lambda by: (TICK + by, TICK))
ticks = st.lists(st.one_of(usual, usual, late, suspended, clock_set), max_size=60)


def run(steps: list[tuple[int, int]]) -> tuple[Timeline, list[tuple[int, int]]]:
    """Return a line after ticks of (wall, steady), and its (wall, now) at each."""
    line = Timeline()
    wall, steady = START, 0
    line.advance(wall, steady)
    seen = [(wall, line.now)]
    for wall_passed, steady_passed in steps:
        wall, steady = wall + wall_passed, steady + steady_passed
        line.advance(wall, steady)
        seen.append((wall, line.now))
    return line, seen


@given(ticks)
def test_time_never_goes_back_and_never_jumps(steps: list[tuple[int, int]]) -> None:
    """Neither may make a limit pass that nothing has waited for."""
    _, seen = run(steps)

    passed = [later - now for (_, now), (_, later) in pairwise(seen)]
    assert all(0 <= each <= LATE + SECOND // 2 for each in passed)


@given(ticks)
def test_a_heartbeat_is_never_taken_for_older_than_it_is(
    steps: list[tuple[int, int]],
) -> None:
    """Where the clock was set back it may seem younger: late is better than wrong."""
    line, seen = run(steps)

    assert all(now <= line.instant(wall) <= line.now for wall, now in seen)


@given(st.lists(st.one_of(usual, late, suspended), max_size=60))
def test_where_the_clock_goes_forward_every_heartbeat_is_found_exactly(
    steps: list[tuple[int, int]],
) -> None:
    """A starved machine is late all the time, and what hangs there is to be found."""
    line, seen = run(steps)

    assert [line.instant(wall) for wall, _ in seen] == [now for _, now in seen]


def test_a_heartbeat_from_before_the_clock_was_set_back_stays_where_it_was() -> None:
    """Else what hangs would be forgiven for as long as the clock was set back."""
    line, _ = run([(TICK, TICK)] * 5)
    wall, now = START + 5 * TICK, line.now
    line.advance(wall - 3600 * SECOND, 6 * TICK)
    line.advance(wall - 3600 * SECOND + TICK, 7 * TICK)

    assert line.instant(wall) == now
    assert line.now - now == 2 * TICK


@pytest.mark.parametrize(
    ("wall", "steady", "in_time"),
    [
        (TICK, TICK, True),
        (LATE, LATE, True),
        (LATE + 1, LATE + 1, False),
        (8 * 3600 * SECOND, TICK, False),
        (-60 * SECOND, TICK, False),
    ],
    ids=["usual", "slow", "late", "suspended", "set back"],
)
def test_a_tick_that_came_late_says_so(
    wall: int, steady: int, *, in_time: bool
) -> None:
    """It moves the limits and must not judge."""
    line = Timeline()
    line.advance(START, 0)

    assert line.advance(START + wall, steady) is in_time


def test_a_thousand_late_ticks_are_bounded_and_forget_in_the_safe_direction() -> None:
    """The machine may be starved for days."""
    line, seen = run([(2 * LATE, 2 * LATE)] * 1000)

    assert line.instant(START) >= seen[0][1]
    assert line.instant(seen[-1][0]) == line.now


def test_heartbeats_count_that_are_told_by_a_clock_that_was_set_back() -> None:
    """They are told by instants before the start of their span."""
    with world() as watched, watched.block("long"):
        (record,) = watched.made.registry
        watched.clock.pass_(10)
        watched.clock.tick(-3600 * SECOND, TICK)
        for _ in range(5):
            watched.clock.pass_(200)
            record.beat()
        in_between = watched.endings()
        watched.clock.pass_(301)
        silent = watched.endings()

    assert (in_between, silent) == ({}, {"long": "stuck"})
