"""Spans as the SDK's `ReadableSpan` and back.

For what only speaks the SDK's interface: a custom `span_exporter=`, the grpc exporter,
span processors that the application adds.  Values pass as they are: the SDK's own
containers would clean them a second time, and warn of what older versions do not know.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from agenttrace.attributes import SCALARS, clean
from agenttrace.delivery.otlp.caches import PerObject
from agenttrace.model import (
    NO_SCOPE,
    EventData,
    LinkData,
    ResourceData,
    ScopeData,
    SpanData,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import Attributes as OTelAttributes

    from agenttrace.model import Attributes

_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)


def to_readable(span: SpanData) -> ReadableSpan:
    """Return *span* as exporters and processors read it.

    Its context is sampled: a span that is not is never sent.
    """
    trace_state = _trace_state(span.trace_state)

    def context(span_id: bytes, *, is_remote: bool) -> SpanContext:
        return SpanContext(
            trace_id=int.from_bytes(span.trace_id, "big"),
            span_id=int.from_bytes(span_id, "big"),
            is_remote=is_remote,
            trace_flags=_SAMPLED,
            trace_state=trace_state,
        )

    parent = None
    if span.parent_id:
        parent = context(span.parent_id, is_remote=span.parent_is_remote)
    return _SentSpan(span, context(span.span_id, is_remote=False), parent)


def from_readable(span: ReadableSpan) -> SpanData:
    """Return what *span* holds now; one that has not ended ends where it starts."""
    context = span.get_span_context()
    parent = span.parent
    status = span.status
    start = span.start_time or 0
    scope = span.instrumentation_scope
    return SpanData(
        trace_id=_id(context.trace_id if context else 0, _TRACE_ID_SIZE),
        span_id=_id(context.span_id if context else 0, _SPAN_ID_SIZE),
        parent_id=_id(parent.span_id, _SPAN_ID_SIZE) if parent else b"",
        parent_is_remote=bool(parent and parent.is_remote),
        trace_state=context.trace_state.to_header() if context else "",
        name=span.name,
        kind=span.kind,
        start_time=start,
        end_time=start if span.end_time is None else span.end_time,
        attributes=_values(span.attributes),
        events=tuple(
            EventData(
                event.timestamp,
                event.name,
                _values(event.attributes),
                getattr(event, "dropped_attributes", 0),
            )
            for event in span.events
        ),
        links=tuple(
            LinkData(
                _id(link.context.trace_id, _TRACE_ID_SIZE),
                _id(link.context.span_id, _SPAN_ID_SIZE),
                link.context.is_remote,
                _values(link.attributes),
                getattr(link, "dropped_attributes", 0),
            )
            for link in span.links
        ),
        status=status.status_code,
        status_message=status.description or "",
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
        resource=_resource_data(span.resource),
        scope=NO_SCOPE if scope is None else _scope_data(scope),
    )


class _SentEvent(Event):
    """An event that knows how many attributes it lost before it came here."""

    def __init__(self, event: EventData) -> None:
        super().__init__(event.name, _plain(event.attributes), event.time)
        self._dropped = event.dropped_attributes

    @property
    def dropped_attributes(self) -> int:
        return self._dropped


class _SentLink(Link):
    """A link that knows how many attributes it lost before it came here."""

    def __init__(self, link: LinkData) -> None:
        context = SpanContext(
            int.from_bytes(link.trace_id, "big"),
            int.from_bytes(link.span_id, "big"),
            link.is_remote,
        )
        super().__init__(context, _plain(link.attributes))
        self._dropped = link.dropped_attributes

    @property
    def dropped_attributes(self) -> int:
        return self._dropped


class _SentSpan(ReadableSpan):
    """A span out of `SpanData`.

    The SDK takes the numbers of what was dropped from its own containers; these are
    not used here, so the numbers stand beside.
    """

    def __init__(
        self, span: SpanData, context: SpanContext, parent: SpanContext | None
    ) -> None:
        super().__init__(
            name=span.name,
            context=context,
            parent=parent,
            resource=_resources(span.resource),
            attributes=_plain(span.attributes),
            events=tuple(map(_SentEvent, span.events)),
            links=tuple(map(_SentLink, span.links)),
            kind=span.kind,
            status=_status(span.status, span.status_message),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=_scopes(span.scope),
        )
        self._dropped_attributes = span.dropped_attributes
        self._dropped_events = span.dropped_events
        self._dropped_links = span.dropped_links

    @property
    def dropped_attributes(self) -> int:
        return self._dropped_attributes

    @property
    def dropped_events(self) -> int:
        return self._dropped_events

    @property
    def dropped_links(self) -> int:
        return self._dropped_links


def _plain(attributes: Attributes) -> OTelAttributes:
    # The same values; OTel's type cannot say that they have been cleaned.
    return cast("OTelAttributes", attributes)


def _status(code: StatusCode, message: str) -> Status:
    if code is StatusCode.UNSET:
        return _UNSET
    # The SDK logs a warning about a message on any other code, and drops it.
    return Status(code, message or None if code is StatusCode.ERROR else None)


@lru_cache(maxsize=64)
def _trace_state(header: str) -> TraceState:
    return TraceState.from_header([header]) if header else TraceState()


def _to_resource(resource: ResourceData) -> Resource:
    return Resource(_plain(resource.attributes) or {}, resource.schema_url)


def _to_scope(scope: ScopeData) -> InstrumentationScope:
    return InstrumentationScope(
        scope.name, scope.version, scope.schema_url, _plain(scope.attributes)
    )


def _from_resource(resource: Resource) -> ResourceData:
    return ResourceData(_values(resource.attributes), resource.schema_url)


def _from_scope(scope: InstrumentationScope) -> ScopeData:
    return ScopeData(
        scope.name,
        scope.version or "",
        scope.schema_url or "",
        _values(scope.attributes),
    )


_resources: Final = PerObject(_to_resource)
_scopes: Final = PerObject(_to_scope)
_resource_data: Final = PerObject(_from_resource)
_scope_data: Final = PerObject(_from_scope)


def _id(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big")


def _values(attributes: Mapping[str, object] | None) -> dict[str, object]:
    return {
        key: value if type(value) in SCALARS else clean(value)
        for key, value in (attributes or {}).items()
    }
