"""What is said of a span whose limit has passed, and who is told.

The values between rules, watchdog and report: nothing here judges or sends anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import clock, safety, semconv
from agenttrace.model import EndedBy, Ending, EventData, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.registry import OpenSpan

SILENCE: Final = "silence"
"""The rule that `heartbeat_timeout` sets the limit of."""
OVERDUE: Final = "overdue"
"""The rule that `max_duration` sets the limit of."""
_EXACT: Final = 10.0
"""Seconds up to which a tenth of one is worth telling."""


class Verdict:
    """Which limit of a span has passed.

    Args:
        rule: `silence` (no progress) or `overdue` (its total time).
        idle: Seconds since its last sign of progress.
        limit: The limit that has passed, in seconds.
        at: When it was judged, nanoseconds since the epoch.
    """

    __slots__ = ("at", "idle", "limit", "rule")

    def __init__(self, rule: str, idle: float, limit: float, at: int) -> None:
        self.rule = rule
        self.idle = idle
        self.limit = limit
        self.at = at

    def __repr__(self) -> str:
        return f"<Verdict {self.reason}>"

    @property
    def reason(self) -> str:
        """What has happened, for a status message.

        >>> Verdict("silence", 61.04, 60.0, 0).reason
        'no progress for 61 s (limit 60 s)'
        >>> Verdict("overdue", 2.0, 300.0, 0).reason
        'not done after 300 s (max_duration)'
        """
        if self.rule == OVERDUE:
            return f"not done after {self.limit:g} s (max_duration)"
        idle = round(self.idle, 1 if self.idle < _EXACT else None)
        return f"no progress for {idle:g} s (limit {self.limit:g} s)"


class Report(Protocol):
    """What a hook is called with, and what is told of a hang on its span.

    Attributes:
        name, operation: The span's.
        trace_id, span_id: The span's, in hexadecimal.
        path: The names from the outermost open ancestor down to it.
        rule, idle, limit: What was said of it, as `Verdict` names it.
        is_left: Whether no step of it is known to be under way.
    """

    name: str
    operation: str | None
    trace_id: str
    span_id: str
    path: str
    rule: str
    idle: float
    limit: float
    is_left: bool

    def attributes(self) -> Mapping[str, str | bool | int | float]:
        """Return it as the attributes of an event."""
        ...


class PlainReport:
    """A report of what the watchdog itself knows: which span, and which limit.

    Args:
        span: The record of the span that was judged.
        verdict: What was said of it.

    Attributes:
        name, operation: The span's.
        trace_id, span_id: The span's, in hexadecimal.
        path: The names from the outermost open ancestor down to it.
        rule, idle, limit: What was said of it, as `Verdict` names it.
    """

    __slots__ = (
        "idle",
        "is_left",
        "limit",
        "name",
        "operation",
        "path",
        "reason",
        "rule",
        "span_id",
        "trace_id",
    )

    def __init__(self, span: OpenSpan, verdict: Verdict) -> None:
        self.name = span.name
        self.operation = span.operation
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.path = span.path()
        self.rule = verdict.rule
        self.idle = verdict.idle
        self.limit = verdict.limit
        self.reason = verdict.reason
        self.is_left = False

    def __repr__(self) -> str:
        return f"<PlainReport {self.path}: {self.reason}>"

    def attributes(self) -> Mapping[str, str | bool | int | float]:
        """Return rule, idle time and limit."""
        return {
            semconv.HANG_RULE: self.rule,
            semconv.HANG_IDLE: self.idle,
            semconv.HANG_LIMIT: self.limit,
        }


def ending_of(span: OpenSpan, verdict: Verdict, report: Report) -> Ending:
    """Return the ending that a verdict makes of an open span."""
    outcome = Outcome.TIMED_OUT if verdict.rule == OVERDUE else Outcome.STUCK
    told = safety.guarded("report.attributes", report.attributes)
    if told is None:
        told = PlainReport(span, verdict).attributes()
    # The clock may have been set back since it started.
    end_time = max(verdict.at, span.started_at)
    return Ending(
        outcome,
        EndedBy.WATCHDOG,
        message=verdict.reason,
        end_time=end_time,
        attributes={semconv.LAST_HEARTBEAT: clock.iso(span.last_beat)},
        events=(EventData(end_time, semconv.HANG, told),),
    )
