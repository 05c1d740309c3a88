"""Sends a span all the same when the encoder could not write it.

Two things can be the matter.  Something in the span cannot be carried by OTLP: then it
is repaired, only where it is broken, and encoded again.  Or the encoder has a bug: then
protobuf itself writes the repaired span, and if that fails too, the span goes without
its attributes, events and links.  Every span that comes here is counted.

What takes the place of a broken value is `attributes`' business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Final, TypeVar, cast

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import safety
from agenttrace.attributes import clean, clean_key
from agenttrace.delivery.otlp.values import any_value, key_value
from agenttrace.delivery.otlp.wire import UINT32_LIMIT
from agenttrace.model import EventData, LinkData, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1 import common_pb2

    from agenttrace.model import Attributes

T = TypeVar("T")

_SITE: Final = "delivery.otlp"
_UINT64_LIMIT: Final = 1 << 64
_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8


def note(error: Exception) -> None:
    """Count a fallback, and log the first one.

    Only the class of *error* is logged: the message of a UnicodeEncodeError carries
    the string it is about, and that may be a prompt.
    """
    safety.count(safety.Count.ENCODER_FALLBACKS)
    safety.log_once(
        f"{_SITE}.fallback",
        logging.WARNING,
        "a span holds what OTLP cannot carry (%s); it is sent with text in its place "
        "(logged once, counted in encoder_fallbacks)",
        type(error).__name__,
    )


def rescue(
    span: SpanData, encode: Callable[[SpanData], bytes], error: Exception
) -> tuple[tuple[bytes, bytes], bytes] | None:
    """Return ids and message of *span*, which *encode* refused with *error*.

    None only where two encoders have a bug at once, or *span* is no span at all; it is
    counted in `Count.SPANS_DROPPED` then.
    """
    note(error)
    whole = safety.guarded(_SITE, repaired, span)
    if whole is not None:
        attempts = ((encode, whole), (by_protobuf, whole), (encode, _bare(whole)))
        for encoder, candidate in attempts:
            body = safety.guarded(_SITE, encoder, candidate)
            if body is not None:
                return (candidate.trace_id, candidate.span_id), body
    safety.count(safety.Count.SPANS_DROPPED)
    return None


def repaired(span: SpanData) -> SpanData:
    """Return *span* with what cannot be encoded replaced, and the rest as it is.

    Its resource and scope are left alone: they have repairs of their own.
    """
    events, unread_events = _each(_event, span.events)
    links, unread_links = _each(_link, span.links)
    return SpanData(
        trace_id=_id(span.trace_id, _TRACE_ID_SIZE),
        span_id=_id(span.span_id, _SPAN_ID_SIZE),
        parent_id=_id(span.parent_id, _SPAN_ID_SIZE) if span.parent_id else b"",
        parent_is_remote=span.parent_is_remote is True,
        trace_state=_text(span.trace_state),
        name=_text(span.name),
        kind=_member(span.kind, SpanKind.INTERNAL),
        start_time=_number(span.start_time, _UINT64_LIMIT),
        end_time=_number(span.end_time, _UINT64_LIMIT),
        attributes=_attributes(span.attributes),
        events=events,
        links=links,
        status=_member(span.status, StatusCode.UNSET),
        status_message=_text(span.status_message),
        dropped_attributes=_number(span.dropped_attributes, UINT32_LIMIT),
        dropped_events=_sum(span.dropped_events, unread_events),
        dropped_links=_sum(span.dropped_links, unread_links),
        resource=span.resource,
        scope=span.scope,
    )


def repaired_resource(resource: object) -> ResourceData:
    """Return *resource* with what cannot be encoded replaced; empty if it is none."""
    if not isinstance(resource, ResourceData):
        return ResourceData({})
    return ResourceData(_attributes(resource.attributes), _text(resource.schema_url))


def repaired_scope(scope: object) -> ScopeData:
    """Return *scope* with what cannot be encoded replaced; empty if it is none."""
    if not isinstance(scope, ScopeData):
        return ScopeData("")
    return ScopeData(
        _text(scope.name),
        _text(scope.version),
        _text(scope.schema_url),
        _attributes(scope.attributes),
    )


def by_protobuf(span: SpanData) -> bytes:
    """Return the message of a clean *span* as protobuf's own code writes it.

    Slow, and the first call imports protobuf: another encoder for when ours is wrong.
    """
    # Importing protobuf costs 10 ms, and hardly a process ever comes here.
    from opentelemetry.proto.trace.v1 import trace_pb2  # noqa: PLC0415

    return trace_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        trace_state=span.trace_state,
        parent_span_id=span.parent_id,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{span.kind.name}"),
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time,
        attributes=_key_value_messages(span.attributes),
        dropped_attributes_count=span.dropped_attributes,
        events=[
            trace_pb2.Span.Event(
                time_unix_nano=event.time,
                name=event.name,
                attributes=_key_value_messages(event.attributes),
                dropped_attributes_count=event.dropped_attributes,
            )
            for event in span.events
        ],
        dropped_events_count=span.dropped_events,
        links=[
            trace_pb2.Span.Link(
                trace_id=link.trace_id,
                span_id=link.span_id,
                attributes=_key_value_messages(link.attributes),
                dropped_attributes_count=link.dropped_attributes,
                flags=_flags(remote=link.is_remote),
            )
            for link in span.links
        ],
        dropped_links_count=span.dropped_links,
        status=trace_pb2.Status(
            message=span.status_message,
            code=trace_pb2.Status.StatusCode.Value(f"STATUS_CODE_{span.status.name}"),
        ),
        flags=_flags(remote=span.parent_is_remote),
    ).SerializeToString()


def _flags(*, remote: bool) -> int:
    return 0x300 if remote else 0x100


def _key_value_messages(attributes: Attributes) -> list[common_pb2.KeyValue]:
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 - see above

    return [
        common_pb2.KeyValue(key=key, value=_any_value_message(value))
        for key, value in attributes.items()
    ]


def _any_value_message(value: object) -> common_pb2.AnyValue:  # noqa: PLR0911 - one per type
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 - see above

    message = common_pb2.AnyValue
    match value:
        case bool():
            return message(bool_value=value)
        case str():
            return message(string_value=value)
        case int():
            return message(int_value=value)
        case float():
            return message(double_value=value)
        case bytes():
            return message(bytes_value=value)
        case Mapping():
            items = _key_value_messages(cast("Attributes", value))
            return message(kvlist_value=common_pb2.KeyValueList(values=items))
        case Sequence():
            values = map(_any_value_message, cast("Sequence[object]", value))
            return message(array_value=common_pb2.ArrayValue(values=values))
        case _:
            return message()


def _bare(span: SpanData) -> SpanData:
    return span._replace(
        attributes={},
        dropped_attributes=_sum(span.dropped_attributes, len(span.attributes)),
        events=(),
        dropped_events=_sum(span.dropped_events, len(span.events)),
        links=(),
        dropped_links=_sum(span.dropped_links, len(span.links)),
    )


def _attributes(attributes: object) -> dict[str, object]:
    kept: dict[str, object] = {}
    for key, value in _copied(attributes).items():
        if _encodable(key, value):
            kept[key] = value
            continue
        name = clean_key(key)
        if name is not None:
            kept[name] = clean(value)
    return kept


def _copied(attributes: object) -> dict[str, object]:
    # The application may be changing them on another thread, or they are none.
    try:
        return dict(cast("Mapping[str, object]", attributes))
    except Exception:  # noqa: BLE001 - a foreign mapping may raise anything
        return {}


def _encodable(key: str, value: object) -> bool:
    try:
        key_value(key, any_value(value))
    except Exception:  # noqa: BLE001 - values may run foreign code
        return False
    return True


def _event(event: EventData) -> EventData:
    return EventData(
        _number(event.time, _UINT64_LIMIT),
        _text(event.name),
        _attributes(event.attributes),
        _number(event.dropped_attributes, UINT32_LIMIT),
    )


def _link(link: LinkData) -> LinkData:
    return LinkData(
        _id(link.trace_id, _TRACE_ID_SIZE),
        _id(link.span_id, _SPAN_ID_SIZE),
        link.is_remote is True,
        _attributes(link.attributes),
        _number(link.dropped_attributes, UINT32_LIMIT),
    )


def _each(repair: Callable[[T], T], items: Iterable[T]) -> tuple[list[T], int]:
    """Return what could be repaired, and how many could not even be read."""
    kept: list[T] = []
    unread = 0
    try:
        for item in items:
            try:
                kept.append(repair(item))
            except AttributeError:
                unread += 1
    except Exception:  # noqa: BLE001 - what is no sequence, or a foreign one, ends here
        unread += 1
    return kept, unread


def _id(value: object, size: int) -> bytes:
    if isinstance(value, int):
        value = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")
    if not isinstance(value, bytes):
        value = b""
    return value[-size:].rjust(size, b"\0")


def _text(value: object) -> str:
    return "" if value is None else str(clean(value))


def _number(value: object, limit: int) -> int:
    if isinstance(value, float) and isfinite(value):
        value = int(value)
    return min(max(value, 0), limit - 1) if isinstance(value, int) else 0


def _sum(dropped: object, more: int) -> int:
    return _number(_number(dropped, UINT32_LIMIT) + more, UINT32_LIMIT)


def _member(value: object, default: T) -> T:
    # Its type, and not what its `__class__` says, which may be foreign code.
    return cast("T", value) if issubclass(type(value), type(default)) else default
