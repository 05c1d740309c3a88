"""Spans as a test looks at them: values that no longer change.

A `CapturedSpan` is made from the final form that was on its way to the destination,
after whatever the application's processors changed.  This module owns those values;
how they are caught is `capture`'s business, how they are drawn and compared `trees`'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agenttrace import semconv
from agenttrace.model import EndedBy, EventData, Outcome, SpanData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import SpanKind, StatusCode

E = TypeVar("E", bound=StrEnum)

Key = tuple[str, str]
"""Trace id and span id, in hexadecimal."""


class Tokens(NamedTuple):
    """What a span says of its own usage; None where it says nothing."""

    input: int | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True)
class CapturedLink:
    """A reference to another span, which need not have been captured.

    Attributes:
        trace_id, span_id: In hexadecimal.
        attributes: Those of the link.
    """

    trace_id: str
    span_id: str
    attributes: Mapping[str, object]


@dataclass(slots=True, eq=False, repr=False)
class CapturedSpan:
    """One ended span.

    Attributes:
        name: Its name at the end.
        outcome: How it ended; None where another library's span does not say.
        ended_by: What ended it; None where another library's span does not say.
        operation: `gen_ai.operation.name`, or None for a plain step.
        kind: OpenTelemetry's span kind.
        attributes: All of them.
        items: How many items it yielded; None where it is no stream, or yielded none.
        tokens: Its own usage, input and output.
        error_type: `error.type`, or None.
        status, status_message: OpenTelemetry's.
        events, links: In order.
        started, ended: Nanoseconds since the epoch.
        trace_id, span_id: In hexadecimal.
        parent_id: In hexadecimal; None for a root.
        scope: The instrumentation scope's name: which library made it.
        parent: The parent, if it has been captured as well.
        children: The captured ones, in the order of their start.
        linked: The captured spans that its links lead to, in the order of its links.
    """

    name: str
    outcome: Outcome | None
    ended_by: EndedBy | None
    operation: str | None
    kind: SpanKind
    attributes: Mapping[str, Any]
    items: int | None
    tokens: Tokens
    error_type: str | None
    status: StatusCode
    status_message: str
    events: tuple[EventData, ...]
    links: tuple[CapturedLink, ...]
    started: int
    ended: int
    trace_id: str
    span_id: str
    parent_id: str | None
    scope: str
    parent: CapturedSpan | None = None
    children: list[CapturedSpan] = field(default_factory=list["CapturedSpan"])
    linked: list[CapturedSpan] = field(default_factory=list["CapturedSpan"])

    def __repr__(self) -> str:
        return f"<CapturedSpan {self.name!r} {self.outcome or 'ended'}>"

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return (self.ended - self.started) / 1e9

    @property
    def key(self) -> Key:
        """What tells it from every other span."""
        return (self.trace_id, self.span_id)

    @property
    def parent_key(self) -> Key | None:
        """The parent's key; None for a root."""
        return None if self.parent_id is None else (self.trace_id, self.parent_id)


def captured(form: SpanData) -> CapturedSpan:
    """Return *form* as a test looks at it, without relatives."""
    values = dict(form.attributes)
    operation = values.get(semconv.GEN_AI_OPERATION_NAME, values.get(semconv.OPERATION))
    error_type = values.get(semconv.ERROR_TYPE)
    return CapturedSpan(
        name=form.name,
        outcome=_member(Outcome, values.get(semconv.OUTCOME)),
        ended_by=_member(EndedBy, values.get(semconv.ENDED_BY)),
        operation=None if operation is None else str(operation),
        kind=form.kind,
        attributes=values,
        items=_number(values.get(semconv.ITEMS)),
        tokens=Tokens(
            _number(values.get(semconv.GEN_AI_USAGE_INPUT_TOKENS)),
            _number(values.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
        ),
        error_type=None if error_type is None else str(error_type),
        status=form.status,
        status_message=form.status_message,
        events=tuple(form.events),
        links=tuple(
            CapturedLink(link.trace_id.hex(), link.span_id.hex(), link.attributes)
            for link in form.links
        ),
        started=form.start_time,
        ended=form.end_time,
        trace_id=form.trace_id.hex(),
        span_id=form.span_id.hex(),
        parent_id=form.parent_id.hex() or None,
        scope=form.scope.name,
    )


def _member(words: type[E], said: object) -> E | None:
    try:
        return words(str(said))
    except ValueError:  # nothing was said, or by another tool
        return None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
