"""Trees of a run that goes on: of what has ended, and of what is open in it.

The command line draws them like any run.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace import semconv
from agenttrace.delivery.store import build_forest
from agenttrace.journal import as_span
from agenttrace.model import NO_RESOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.delivery.store import Node
    from agenttrace.live.steps import Step
    from agenttrace.model import SpanData

_PARTS: Final = 10


def trees_of(ended: Iterable[SpanData], steps: Iterable[Step], now: int) -> list[Node]:
    """Return the trees of a run, by start.

    Args:
        ended: Its spans that have ended.
        steps: Its steps that are open, or were judged and are still their owner's.
        now: The instant at which they were, nanoseconds since the epoch.
    """
    spans = list(ended)
    known = {span.span_id for span in spans}
    still = {step.slot.span_id: step for step in steps}
    going = [_span_of(step, now) for key, step in still.items() if key not in known]
    found = build_forest([*spans, *going])
    for top in found:
        for node in top.walk():
            step = still.get(node.span.span_id)
            if step is not None:
                node.going_on = _told(step)
    return found


def _told(step: Step) -> str:
    """Say how a step is that is open."""
    if step.is_judged:
        return "has not come back"
    if step.is_waiting:
        return "open"
    # Tenths, that it does not flicker.
    idle = f"open, idle {int(step.idle * _PARTS) / _PARTS:g} s"
    return idle if step.limit is None else f"{idle} of {step.limit:g} s"


def _span_of(step: Step, now: int) -> SpanData:
    verdict = step.verdict
    attributes = {} if verdict is None else {semconv.OUTCOME: verdict.value}
    return as_span(step.slot, resource=NO_RESOURCE, end_time=now, attributes=attributes)
