"""What a process answers that is asked where its open spans are.

The same as a hang report says, of spans that no rule was broken for: where code stands
and what it waits for, never what variables hold, and no text of a heartbeat.  It is
made on the ticker's thread, of the process as it is at that moment.

It is bounded in time and in size.  Where several spans are in the same task, as an
agent and the tool that it waits for, that is looked at once.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from agenttrace import clock, safety
from agenttrace.registry import Teller
from agenttrace.watchdog.finding import WEAK
from agenttrace.watchdog.frames import read_sources
from agenttrace.watchdog.investigation import Investigation
from agenttrace.watchdog.owners import Owners
from agenttrace.watchdog.questions import VERSION
from agenttrace.watchdog.report import Whereabouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.watchdog.finding import Finding
    from agenttrace.watchdog.tasks import Task

    Reference = weakref.ReferenceType[Task]

MOST: Final = 100
"""Spans that one answer tells of."""
_SECOND: Final = 1_000_000_000


def answer_to(
    asked: Mapping[str, Any], spans: OpenSpans, deadline: float
) -> dict[str, object] | None:
    """Return what is said to a question.

    Args:
        asked: The question.  Its `spans` are ids in hexadecimal, or null for all.
        spans: The open spans, and those that were judged and are still their owner's.
        deadline: Until when there is time to look (`time.monotonic`); the rest is told
            without a stack.

    Returns:
        None where it is no question.
    """
    began = time.monotonic()
    wanted: object = asked.get("spans")
    if not isinstance(wanted, list | None):
        return None
    ids: set[object] | None = None
    if wanted is not None:
        given = cast("list[object]", wanted)
        ids = {each for each in given if isinstance(each, str)}
    every = spans.snapshot()
    chosen: Iterable[OpenSpan] = (*every, *spans.judged())
    if ids is not None:
        chosen = [span for span in chosen if span.span_id.hex() in ids]
    parents = {span.parent for span in every}
    in_order = sorted(chosen, key=lambda span: _urgency(span, span in parents))
    look = _Look(deadline)
    told = [look.at(span) for span in in_order[:MOST]]
    # What has ended meanwhile, by its owner, is open no more and was never judged.
    found = [each for each in told if each.span.is_open or _is_judged(each.span)]
    # Source files may take their time: nothing of the application's is held meanwhile.
    del look
    # All at once: it takes a thread.
    read_sources([frame for each in found for frame in each.place.frames])
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "time": clock.iso(time.time_ns()),
        "open": len(every),
        "left_out": max(0, len(in_order) - MOST),
        "steps": [_told(each) for each in found],
        "took": round(time.monotonic() - began, 6),
    }


def _urgency(span: OpenSpan, is_parent: bool) -> tuple[bool, int]:  # noqa: FBT001 - a key
    """Return what sorts the deepest first, and of these who was silent for longest."""
    # What is open beneath a span has started after it.
    return is_parent, -span.started_at if is_parent else span.last_beat


def _is_judged(span: OpenSpan) -> bool:
    return span.teller is Teller.JUDGE


class _Found:
    """What was found of one span."""

    __slots__ = ("place", "same_as", "span")

    def __init__(self, span: OpenSpan, place: Whereabouts) -> None:
        self.span = span
        self.place = place
        self.same_as: str | None = None
        """The span of which this was found before."""


class _Look:
    """Looks at one span after the other, while there is time.

    Args:
        deadline: Until when (`time.monotonic`).
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._known: dict[int, tuple[str, Finding, Reference | None]] = {}
        """What was found, and for which span, by the task or thread it was found in.

        Tasks are not held: their ids may be those of others by now.
        """

    def at(self, span: OpenSpan) -> _Found:
        """Return where *span* is."""
        found = _Found(span, Whereabouts(span, time.time_ns()))
        if time.monotonic() < self._deadline:
            found.same_as = safety.guarded(
                "answer", self._investigate, span, found.place
            )
        else:
            found.place.why = "there was no time left to look at it"
        return found

    def _investigate(self, span: OpenSpan, found: Whereabouts) -> str | None:
        """Have *found* say where *span* is; return the span that was there before."""
        investigation = Investigation(self._deadline)
        owners = Owners(investigation.stacks, investigation.tasks)
        owner = owners.owner_of(span)
        found.is_left = not owners.is_in_step(span, owner)
        # By identity: a task may be of any make.
        key = owner.thread if owner.task is None else id(owner.task)
        known = None if key is None else self._known.get(key)
        if known is not None and known[2] is not None and known[2]() is not owner.task:
            known = None
        if known is not None and not (known[1].cause in WEAK and owner.heirs):
            found.found(known[1], certain=owner.certain)
            return known[0]
        finding = investigation.explain(owner)
        found.found(finding, certain=owner.certain)
        if key is not None:
            task = None if owner.task is None else weakref.ref(owner.task)
            self._known[key] = found.span_id, finding, task
        return None


def _told(found: _Found) -> dict[str, object]:
    """Return what is said of one span."""
    span, place, same_as = found.span, found.place, found.same_as
    where = place.where
    age = max(0, place.made_at - span.started_at) / _SECOND
    idle = max(0, place.made_at - max(span.last_beat, span.started_at)) / _SECOND
    is_judged = _is_judged(span)
    head = f"{place.path}: open for {age:.1f} s, no progress for {idle:.1f} s"
    if is_judged:
        head += ", judged"
    lines = [head, *place.lines()]
    if same_as is not None:
        lines = [
            head,
            f"  stack      that of span {same_as}",
            f"  span       {place.span_id} of trace {place.trace_id}",
        ]
    return {
        "trace_id": place.trace_id,
        "span_id": place.span_id,
        "parent_id": span.parent_id.hex() or None,
        "name": place.name,
        "operation": place.operation,
        "path": place.path,
        "start": clock.iso(span.started_at),
        "last_heartbeat": clock.iso(place.last_heartbeat),
        "progress": place.progress,
        "open": round(age, 3),
        "idle": round(idle, 3),
        "held": span.holds > 0,
        "judged": is_judged,
        "cause": place.cause.value,
        "explanation": place.why,
        "certain": place.certain,
        "function": None if where is None else where.function,
        "file": None if where is None else where.file,
        "line": None if where is None else where.line,
        "waits_for": [str(link) for link in place.links],
        "same_as": same_as,
        "stacktrace": None if same_as else place.stacktrace() or None,
        "text": "\n".join(lines),
    }
