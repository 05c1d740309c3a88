"""Makes a long operation visible in a backend while it is still going on.

A backend knows a span when it has ended.  So a span that has been open for a while gets
one *marker*: a child with an id of its own, from the start of the open span until now,
whose name says which span is open and whose path says where it stands.  Nothing is ever
sent under the id of the open span itself: that has one final form.

One marker for each span, and not one now and then: what is still going on can be asked
of the process itself (`agenttrace.live`), and each marker stays in the trace for good.

This module says when, and what a marker looks like.  Whose spans are seen is the
watchdog's business, and how a marker is sent, that of whoever gives `emit`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agenttrace import safety, semconv
from agenttrace.model import SpanData
from agenttrace.watchdog.agenda import Agenda
from agenttrace.watchdog.rules import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.registry import OpenSpan

_MOST: Final = 100
"""Markers that are made in one tick, five of which are made in a second.

Where thousands of spans are open, they come one after the other: making all of them at
once would keep the interpreter from the application.
"""
_SHORTEST: Final = 1_000
"""Nanoseconds.  A span without any duration is taken for an error by Jaeger."""
_LEVELS: Final = 32
"""Steps that a path has at most, so that a tree of any depth costs the same."""


class Markers:
    """Which spans get a marker, and when.

    Args:
        after: Seconds that a span has to be open.
        emit: Takes a marker, complete but for whose it is.  Must not wait.
    """

    def __init__(self, after: float, emit: Callable[[SpanData], object]) -> None:
        self._after = int(after * SECOND)
        self._emit = emit
        self._agenda = Agenda()

    def put(self, span: OpenSpan, now: int) -> None:
        """Have *span*, which has just started, get a marker when it is time.

        Args:
            span: Its record.
            now: The watchdog's time, in nanoseconds.
        """
        if span.sampled:
            self._agenda.put(span, now + self._after)

    def tick(self, now: int, wall: int) -> None:
        """Tell of what is still open and due.

        Args:
            now: The watchdog's time, in nanoseconds.
            wall: The time of day, nanoseconds since the epoch.
        """
        for span in self._agenda.due(now, _MOST):
            # Who watched it before has told of it, if that was another.
            if span.is_open and not getattr(span, "marked", False):
                span.marked = True
                safety.guarded("markers", self._emit, marker_of(span, wall))

    def tidy(self, open_count: int) -> None:
        """Let go of ended spans where they are many more than those that are open."""
        self._agenda.tidy(open_count)

    def rest(self) -> None:
        """Let go of all spans: each has ended."""
        self._agenda.tidy(0, room=0)


def marker_of(span: OpenSpan, now: int) -> SpanData:
    """Return the marker of *span*, complete but for whose it is.

    Args:
        span: The record of an open span.
        now: Where it ends, nanoseconds since the epoch.
    """
    return SpanData(
        trace_id=span.trace_id,
        span_id=os.urandom(8),
        parent_id=span.span_id,
        name=f"{semconv.MARKER_NAME}: {span.name}",
        start_time=span.started_at,
        # The clock may have been set back since it started.
        end_time=max(now, span.started_at + _SHORTEST),
        attributes={semconv.MARKER: semconv.MARKER_OPEN, semconv.PATH: _path_of(span)},
    )


def _path_of(span: OpenSpan) -> str:
    """Return the names of the nearest open ancestors of *span*, and its own."""
    names: list[str] = []
    at: OpenSpan | None = span
    while at is not None and len(names) < _LEVELS:
        names.append(at.name)
        at = at.parent
    if at is not None:
        names.append("...")
    return " / ".join(reversed(names))
