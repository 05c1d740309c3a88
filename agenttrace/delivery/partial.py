"""Open spans as log records, in the form that collectors of partial spans read.

What they keep is the newest record of each span; where no more come, they tell of the
span in place of a process that has died.  The form is that of the project
`otel-partial-collector` (https://github.com/G-Research/otel-partial-collector)::

    LogRecord
    trace_id, span_id    of the span
    severity             INFO (9)
    body                 base64 of the span as a protobuf `TracesData`
    attributes
      partial.event      "heartbeat", or "stop" once the span has ended
      partial.frequency  how often heartbeats come, as Go writes it ("5000ms"); of
                         heartbeats alone
      partial.body.type  "proto"

Pure.  When records are sent is the runtime's business; nothing imports this where none
are.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.logs.v1.logs_pb2 import (
    LogRecord,
    ResourceLogs,
    ScopeLogs,
    SeverityNumber,
)
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agenttrace import semconv
from agenttrace.delivery import otlp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.model import SpanData

_EVENT: Final = "partial.event"
_FREQUENCY: Final = "partial.frequency"
_BODY_TYPE: Final = "partial.body.type"
_HEARTBEAT: Final = "heartbeat"
_STOP: Final = "stop"
_PROTO: Final = "proto"


def request_of(
    still_open: Sequence[SpanData],
    ended: Sequence[SpanData],
    *,
    every: float,
    now: int,
) -> bytes:
    """Return an `ExportLogsServiceRequest`: a heartbeat or a stop for each span.

    Args:
        still_open: Spans that are open, all of one resource, with the end time 0.
        ended: Spans that were told of and are open no more, in the same form.
        every: Seconds between two heartbeats of a span.
        now: Nanoseconds since the epoch.
    """
    spans = (*still_open, *ended)
    if not spans:
        return b""
    beat = {_EVENT: _HEARTBEAT, _FREQUENCY: _duration(every), _BODY_TYPE: _PROTO}
    stop = {_EVENT: _STOP, _BODY_TYPE: _PROTO}
    records = [_record(span, beat, now) for span in still_open]
    records += [_record(span, stop, now) for span in ended]
    (sender,) = TracesData.FromString(otlp.encode(spans[:1])).resource_spans
    scope = ScopeLogs(
        scope=InstrumentationScope(name=semconv.SCOPE), log_records=records
    )
    logs = ResourceLogs(
        resource=sender.resource, scope_logs=[scope], schema_url=sender.schema_url
    )
    return ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()


def _record(span: SpanData, attributes: dict[str, str], now: int) -> LogRecord:
    # An `ExportTraceServiceRequest` and `TracesData` are the same bytes.
    body = b64encode(otlp.encode([span])).decode()
    return LogRecord(
        time_unix_nano=now,
        observed_time_unix_nano=now,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        severity_text="INFO",
        body=AnyValue(string_value=body),
        attributes=[
            KeyValue(key=key, value=AnyValue(string_value=value))
            for key, value in attributes.items()
        ],
        trace_id=span.trace_id,
        span_id=span.span_id,
    )


def _duration(seconds: float) -> str:
    """Return *seconds* as Go's `time.ParseDuration` reads them.

    >>> _duration(5), _duration(0.25)
    ('5000ms', '250ms')
    """
    return f"{max(round(seconds * 1000), 1)}ms"
