"""Writes spans as one `ExportTraceServiceRequest`, byte for byte as the SDK would.

Protobuf's own implementation writes fields in the order of their numbers and leaves
out what has its default; so does this.  Equal spans therefore have equal bytes, which
the promise "one span id, one final byte form" rests on.

A span that cannot be written as it is goes through `fallback`; it never takes the
others of its batch with it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace.delivery.frames import Frame
from agenttrace.delivery.otlp import fallback
from agenttrace.delivery.otlp.caches import MAX_TEXT, BoundedDict, PerObject
from agenttrace.delivery.otlp.values import KeyValueWriter
from agenttrace.delivery.otlp.wire import delimited, uint32, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agenttrace.model import (
        EventData,
        LinkData,
        ResourceData,
        ScopeData,
        SpanData,
    )

_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8

# Tags of Span; those of ids carry the length that follows.
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_TRACE_STATE: Final = b"\x1a"
_PARENT_ID: Final = b"\x22\x08"
_NAME: Final = b"\x2a"
_KIND: Final = b"\x30"
_START_TIME: Final = 0x39
_END_TIME: Final = 0x41
_DROPPED_ATTRIBUTES: Final = b"\x50"
_EVENT: Final = b"\x5a"
_DROPPED_EVENTS: Final = b"\x60"
_LINK: Final = b"\x6a"
_DROPPED_LINKS: Final = b"\x70"
_STATUS: Final = b"\x7a"
_FLAGS: Final = b"\x85\x01"

_EVENT_TIME: Final = b"\x09"
_EVENT_NAME: Final = b"\x12"
_EVENT_DROPPED_ATTRIBUTES: Final = b"\x20"
_LINK_TRACE_ID: Final = b"\x0a\x10"
_LINK_SPAN_ID: Final = b"\x12\x08"
_LINK_DROPPED_ATTRIBUTES: Final = b"\x28"
_LINK_FLAGS: Final = b"\x35"
_STATUS_MESSAGE: Final = b"\x12"
_STATUS_CODE: Final = b"\x18"

_RESOURCE_SPANS: Final = b"\x0a"
_RESOURCE: Final = b"\x0a"
_SCOPE_SPANS: Final = b"\x12"
_SCOPE: Final = b"\x0a"
_SCOPE_NAME: Final = b"\x0a"
_SCOPE_VERSION: Final = b"\x12"
_SPAN: Final = b"\x12"
_SCHEMA_URL: Final = b"\x1a"

_span_attributes: Final = KeyValueWriter(b"\x4a")
_event_attributes: Final = KeyValueWriter(b"\x1a")
_link_attributes: Final = KeyValueWriter(b"\x22")
_resource_attributes: Final = KeyValueWriter(b"\x0a")
_scope_attributes: Final = KeyValueWriter(b"\x1a")

_pack_time: Final = Struct("<Q").pack
_pack_times: Final = Struct("<BQBQ").pack

_KINDS: Final = {
    kind: _KIND + varint(number)
    for number, kind in enumerate(
        (
            SpanKind.INTERNAL,
            SpanKind.SERVER,
            SpanKind.CLIENT,
            SpanKind.PRODUCER,
            SpanKind.CONSUMER,
        ),
        start=1,
    )
}
_CODES: Final = {
    StatusCode.UNSET: b"",
    StatusCode.OK: _STATUS_CODE + b"\x01",
    StatusCode.ERROR: _STATUS_CODE + b"\x02",
}
# SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE, and the same with SPAN_FLAGS_CONTEXT_IS_REMOTE.
_LOCAL: Final = b"\x00\x01\x00\x00"
_REMOTE: Final = b"\x00\x03\x00\x00"
_UNSET_AND_LOCAL: Final = _STATUS + b"\x00" + _FLAGS + _LOCAL

_names: BoundedDict[str, tuple[SpanKind, bytes]] = BoundedDict(1024)

Ids = tuple[bytes, bytes]


def encode(spans: Sequence[SpanData]) -> bytes:
    """Return *spans* as one `ExportTraceServiceRequest`.

    They are grouped by resource and scope, both in the order they first occur in.
    Never raises: a value that OTLP cannot carry is sent as text and its span counted
    in `Count.ENCODER_FALLBACKS`.
    """
    return _request(_grouped(spans))


def frame_of(spans: Iterable[SpanData]) -> Frame:
    """Return *spans* as a frame: `encode`'s bytes, and the ids as they stand there."""
    groups = _grouped(spans)
    ids = tuple(
        pair
        for resource in groups.values()
        for scope in resource.scopes.values()
        for pair in scope.ids
    )
    return Frame(ids, _request(groups))


