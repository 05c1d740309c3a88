"""Open steps as trees, and how close each of them is to its limit.  Pure.

A step that has an open child is waiting for it, and is not judged by its own silence;
the deepest one is.  Neither is one in a declared pause, but a journal does not say that
it is in one: such a step is shown as past its limit, and nobody will judge it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from agenttrace.journal import State
from agenttrace.live.limits import USUAL, duration_of, silence_of
from agenttrace.semconv import (
    GEN_AI_AGENT_NAME,
    GEN_AI_CONVERSATION_ID,
    GEN_AI_PROVIDER_NAME,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_TOOL_NAME,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agenttrace.journal import Slot
    from agenttrace.model import Outcome
    from agenttrace.watchdog.limits import Limits

SECOND: Final = 1_000_000_000
_TENTHS: Final = 10
_MOST: Final = 1000.0
"""Times its limit, from where on it makes no difference."""

Rank = tuple[int, float]
"""Sorts what is most urgent first."""
LEAST: Final[Rank] = (1, 0.0)


class Step:
    """A span that is open, or was judged and is still its owner's.

    Args:
        slot: What its journal says.
        last_beat: Its last sign of progress, nanoseconds since the epoch.
        now: The instant for which the rest is told, likewise.

    Attributes:
        index: Its place in the `Forest`.
        above: The place of the step that it is part of, -1 at a top.
        children: The steps that are part of it, the most urgent first.
        age: Seconds that it has been open.
        idle: Seconds without a sign of progress.
        limit: Longest healthy silence in seconds, None = none.
        max_duration: Longest total time in seconds, None = none.
        is_judged: Whether its end was told, though its owner has not come back.
        is_waiting: Whether a child is open that was not judged.
        rank: How urgent it is.
        rank_below: How urgent is the most urgent of it and all steps beneath it.
    """

    __slots__ = (
        "above",
        "age",
        "children",
        "idle",
        "index",
        "is_judged",
        "is_waiting",
        "last_beat",
        "limit",
        "max_duration",
        "rank",
        "rank_below",
        "slot",
    )

    def __init__(
        self, slot: Slot, last_beat: int, now: int, limits: Limits = USUAL
    ) -> None:
        self.slot = slot
        self.last_beat = last_beat
        self.index = self.above = -1
        self.children: list[Step] = []
        # The clock may have been set back since.
        age, idle = now - slot.started_at, now - last_beat
        self.age = age / SECOND if age > 0 else 0.0
        # To start is progress.
        self.idle = min(age, idle) / SECOND if idle > 0 < age else 0.0
        self.is_judged = slot.state is State.JUDGED
        self.limit = silence_of(slot, limits)
        self.max_duration = duration_of(slot, limits)
        self.is_waiting = False
        self.rank = self.rank_below = LEAST

    def __repr__(self) -> str:
        return f"<Step {self.slot.name}>"

    @property
    def verdict(self) -> Outcome | None:
        """What was told of its end, None where nothing was."""
        return self.slot.outcome

    @property
    def agent(self) -> str | None:
        """The agent's name."""
        return self.slot.attributes.get(GEN_AI_AGENT_NAME)

    @property
    def model(self) -> str | None:
        """The model that was asked for."""
        return self.slot.attributes.get(GEN_AI_REQUEST_MODEL)

    @property
    def tool(self) -> str | None:
        """The tool's name."""
        return self.slot.attributes.get(GEN_AI_TOOL_NAME)

    @property
    def provider(self) -> str | None:
        """Who has the model."""
        return self.slot.attributes.get(GEN_AI_PROVIDER_NAME)

    @property
    def conversation(self) -> str | None:
        """The conversation's id."""
        return self.slot.attributes.get(GEN_AI_CONVERSATION_ID)

    @property
    def pressure(self) -> float:
        """How much of its limit is used up: 1 where it has come to it.

        Of silence, unless it waits for a child, or of total time, whichever is more.
        """
        silent = 0.0 if self.is_waiting else _part(self.idle, self.limit)
        if self.max_duration is None:
            return silent
        return max(silent, _part(self.age, self.max_duration))

    @property
    def is_alarming(self) -> bool:
        """Whether it was judged, or has come to its limit."""
        return not self.rank[0]


