"""Reads an `ExportTraceServiceRequest` back into spans.

For custom exporters, the local store and recovery, which are given the bytes that the
encoder wrote.  Foreign bytes are read too: what the encoder never writes (an unknown
kind, a profiling reference) becomes what it means least.  Protobuf is imported at the
first call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace.model import EventData, LinkData, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1 import common_pb2
    from opentelemetry.proto.trace.v1 import trace_pb2

_CONTEXT_IS_REMOTE: Final = 0x200
_KINDS: Final = {
    2: SpanKind.SERVER,
    3: SpanKind.CLIENT,
    4: SpanKind.PRODUCER,
    5: SpanKind.CONSUMER,
}
_CODES: Final = {1: StatusCode.OK, 2: StatusCode.ERROR}


def decode(payload: bytes) -> list[SpanData]:
    """Return the spans of an `ExportTraceServiceRequest`, in the order they stand in.

    Spans of one resource or scope share one object, those of the next payload too.

    Raises:
        ValueError: *payload* is no such request.
    """
    # Importing protobuf costs 10 ms, which processes that only send never pay.
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415
        trace_service_pb2,
    )

    try:
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(payload)
    except DecodeError as error:
        message = f"{len(payload)} bytes are no ExportTraceServiceRequest"
        raise ValueError(message) from error
    spans: list[SpanData] = []
    for group in request.resource_spans:
        resource = _resource(group.resource.SerializeToString(), group.schema_url)
        for subgroup in group.scope_spans:
            scope = _scope(subgroup.scope.SerializeToString(), subgroup.schema_url)
            spans.extend(_span(span, resource, scope) for span in subgroup.spans)
    return spans


# By their bytes, so that one resource is one object over many payloads, and caches
# further on that go by identity find it again.
@lru_cache(maxsize=64)
def _resource(body: bytes, schema_url: str) -> ResourceData:
    from opentelemetry.proto.resource.v1 import resource_pb2  # noqa: PLC0415 - see above

    resource = resource_pb2.Resource.FromString(body)
    return ResourceData(_attributes(resource.attributes), schema_url)


@lru_cache(maxsize=64)
def _scope(body: bytes, schema_url: str) -> ScopeData:
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 - see above

    scope = common_pb2.InstrumentationScope.FromString(body)
    return ScopeData(
        scope.name, scope.version, schema_url, _attributes(scope.attributes)
    )


def _span(span: trace_pb2.Span, resource: ResourceData, scope: ScopeData) -> SpanData:
    return SpanData(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_span_id,
        parent_is_remote=bool(span.flags & _CONTEXT_IS_REMOTE),
        trace_state=span.trace_state,
        name=span.name,
        kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(
            EventData(
                event.time_unix_nano,
                event.name,
                _attributes(event.attributes),
                event.dropped_attributes_count,
            )
            for event in span.events
        ),
        links=tuple(
            LinkData(
                link.trace_id,
                link.span_id,
                bool(link.flags & _CONTEXT_IS_REMOTE),
                _attributes(link.attributes),
                link.dropped_attributes_count,
            )
            for link in span.links
        ),
        status=_CODES.get(span.status.code, StatusCode.UNSET),
        status_message=span.status.message,
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=span.dropped_events_count,
        dropped_links=span.dropped_links_count,
        resource=resource,
        scope=scope,
    )


def _attributes(fields: Iterable[common_pb2.KeyValue]) -> dict[str, object]:
    return {field.key: _value(field.value) for field in fields}


def _value(value: common_pb2.AnyValue) -> object:
    match value.WhichOneof("value"):
        case "array_value":
            return tuple(map(_value, value.array_value.values))
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case None | "string_value_strindex":
            return None
        case kind:
            return getattr(value, kind)