class _Scope:
    """The spans of one scope, already encoded, and their ids."""

    __slots__ = ("field", "ids", "schema", "spans")

    def __init__(self, field: bytes, schema: bytes) -> None:
        self.field = field
        self.schema = schema
        self.ids: list[Ids] = []
        self.spans: list[bytes] = []


class _Resource:
    """The scopes of one resource, by their encoded form."""

    __slots__ = ("field", "schema", "scopes")

    def __init__(self, field: bytes, schema: bytes) -> None:
        self.field = field
        self.schema = schema
        self.scopes: dict[_Sender, _Scope] = {}


_Sender = tuple[bytes, bytes]
"""A resource or scope as its field and the schema URL, which stands elsewhere.

Two that are equal have equal bytes, so they are told apart by these: their attributes
are dicts, which cannot be hashed.
"""


def _grouped(spans: Iterable[SpanData]) -> dict[_Sender, _Resource]:
    groups: dict[_Sender, _Resource] = {}
    # Not None: a broken span may have that for a resource, and would belong nowhere.
    last_resource: object = groups
    last_scope: object = groups
    scope = _Scope(b"", b"")
    for span in spans:
        if span.resource is not last_resource or span.scope is not last_scope:
            last_resource, last_scope = span.resource, span.scope
            scope = _scope_in(groups, span.resource, span.scope)
        ids: Ids = (span.trace_id, span.span_id)
        try:
            body = _span(span)
        except Exception as error:  # noqa: BLE001 - values may run foreign code
            rescued = fallback.rescue(span, _span, error)
            if rescued is None:
                continue
            ids, body = rescued
        scope.ids.append(ids)
        scope.spans += (_SPAN, varint(len(body)), body)
    return groups


def _scope_in(
    groups: dict[_Sender, _Resource], resource: ResourceData, scope: ScopeData
) -> _Scope:
    sender = _resources(resource)
    group = groups.get(sender)
    if group is None:
        group = groups[sender] = _Resource(*sender)
    sender = _scopes(scope)
    found = group.scopes.get(sender)
    if found is None:
        found = group.scopes[sender] = _Scope(*sender)
    return found


def _request(groups: dict[_Sender, _Resource]) -> bytes:
    fields: list[bytes] = []
    for resource in groups.values():
        body = [resource.field]
        for scope in resource.scopes.values():
            spans = b"".join((scope.field, *scope.spans, scope.schema))
            body += (_SCOPE_SPANS, varint(len(spans)), spans)
        body.append(resource.schema)
        fields += (_RESOURCE_SPANS, varint(sum(map(len, body))), *body)
    return b"".join(fields)


def _text(tag: bytes, text: str) -> bytes:
    # A plain field that has its default, here "", is left out.
    body = str.encode(text)
    return delimited(tag, body) if body else b""


def _encode_resource(resource: ResourceData) -> _Sender:
    parts: list[bytes] = []
    _resource_attributes.extend(parts, resource.attributes)
    return (
        delimited(_RESOURCE, b"".join(parts)),
        _text(_SCHEMA_URL, resource.schema_url),
    )


def _encode_scope(scope: ScopeData) -> _Sender:
    parts = [_text(_SCOPE_NAME, scope.name), _text(_SCOPE_VERSION, scope.version)]
    _scope_attributes.extend(parts, scope.attributes)
    return delimited(_SCOPE, b"".join(parts)), _text(_SCHEMA_URL, scope.schema_url)


def _total_resource(resource: ResourceData) -> _Sender:
    try:
        return _encode_resource(resource)
    except Exception as error:  # noqa: BLE001 - values may run foreign code
        fallback.note(error)
        return _encode_resource(fallback.repaired_resource(resource))


