"""Splits a frame into rows: one span each, as OTLP bytes, and its columns.

Protobuf reads the request and writes each span back as one piece; resource and scope
are written once per group and put in front of it.  No attribute is encoded anew.

Markers get no row: they are for backends that know nothing of what is open.  Whoever
reads the store finds that in the journals beside it.

Importing protobuf takes longer than all the rest, so it happens on the thread that
sends, when the first frame comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace import semconv
from agenttrace.delivery.otlp.wire import delimited
from agenttrace.model import Outcome
from agenttrace.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

# Tags: field 1 of the request, field 2 of ResourceSpans and of ScopeSpans.
_RESOURCE_SPANS: Final = b"\x0a"
_SCOPE_SPANS: Final = b"\x12"
_SPAN: Final = b"\x12"

_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8
_LATEST: Final = (1 << 63) - 1
"""SQLite's largest integer; OTLP's times have a bit more."""
_ROW_OVERHEAD: Final = 512
"""Bytes beyond its OTLP that a row takes: columns, indexes, half-filled pages."""
_STATUS: Final = {1: "ok", 2: "error"}
_COLUMNS: Final = frozenset(
    {
        semconv.GEN_AI_OPERATION_NAME,
        semconv.OPERATION,
        semconv.OUTCOME,
        semconv.ENDED_BY,
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
    }
)


class UnreadableFrameError(ValueError):
    """The payload of a frame is not an `ExportTraceServiceRequest`."""


class Row(NamedTuple):
    """One row of `spans`, in the order of its columns after `id`."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    operation: str | None
    service: str | None
    started: int
    ended: int
    status: str
    outcome: str | None
    ended_by: str | None
    input_tokens: int | None
    output_tokens: int | None
    otlp: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one frame.

    Args:
        rows: One per span, in the order of the payload.
        rejected: Spans without a proper id, which no tree could place.
    """

    rows: list[Row]
    rejected: int

    @property
    def size(self) -> int:
        """Bytes that the rows will take in the file, rather too many."""
        return size_of(self.rows)


def size_of(rows: Sequence[Row]) -> int:
    """Return the bytes that *rows* will take in the file, rather too many."""
    return sum(len(row.otlp) + _ROW_OVERHEAD for row in rows) * 5 // 4


def split(payload: bytes) -> Batch:
    """Return the spans of *payload*, an `ExportTraceServiceRequest`, as rows.

    Raises:
        UnreadableFrameError: It is something else.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - see the header
    from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415 - as above
        trace_service_pb2,
    )

    request = trace_service_pb2.ExportTraceServiceRequest()
    try:
        request.ParseFromString(payload)
    except DecodeError as error:
        message = f"not an ExportTraceServiceRequest: {error}"
        raise UnreadableFrameError(message) from None
    rows: list[Row] = []
    rejected = 0
    paced = Pace().along
    for group in request.resource_spans:
        for row in paced(_rows_of(group)):
            if row is None:
                rejected += 1
            else:
                rows.append(row)
    return Batch(rows, rejected)


def _rows_of(group: ResourceSpans) -> Iterator[Row | None]:
    service = _attributes(group.resource.attributes, (semconv.SERVICE_NAME,)).get(
        semconv.SERVICE_NAME
    )
    kind = type(group)
    resource = kind(
        resource=group.resource, schema_url=group.schema_url
    ).SerializeToString()
    for spans in group.scope_spans:
        scope = type(spans)(
            scope=spans.scope, schema_url=spans.schema_url
        ).SerializeToString()
        for span in spans.spans:
            if _is_marker(span):
                continue
            # The order of fields means nothing in protobuf: what stands around a
            # span is the same for all of its neighbours, and comes first.
            one = scope + delimited(_SPAN, span.SerializeToString())
            otlp = delimited(_RESOURCE_SPANS, resource + delimited(_SCOPE_SPANS, one))
            yield _row(span, _text(service), otlp)


def _is_marker(span: Span) -> bool:
    # By its name first: most spans have no other look taken at them.
    return span.name.startswith(semconv.MARKER_NAME) and any(
        pair.key == semconv.MARKER for pair in span.attributes
    )


def _row(span: Span, service: str | None, otlp: bytes) -> Row | None:
    trace_id, span_id = span.trace_id, span.span_id
    if not (len(trace_id) == _TRACE_ID_SIZE and len(span_id) == _SPAN_ID_SIZE) or not (
        any(trace_id) and any(span_id)
    ):
        return None
    found = _attributes(span.attributes, _COLUMNS)
    status = _STATUS.get(span.status.code, "unset")
    outcome = _text(found.get(semconv.OUTCOME))
    if outcome is None and status == "error":
        outcome = Outcome.ERROR.value
    operation = found.get(semconv.GEN_AI_OPERATION_NAME, found.get(semconv.OPERATION))
    return Row(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=span.parent_span_id if any(span.parent_span_id) else None,
        name=span.name,
        operation=_text(operation),
        service=service,
        started=min(span.start_time_unix_nano, _LATEST),
        ended=min(span.end_time_unix_nano, _LATEST),
        status=status,
        outcome=outcome,
        ended_by=_text(found.get(semconv.ENDED_BY)),
        input_tokens=_count(found.get(semconv.GEN_AI_USAGE_INPUT_TOKENS)),
        output_tokens=_count(found.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
        otlp=otlp,
    )


def _attributes(
    pairs: Iterable[KeyValue], wanted: Iterable[str]
) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for pair in pairs:
        if pair.key in wanted:
            value = pair.value
            which = value.WhichOneof("value")
            if which == "string_value":
                found[pair.key] = value.string_value
            elif which == "int_value":
                found[pair.key] = value.int_value
    return found


def _text(value: str | int | None) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: str | int | None) -> int | None:
    return value if isinstance(value, int) else None
