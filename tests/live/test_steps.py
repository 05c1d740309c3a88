"""Trees of open steps: who waits, who is close to its limit, and what comes first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.journal import State
from agenttrace.live import choose, forest
from tests.live.given import NOW, process, slot

if TYPE_CHECKING:
    from agenttrace.journal import Slot
    from agenttrace.live import Row, Step

TAKEN = [State.OPEN, State.OPEN, State.OPEN, State.ENDED, State.JUDGED]
SECONDS = st.floats(-5, 1000)
LIMITS = st.none() | st.sampled_from([-1.0, 0.0, 0.5, 30.0, 600.0, math.inf])


@st.composite
def slots(draw: st.DrawFn, most: int = 12) -> list[tuple[Slot, int]]:
    """Draw the slots of a process: damaged ones may be part of each other."""
    count = draw(st.integers(0, most))
    return [
        slot(
            number,
            draw(st.none() | st.integers(0, count)),
            state=draw(st.sampled_from(TAKEN)),
            age=draw(SECONDS),
            idle=draw(SECONDS),
            heartbeat_timeout=draw(LIMITS),
            max_duration=draw(LIMITS),
            trace=bytes([draw(st.sampled_from([7, 7, 7, 8]))]) * 16,
        )
        for number in range(count)
    ]


def beneath(tops: list[Step]) -> list[Step]:
    """Return *tops* and all that is part of them."""
    found: list[Step] = []
    for top in tops:
        found += [top, *beneath(top.children)]
    return found


def only(*found: tuple[Slot, int]) -> Step:
    """Return the one top of the forest of *found*."""
    (top,) = forest(found, NOW).tops
    return top


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.01, 2.01), (2.07, 2.07), (1e-6, 1e-6), (math.inf, None), (1e300, None)],
)
def test_a_limit_is_shown_as_it_was_set(seconds: float, shown: float | None) -> None:
    """The watchdog counts whole nanoseconds; nobody has said 2.009999999."""
    step = only(slot(1, heartbeat_timeout=seconds, max_duration=seconds))

    assert (step.limit, step.max_duration) == (shown, shown)


@given(slots())
def test_each_step_that_is_not_over_is_in_the_forest_once(
    found: list[tuple[Slot, int]],
) -> None:
    """Whatever a damaged journal says, no step is missing and none is there twice."""
    made = forest(found, NOW)

    there = [step.slot.number for step in beneath(made.tops)]
    assert sorted(there) == [
        each.number for each, _ in found if each.state is not State.ENDED
    ]
    assert sorted(step.slot.number for step in made.steps) == sorted(there)


@given(slots())
def test_a_step_stands_behind_what_it_is_part_of(
    found: list[tuple[Slot, int]],
) -> None:
    """The path of a step is found by these places."""
    made = forest(found, NOW)

    for index, step in enumerate(made.steps):
        assert step.index == index
        assert step.above < index
        assert all(child.above == index for child in step.children)
        assert made.path(step)[-1] is step


@given(slots())
def test_what_is_most_urgent_stands_first_on_every_level(
    found: list[tuple[Slot, int]],
) -> None:
    """Whoever looks at the top of the screen sees what is wrong."""
    made = forest(found, NOW)

    for siblings in [made.tops, *(step.children for step in made.steps)]:
        ranks = [step.rank_below for step in siblings]
        assert ranks == sorted(ranks)
        for step in siblings:
            assert step.rank_below == min(each.rank for each in beneath([step]))


@given(st.lists(slots(), max_size=4), st.lists(st.booleans()), st.integers(0, 40))
def test_no_more_rows_are_chosen_than_there_is_room_for(
    found: list[list[tuple[Slot, int]]], frozen: list[bool], lines: int
) -> None:
    """And every step is shown, or counted among those that are not."""
    processes = [
        process(*each, pid=pid, is_frozen=pid in frozen)
        for pid, each in enumerate(found)
    ]

    rows = choose(processes, lines)

    assert len(rows) <= max(1, lines)
    shown = [(row.process, row.step.slot.number) for row in rows if row.step]
    assert len({(each.pid, number) for each, number in shown if each}) == len(shown)
    steps = sum(len(each.forest.steps) for each in processes)
    assert len(shown) + sum(row.steps for row in rows) == steps
    heads = [row for row in rows if row.process and not row.step and not row.steps]
    assert len(heads) + sum(row.processes for row in rows) == len(processes)


@given(st.lists(slots(), min_size=1, max_size=4), st.integers(4, 40))
def test_the_most_urgent_step_is_shown_in_any_terminal(
    found: list[list[tuple[Slot, int]]], lines: int
) -> None:
    """However small, and however deep the step is."""
    processes = [process(*each, pid=pid) for pid, each in enumerate(found)]
    ranks = [step.rank for each in processes for step in each.forest.steps]

    shown = [row.step.rank for row in choose(processes, lines) if row.step]

    assert min(shown, default=None) == min(ranks, default=None)


def drawn(rows: list[Row]) -> list[str]:
    """Return what rows say, without the process."""
    return [
        f"{'.' * row.skipped}{row.step.slot.name}" if row.step else f"{row.steps} more"
        for row in rows
        if row.step or row.steps
    ]


def test_of_a_deep_one_its_run_and_what_is_near_to_it_are_shown() -> None:
    """Without the run nobody knows whose it is; what is in between says the least."""
    deep = process(
        slot(0, heartbeat_timeout=10),
        *(slot(at, at - 1, idle=5, heartbeat_timeout=10) for at in range(1, 9)),
    )

    rows = choose([deep], 7)

    assert drawn(rows) == ["step 0", ".....step 6", "step 7", "step 8", "5 more"]


def test_a_step_with_an_open_child_waits_and_its_silence_does_not_count() -> None:
    """So the deepest one is blamed, as the watchdog does."""
    top = only(
        slot(0, age=99, idle=99, heartbeat_timeout=10),
        slot(1, 0, age=5, idle=5, heartbeat_timeout=10),
    )

    assert (top.is_waiting, top.pressure) == (True, 0)
    assert top.children[0].pressure == 0.5
    assert top.rank_below == top.children[0].rank == (1, -0.5)


def test_a_child_that_was_judged_shields_nobody() -> None:
    """Its parent goes on waiting for what will never come."""
    top = only(
        slot(0, age=99, idle=9, heartbeat_timeout=10),
        slot(1, 0, state=State.JUDGED),
    )

    assert (top.is_waiting, top.pressure) == (False, 0.9)
    assert (top.is_alarming, top.children[0].is_alarming) == (False, True)
    assert top.children[0].verdict == "stuck"


def test_total_time_counts_for_one_that_waits() -> None:
    """A limit that is set for all of it is not moved by what is beneath."""
    top = only(slot(0, age=90, max_duration=60), slot(1, 0))

    assert top.is_waiting
    assert top.pressure == 1.5
    assert top.is_alarming


@pytest.mark.parametrize(
    ("operation", "own", "limit"),
    [
        (None, None, 300),
        ("chat", None, 300),
        ("embeddings", None, 60),
        ("retrieval", None, 60),
        ("retrieval", 5.0, 5),
        ("chat", math.inf, None),
    ],
)
def test_its_own_limit_counts_else_the_default_of_its_operation(
    operation: str | None, own: float | None, limit: float | None
) -> None:
    """The bar ends where the watchdog judges."""
    top = only(slot(0, operation=operation, heartbeat_timeout=own))

    assert top.limit == limit


def test_a_clock_that_was_set_back_makes_no_negative_times() -> None:
    """A step that starts in the future has just started."""
    top = only(slot(0, age=-60, idle=-60))

    assert (top.age, top.idle, top.pressure) == (0, 0, 0)


def test_a_parent_of_another_trace_is_none() -> None:
    """Eight random bytes are not unique in the world, and journals get damaged."""
    made = forest([slot(0), slot(1, 0, trace=bytes([8]) * 16)], NOW)

    assert len(made.tops) == 2


def test_only_runs_that_are_stuck_are_kept_and_those_whole() -> None:
    """What a step is part of, and what is beside it, tells why it is stuck."""
    made = forest([slot(0), slot(1), slot(2, 1), slot(3, 1, state=State.JUDGED)], NOW)

    kept = made.stuck()

    assert [step.slot.number for step in kept.steps] == [1, 3, 2]
    assert [step.index for step in kept.steps] == [0, 1, 2]
    assert (kept.judged, kept.past_limit) == (1, 0)


def test_of_many_that_are_well_some_are_shown_whole() -> None:
    """What a run waits for says more than that another one waits, too."""
    runs = (slot(at, at - 1 if at % 3 else None) for at in range(30))

    rows = choose([process(*runs)], 6)

    assert drawn(rows) == ["step 0", "step 1", "step 2", "27 more"]


def test_the_steps_of_a_frozen_process_come_first() -> None:
    """Nobody watches over them."""
    busy = process(slot(0, idle=9, heartbeat_timeout=10), slot(1), slot(2), pid=1)
    frozen = process(slot(0), slot(1), pid=2, is_frozen=True)

    rows = choose([frozen, busy], 5)

    assert [row.process.pid for row in rows if row.process] == [2, 2, 2]
    assert (rows[-1].processes, rows[-1].steps) == (1, 3)