def _total_scope(scope: ScopeData) -> _Sender:
    try:
        return _encode_scope(scope)
    except Exception as error:  # noqa: BLE001 - values may run foreign code
        fallback.note(error)
        return _encode_scope(fallback.repaired_scope(scope))


_resources: Final = PerObject(_total_resource)
_scopes: Final = PerObject(_total_scope)


def _span(span: SpanData) -> bytes:  # noqa: C901, PLR0912 - one `if` per field; calls would cost more than the fields
    """Return the body of *span*'s message.

    Raises:
        Exception: Something in it cannot be written; nothing has been.
    """
    trace_id = span.trace_id
    span_id = span.span_id
    if len(trace_id) != _TRACE_ID_SIZE or len(span_id) != _SPAN_ID_SIZE:
        message = "an id has the wrong length"
        raise ValueError(message)
    parts = [_TRACE_ID, trace_id, _SPAN_ID, span_id]
    if span.trace_state:
        parts.append(_text(_TRACE_STATE, span.trace_state))
    parent_id = span.parent_id
    if parent_id:
        if len(parent_id) != _SPAN_ID_SIZE:
            message = "an id has the wrong length"
            raise ValueError(message)
        parts += (_PARENT_ID, parent_id)
    known = _names.get(span.name)
    # Compared by identity, because hashing an enum member runs Python code.
    if known is not None and known[0] is span.kind:
        parts.append(known[1])
    else:
        parts.append(_name_and_kind(span.name, span.kind))
    start = span.start_time
    end = span.end_time
    if start and end:
        parts.append(_pack_times(_START_TIME, start, _END_TIME, end))
    else:
        parts.append(_times(start, end))
    if span.attributes:
        _span_attributes.extend(parts, span.attributes)
    if span.dropped_attributes:
        parts += (_DROPPED_ATTRIBUTES, uint32(span.dropped_attributes))
    if span.events:
        parts.extend(map(_event, span.events))
    if span.dropped_events:
        parts += (_DROPPED_EVENTS, uint32(span.dropped_events))
    if span.links:
        parts.extend(map(_link, span.links))
    if span.dropped_links:
        parts += (_DROPPED_LINKS, uint32(span.dropped_links))
    remote = span.parent_is_remote
    if span.status is StatusCode.UNSET and not span.status_message and not remote:
        parts.append(_UNSET_AND_LOCAL)
    else:
        parts += (
            _status(span.status, span.status_message),
            _FLAGS,
            _REMOTE if remote else _LOCAL,
        )
    return b"".join(parts)


def _name_and_kind(name: str, kind: SpanKind) -> bytes:
    field = _text(_NAME, name) + _KINDS[kind]
    if len(name) <= MAX_TEXT:
        _names.remember(name, (kind, field))
    return field


def _times(start: int, end: int) -> bytes:
    fields = b""
    if start:
        fields += bytes((_START_TIME,)) + _pack_time(start)
    if end:
        fields += bytes((_END_TIME,)) + _pack_time(end)
    return fields


def _status(code: StatusCode, message: str) -> bytes:
    return delimited(_STATUS, _text(_STATUS_MESSAGE, message) + _CODES[code])


def _event(event: EventData) -> bytes:
    parts = [_EVENT_TIME + _pack_time(event.time)] if event.time else []
    parts.append(_text(_EVENT_NAME, event.name))
    _event_attributes.extend(parts, event.attributes)
    if event.dropped_attributes:
        parts += (_EVENT_DROPPED_ATTRIBUTES, uint32(event.dropped_attributes))
    return delimited(_EVENT, b"".join(parts))


def _link(link: LinkData) -> bytes:
    if len(link.trace_id) != _TRACE_ID_SIZE or len(link.span_id) != _SPAN_ID_SIZE:
        message = "an id has the wrong length"
        raise ValueError(message)
    parts = [_LINK_TRACE_ID, link.trace_id, _LINK_SPAN_ID, link.span_id]
    _link_attributes.extend(parts, link.attributes)
    if link.dropped_attributes:
        parts += (_LINK_DROPPED_ATTRIBUTES, uint32(link.dropped_attributes))
    parts += (_LINK_FLAGS, _REMOTE if link.is_remote else _LOCAL)
    return delimited(_LINK, b"".join(parts))
