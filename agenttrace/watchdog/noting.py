"""What the loop monitor notes for `agenttrace doctor`: loops blocked, or nested.

A loop is nested where it runs within a callback of a loop, as `nest_asyncio` lets it.
Whoever begins one waits on the stack: for its own loop, and for every other one that is
begun on top of it meanwhile.  So the span that does it says where, too.  What is seen
is what lasts for a look of the monitor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace import noticed, safety, semconv, tracing
from agenttrace.watchdog.blocks import culprit
from agenttrace.watchdog.watched import current_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrace.noticed import Later
    from agenttrace.watchdog.turns import Nest
    from agenttrace.watchdog.watched import Watched

_MOST: Final = 1_000
"""How many are known, so that each is told once."""


def note_block(watched: Watched, seconds: float, later: Later | None) -> None:
    """Take note of the line that has blocked a loop for so many seconds."""
    line = culprit(watched.stack or ())
    noticed.note(
        noticed.Kind.LOOP_BLOCKED,
        "" if line is None else noticed.place_of(*line),
        span=watched.name,
        detail=f"for {seconds:.1f} s",
        later=later,
    )


def tell_nests(
    nests: Iterable[Nest], told: set[tuple[bytes, str]], later: Later | None
) -> None:
    """Have the spans say it in which loops were begun, and take note of the places.

    Args:
        nests: What was seen.
        told: What was told before, by span and place.
        later: Makes the calls that log it; see `noticed.note`.
    """
    for nest in nests:
        line = culprit(nest.stack)
        span = current_in(nest.context)
        record = None if span is None else tracing.record_of(span)
        if line is None or record is None:
            continue
        place = noticed.place_of(*line)
        if (record.span_id, place) in told:
            continue
        if len(told) >= _MOST:
            told.clear()
        told.add((record.span_id, place))
        live = record()
        if live is not None:
            safety.guarded("remark", live.remark, semconv.LOOP_NESTED, place)
        noticed.note(noticed.Kind.LOOP_NESTED, place, span=record.name, later=later)
