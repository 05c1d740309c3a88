"""What a lean span takes down: attributes, events, links, status, within the limits.

Under the names that the SDK, its processors and other tools look for, whether they are
stored here or computed when somebody asks.  How a span ends is `lean`'s business.
"""

from __future__ import annotations

import time
from copy import copy as copy_of
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanKind, Status, StatusCode

from agenttrace import attributes, safety, semconv
from agenttrace.attributes import are_few_words, clean, mapping_of
from agenttrace.exceptions import facts_of
from agenttrace.model import SpanData
from agenttrace.spans.ids import late_id
from agenttrace.spans.names import NO_EXTRAS, SdkNames
from agenttrace.spans.parts import event_data, link_data, link_data_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Link, SpanContext

    from agenttrace.model import EventData, LinkData

_SCALARS: Final = attributes.SCALARS
_NAMES: Final = frozenset({str})
_now: Final = time.time_ns  # `testing.ManualClock` puts itself in its place


class Limited(dict[str, Any]):
    """Attributes of an event or a link, and how many the limits kept out."""

    dropped = 0


class RecordedSpan(SdkNames):
    """What a lean span has taken down so far."""

    __slots__ = ()

    @property
    def api(self) -> trace.Span:
        """The span as OTel's API knows it."""
        return self

    def on_exception(self, *, record: bool, set_status: bool) -> None:
        """Say what an exception that comes out does to the span (OTel's two flags)."""
        extras = self._extras
        if (extras.record_exception, extras.set_status) != (record, set_status):
            extras = self.own_extras()
            extras.record_exception = record
            extras.set_status = set_status

    @property
    def dropped_attributes(self) -> int:
        """How many attributes the limits kept out."""
        return self._extras.lost[0]

    @property
    def dropped_events(self) -> int:
        """How many events the limits kept out."""
        return self._extras.lost[1]

    @property
    def dropped_links(self) -> int:
        """How many links the limits kept out."""
        return self._extras.lost[2]

    def get_span_context(self) -> SpanContext:
        """Return the span context, building it at the first call."""
        return self._extras.span_context or self._context

    def is_recording(self) -> bool:
        """Return whether attributes are still taken."""
        return self._end_time is None

    def set_attribute(self, key: str, value: Any) -> None:  # noqa: ANN401 - any value is taken
        """Set one attribute; values that OTLP cannot carry become text."""
        values = self._values
        if values is None:
            values = self._attributes
        tracer = self._tracer
        kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]  # of anything
        if (
            self._end_time is None
            and type(key) is str
            and (len(value) <= tracer.text_limit if kind is str else kind in _SCALARS)
            and (len(values) < tracer.attribute_limit or key in values)
            and key
        ):
            values[key] = value
        else:
            self._set_attribute_with_care(key, value)

    def set_attributes(self, attributes: Any) -> None:  # noqa: ANN401 - any mapping is taken
        """Set several attributes."""
        given: Mapping[Any, Any] = mapping_of(attributes)
        values = self._values
        if values is None:
            values = self._attributes
        tracer = self._tracer
        if (
            self._end_time is None
            and len(values) + len(given) <= tracer.attribute_limit
            and _NAMES.issuperset(map(type, given))
            and "" not in given
        ):
            # All at once: each step that is taken for every one of them counts.
            limit = tracer.text_limit
            for value in given.values():
                kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]  # of anything
                if kind is str:
                    if len(value) > limit:
                        break
                elif kind not in _SCALARS and not are_few_words(value, limit):
                    break
            else:
                values.update(given)
                return
        for key, value in given.items():
            self.set_attribute(key, value)

    def _set_attribute_with_care(self, key: object, value: object) -> None:
        if self._end_time is not None:
            return
        name = attributes.clean_key(key)
        values = self._attributes
        limit = self._tracer.attribute_limit
        if name is None or limit == 0:
            self._lose(attributes=1)
            return
        if name not in values and len(values) >= limit:
            # The SDK's rule: the oldest goes.
            values.pop(next(iter(list(values)), ""), None)
            self._lose(attributes=1)
        values[name] = attributes.clean(value, self._tracer.text_limit)

    def _lose(self, attributes: int = 0, events: int = 0, links: int = 0) -> None:
        extras = self.own_extras()
        lost = extras.lost
        extras.lost = (lost[0] + attributes, lost[1] + events, lost[2] + links)

    def update_name(self, name: str) -> None:
        """Give the span another name."""
        if self._end_time is None:
            self._name = str(attributes.clean(name, attributes.MAX_NAME))

    def set_status(
        self, status: Status | StatusCode, description: str | None = None
    ) -> None:
        """Set the status: OK is final, UNSET says nothing, as OTel has it."""
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        else:
            code = status
        if (
            self._end_time is not None
            or self._code is StatusCode.OK
            or code is StatusCode.UNSET
        ):
            return
        self._code = code
        self._message = (
            "" if description is None else str(attributes.clean(description))
        )

    def add_event(
        self,
        name: str,
        attributes: Any = None,  # noqa: ANN401 - any mapping is taken
        timestamp: int | None = None,
    ) -> None:
        """Add an event, at *timestamp* (nanoseconds since the epoch) or now."""
        if self._end_time is not None:
            return
        values = self._tracer.limited(
            attributes, self._tracer.limits.max_event_attributes
        )
        self._add_event(
            sdk.Event(
                str(clean(name)), values, _now() if timestamp is None else timestamp
            )
        )

    def _add_event(self, event: Any) -> None:  # noqa: ANN401 - the SDK's EventBase
        extras = self.own_extras()
        events = extras.events
        if events is None:
            extras.events = events = []
        limit = self._tracer.limits.max_events
        events.append(event)
        if limit is not None and len(events) > limit:
            del events[0]
            self._lose(events=1)

    def add_events(self, events: Sequence[EventData]) -> None:
        """Add events that are known as data."""
        for event in events:
            self.add_event(event.name, event.attributes, event.time)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:  # noqa: ANN401 - any mapping is taken
        """Link this span to another one."""
        if self._end_time is None:
            self.link_all([trace.Link(context, attributes)])

    def link_all(self, links: Sequence[Link]) -> None:
        """Link this span to others, within the limits."""
        extras = self.own_extras()
        kept = extras.links
        if kept is None:
            extras.links = kept = []
        limits = self._tracer.limits
        added: list[LinkData] = []
        for link in links:
            context = getattr(link, "context", None)
            if not isinstance(context, trace.SpanContext):
                self._lose(links=1)
                continue
            if not context.is_valid and not link.attributes:
                continue
            values = self._tracer.limited(link.attributes, limits.max_link_attributes)
            made = trace.Link(context, values)
            known = link_data_of(made)
            if known is None:
                self._lose(links=1)
                continue
            kept.append(made)
            added.append(known)
            if limits.max_links is not None and len(kept) > limits.max_links:
                del kept[0]
                self._lose(links=1)
        if added and (record := self.record) is not None:
            safety.guarded(
                "span.linked", self._tracer.registry.slots.linked, record, added
            )

    def __copy__(self) -> Self:
        """Return what the span is now, with no part in how it ends."""
        copy = object.__new__(type(self))
        # First, for the case that it comes to no more than half of a copy: that is
        # nobody's.  The slot stays the owner's, who may still send heartbeats there.
        copy.record = None
        for name in SdkNames.__slots__:
            if name != "record":
                setattr(copy, name, getattr(self, name))
        extras = self._extras
        copy._extras = extras if extras is NO_EXTRAS else copy_of(extras)
        copy._values = dict(self._values or ())
        vars(copy).update(vars(self))  # what others have put there
        return copy

    def remark(self, key: str, value: str) -> None:
        """Say this too, whoever sends the final form (see `registry.Live`)."""
        fresh: dict[str, Any] = {}
        # No call from here on: its owner may be ending it on another thread.
        if self._end_time is None:
            values = self._values
            if values is None:
                self._values = values = fresh
            values[key] = value

    def late_finish(self) -> Self:
        """Return the span that tells the true end of this one, told before.

        A child of this span and linked to it; its own id follows from this one's, so
        that two processes that tell the same late finish tell the same span.
        """
        late = self.__copy__()
        own_id = int.from_bytes(self.span_id, "big")
        late.span_id = late_id(own_id).to_bytes(8, "big")
        late.parent_id = self.span_id
        late.remote_parent = False
        late._name = f"{semconv.LATE_FINISH}: {self._name}"  # noqa: SLF001 - of its own class
        late._kind = SpanKind.INTERNAL  # noqa: SLF001 - of its own class
        late.own_extras().span_context = None
        if self._code is StatusCode.OK:
            late._code = StatusCode.UNSET  # noqa: SLF001 - of its own class
        late.link_all([trace.Link(self._context)])
        return late

    def __deepcopy__(self, _memo: object) -> Self:
        """Do the same: what stands in attributes cannot be changed."""
        return self.__copy__()

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,  # noqa: ANN401 - any mapping is taken
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - OTel's signature
    ) -> None:
        """Add the event that tells of *exception*, with its stack."""
        values: dict[str, Any] = {
            **facts_of(exception),
            "exception.escaped": str(escaped),
        }
        if attributes is not None:
            values.update(mapping_of(attributes))
        self.add_event(semconv.EXCEPTION_EVENT, values, timestamp)

    def data(self) -> SpanData:
        """Return the final form, as a sink takes it (`delivery.encoder.Ended`)."""
        tracer = self._tracer
        state = self._trace_state
        extras = self._extras
        lost = extras.lost
        return SpanData(
            self.trace_id,
            self.span_id,
            self._name,
            self._start_time or 0,
            self._end_time or 0,
            self.parent_id,
            self.remote_parent,
            state.to_header() if state else "",
            self._kind,
            self._values or {},
            [event_data(event) for event in extras.events] if extras.events else (),
            [link_data(link) for link in extras.links] if extras.links else (),
            self._code,
            extras.message,
            lost[0],
            lost[1],
            lost[2],
            tracer.provider.resource_data,
            tracer.scope_data,
        )
