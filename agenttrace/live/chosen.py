"""Which steps there is room for: the most urgent, and what they are part of.  Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agenttrace.live.processes import Process
    from agenttrace.live.steps import Rank, Step

_HEAD_AND_REST: Final = 2
"""Lines that a process takes beside its steps."""


class Row(NamedTuple):
    """A line of the table.

    Args:
        process: Whose line it is; None at the end: what else there is.
        step: The step; None in the line of the process itself, or of what is left out.
        guides: For each step that it is part of, and itself, whether another one of
            the same parent follows in the picture.
        skipped: How many steps between it and the one that it stands beneath are left
            out.
        steps: How many steps are left out here.
        processes: How many processes are.
    """

    process: Process | None
    step: Step | None = None
    guides: tuple[bool, ...] = ()
    skipped: int = 0
    steps: int = 0
    processes: int = 0


def choose(processes: Sequence[Process], lines: int) -> list[Row]:
    """Return at most *lines* rows, at least one if there is anything to say.

    The most urgent steps of all are chosen first, each with what it is part of, as far
    as there is room for that.  Rows stand in the order of *processes* and their trees.
    """
    if not processes:
        return []
    count = sum(1 + len(process.forest.steps) for process in processes)
    if count <= lines:
        return [
            row
            for process in processes
            for row in _rows_of(process, set(range(len(process.forest.steps))))
        ]
    chosen = _chosen(processes, lines - 1)
    rows = [
        row
        for index, process in enumerate(processes)
        if index in chosen
        for row in _rows_of(process, chosen[index])
    ]
    left_out = [each for index, each in enumerate(processes) if index not in chosen]
    if left_out:
        steps = sum(len(each.forest.steps) for each in left_out)
        rows.append(Row(None, steps=steps, processes=len(left_out)))
    return rows


def _chosen(processes: Sequence[Process], room: int) -> dict[int, set[int]]:
    """Return by the index of each process that is shown the steps that are."""
    chosen: dict[int, set[int]] = {}
    for index, step in _most_urgent(processes, room):
        kept = chosen.get(index)
        left = room if kept is not None else room - _HEAD_AND_REST
        if left <= 0 or (kept is not None and step.index in kept):
            continue
        if kept is None:
            kept = chosen[index] = set()
        path = [
            each.index
            for each in processes[index].forest.path(step)
            if each.index not in kept
        ]
        # Itself comes first and then its run, then what is near to it.
        path = [path[-1], *path[:-1][:1], *path[-2:0:-1]][:left]
        kept.update(path)
        room = left - len(path)
    for index, process in enumerate(processes):
        if room > 0 and index not in chosen and not process.forest.steps:
            chosen[index] = set()
            room -= 1
    return chosen


def _most_urgent(
    processes: Sequence[Process], count: int
) -> Iterator[tuple[int, Step]]:
    """Yield at most *count* steps with the index of their process."""
    # In one that is frozen nobody watches over any step.
    every = (
        ((0, step.rank[1]) if process.is_frozen else step.rank, index, step)
        for index, process in enumerate(processes)
        for step in process.forest.steps
    )
    if count > 0:
        found = heapq.nsmallest(count, every, key=_by_rank)
        yield from ((index, step) for _, index, step in found)


def _by_rank(at: tuple[Rank, int, Step]) -> tuple[Rank, int, bool, int]:
    rank, index, step = at
    # What waits is shown with what it waits for: few whole runs say more than the
    # beginnings of many.
    return rank, index, step.is_waiting, step.index


def _rows_of(process: Process, chosen: set[int]) -> Iterator[Row]:
    """Yield the row of *process*, those of the steps that are *chosen*, and a rest."""
    steps = process.forest.steps
    yield Row(process)
    beneath: dict[int, list[tuple[Step, int]]] = {}
    # A step stands behind the one that it is part of, and beside the most urgent
    # first: where that is not so, because what is between them is left out, the order
    # is that of the tree all the same.
    for index in sorted(chosen):
        above, skipped = steps[index].above, 0
        while above >= 0 and above not in chosen:
            above, skipped = steps[above].above, skipped + 1
        beneath.setdefault(above, []).append((steps[index], skipped))
    rest = len(steps) - len(chosen)
    for siblings in beneath.values():
        siblings.sort(key=lambda at: (at[0].rank_below, at[0].slot.started_at))
    waiting = _beneath(beneath, -1, ())
    while waiting:
        step, skipped, guides = waiting.pop()
        if guides == (False,) and rest:
            guides = (True,)  # what is left out follows
        yield Row(process, step, guides, skipped)
        waiting += _beneath(beneath, step.index, guides)
    if rest:
        yield Row(process, steps=rest)


def _beneath(
    beneath: dict[int, list[tuple[Step, int]]], index: int, guides: tuple[bool, ...]
) -> list[tuple[Step, int, tuple[bool, ...]]]:
    """Return the rows beneath the step *index*, the last one first."""
    siblings = beneath.get(index, [])
    last = len(siblings) - 1
    return [
        (step, skipped, (*guides, at < last))
        for at, (step, skipped) in reversed(list(enumerate(siblings)))
    ]