class Forest:
    """The steps of a process.

    Attributes:
        tops: Those that are part of no other one, the most urgent first: its runs, and
            what it does for runs of other processes.
        steps: All of them, each behind the one that it is part of.
        judged: How many of them were judged.
        past_limit: How many have come to their limit, and were not.
    """

    __slots__ = ("judged", "past_limit", "steps", "tops")

    def __init__(self, tops: list[Step], steps: list[Step]) -> None:
        self.tops = tops
        self.steps = steps
        alarming = [step for step in steps if not step.rank[0]]
        self.judged = sum(step.is_judged for step in alarming)
        self.past_limit = len(alarming) - self.judged

    @property
    def rank(self) -> Rank:
        """How urgent the most urgent step is."""
        return self.tops[0].rank_below if self.tops else LEAST

    def stuck(self) -> Forest:
        """Return the runs in which a step is alarming, all of their steps included.

        In place of this forest: their steps have other numbers then.
        """
        tops = [top for top in self.tops if not top.rank_below[0]]
        return Forest(tops, list(_numbered(tops, 0)))

    def path(self, step: Step) -> list[Step]:
        """Return what *step* is part of, from the top down, and itself."""
        found = [step]
        while step.above >= 0:
            step = self.steps[step.above]
            found.append(step)
        return found[::-1]


def forest(
    found: Iterable[tuple[Slot, int]], now: int, limits: Limits = USUAL
) -> Forest:
    """Return what stands in the slots of a process.

    Whatever a damaged journal says, each step is in it once.

    Args:
        found: Its slots, each with the last heartbeat, nanoseconds since the epoch.
        now: The instant at which they were read, likewise.
        limits: Those that the process has in its settings.
    """
    steps = [
        Step(slot, beat, now, limits)
        for slot, beat in found
        if slot.state is not State.ENDED
    ]
    known = {step.slot.span_id: step for step in steps}
    tops: list[Step] = []
    for step in steps:
        parent = known.get(step.slot.parent_id)
        if parent is None or parent.slot.trace_id != step.slot.trace_id:
            tops.append(step)
        else:
            parent.children.append(step)
    in_order = list(_numbered(tops, 0))
    if len(in_order) < len(steps):
        in_order += _out_of_circles(steps, tops, len(in_order))
    for step in reversed(in_order):
        _settle(step)
        if step.above >= 0 and not step.is_judged:
            in_order[step.above].is_waiting = True
    tops.sort(key=by_urgency)
    return Forest(tops, in_order)


def by_urgency(step: Step) -> tuple[Rank, int, bytes]:
    """Return what sorts *step* among those that stand beside it."""
    return step.rank_below, step.slot.started_at, step.slot.span_id


def _numbered(tops: Iterable[Step], first: int) -> Iterator[Step]:
    """Yield *tops* and all beneath, each behind its parent, and number them."""
    waiting = deque(tops)
    while waiting:
        step = waiting.popleft()
        step.index = first
        first += 1
        for child in step.children:
            child.above = step.index
        waiting.extend(step.children)
        yield step


def _out_of_circles(steps: list[Step], tops: list[Step], first: int) -> Iterator[Step]:
    """Yield the steps that are beneath each other, and so beneath no top.

    Only a damaged journal has them.  The parent of each is forgotten.
    """
    circling = [step for step in steps if step.index < 0]
    for step in circling:
        step.children = []
    tops += circling
    yield from _numbered(circling, first)


def _settle(step: Step) -> None:
    """Rank *step*, and sort what is beneath it, which has been ranked."""
    pressure = step.pressure
    is_alarming = step.is_judged or pressure >= 1
    # In tenths: healthy steps would change places with each heartbeat.
    tenths = int(min(_MOST, pressure) * _TENTHS) / _TENTHS
    rank = step.rank = (0 if is_alarming else 1, -tenths)
    children = step.children
    for child in children:
        rank = min(rank, child.rank_below)
    step.rank_below = rank
    if len(children) > 1:
        children.sort(key=by_urgency)


def _part(seconds: float, limit: float | None) -> float:
    if limit is None:
        return 0.0
    return seconds / limit if limit > 0 else math.inf
