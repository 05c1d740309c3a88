"""Events and links of the SDK as data, as encoder, store and recovery read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agenttrace.model import EventData, LinkData

if TYPE_CHECKING:
    from opentelemetry.trace import Link


def event_data(event: Any) -> EventData:  # noqa: ANN401 - the SDK's EventBase
    """Return an SDK event as data."""
    dropped = getattr(event.attributes, "dropped", 0)
    return EventData(event.timestamp, event.name, event.attributes or {}, dropped)


_FIT: Final = (AttributeError, OverflowError, TypeError, ValueError)
"""What numbers raise that are no ids; the API takes any."""


def link_data_of(link: Link) -> LinkData | None:
    """Return *link* as data, None where its ids are none that can be told."""
    try:
        return link_data(link)
    except _FIT:
        return None


def link_data(link: Link) -> LinkData:
    """Return an API link as data."""
    context = link.context
    return LinkData(
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
        context.is_remote,
        link.attributes or {},
        getattr(link.attributes, "dropped", 0),
    )
