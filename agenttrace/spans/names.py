"""What a lean span keeps, and the names under which others look for what it has.

The SDK, its processors and other tools read a span's attributes under names of their
own (`_attributes`, `_context`, `_status`).  Little of that is stored here in that form;
the rest is computed when somebody asks.  What is taken down is `recorded`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanKind, Status, StatusCode

from agenttrace import _otel, semconv
from agenttrace.model import EndedBy, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, TraceState

    from agenttrace.registry import OpenSpan
    from agenttrace.spans.tracer import LeanTracer

RETURNED_WELL: Final[dict[str, Any]] = {
    semconv.OUTCOME: Outcome.OK.value,
    semconv.ENDED_BY: EndedBy.RETURN.value,
}
"""What a span comes to that nobody has said anything of: one for all, never changed."""


class Extras:
    """What few spans take down, apart from what each of them keeps.

    Attributes:
        span_context: That of OTel's API, once somebody has asked for it.
        message: The status message.
        events, links: None where there are none.
        lost: How many attributes, events and links the limits kept out.
        started_during: The identity of the exception that was being handled when the
            span started, 0 = none.
        record_exception, set_status: What an exception that comes out does to it.
    """

    __slots__ = (
        "events",
        "links",
        "lost",
        "message",
        "record_exception",
        "set_status",
        "span_context",
        "started_during",
    )

    def __init__(self) -> None:
        self.span_context: SpanContext | None = None
        self.message = ""
        self.events: list[sdk.Event] | None = None
        self.links: list[Link] | None = None
        self.lost: tuple[int, int, int] = (0, 0, 0)
        self.started_during = 0
        self.record_exception = True
        self.set_status = True

    def __copy__(self) -> Extras:
        """Return what they are now."""
        copy = Extras()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        # Their owner may add to them.
        copy.events = self.events and list(self.events)
        copy.links = self.links and list(self.links)
        return copy


NO_EXTRAS: Final = Extras()
"""Those of every span that has none of its own yet: never changed."""


class SdkNames(sdk.Span):
    """What a lean span keeps, and what others expect it to keep."""

    # In the span itself: what would be kept beside it is one allocation more for each.
    __slots__ = (
        "_code",
        "_end_time",
        "_extras",
        "_kind",
        "_name",
        "_start_time",
        "_trace_state",
        "_tracer",
        "_values",
        "flags",
        "is_block",
        "parent_id",
        "queued",
        "record",
        "remote_parent",
        "span_id",
        "trace_id",
    )

    # Set at the start of each, in `LeanSpan.begin`.
    _tracer: LeanTracer
    _name: str
    _kind: SpanKind
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    flags: int
    _trace_state: TraceState | None
    remote_parent: bool
    _values: dict[str, Any] | None
    """The attributes; None where there are none yet, which is a dict less for most."""
    _start_time: int | None
    _end_time: int | None
    _code: StatusCode
    _extras: Extras
    record: OpenSpan | None
    queued: bool
    """Whether a sink has taken it (see `delivery.encoder.Ended`)."""
    is_block: bool
    """Whether it was started by a block, which made it current in that very place."""

    is_recorded: bool = True
    """Whether processors see it."""

    def own_extras(self) -> Extras:
        """Return what this span alone has of them, making it at the first time."""
        if self._extras is NO_EXTRAS:
            fresh = Extras()
            # No call from here on: no other thread comes in between.
            if self._extras is NO_EXTRAS:
                self._extras = fresh
        return self._extras

    @property
    def _message(self) -> str:
        return self._extras.message

    @_message.setter
    def _message(self, message: str) -> None:
        # Most statuses say nothing.
        if message != self._extras.message:
            self.own_extras().message = message

    # What the SDK keeps per span and its methods, its processors and other tools
    # read under these names.

    @property  # type: ignore[mutable-override]  # computed, where the SDK stores
    def _attributes(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {}
        values = self._values
        if values is None:
            self._values = values = fresh
        elif values is RETURNED_WELL:
            self._values = values = dict(values)
        return values

    @_attributes.setter
    def _attributes(self, values: dict[str, Any]) -> None:
        self._values = values

    @property
    def _context(  # type: ignore[override, mutable-override]  # computed, where the SDK stores
        self,
    ) -> SpanContext:
        context = self._extras.span_context
        if context is None:
            context = _otel.span_context(
                int.from_bytes(self.trace_id, "big"),
                int.from_bytes(self.span_id, "big"),
                is_remote=False,
                flags=self.flags,
                trace_state=self._trace_state,
            )
            self.own_extras().span_context = context
        return context

    @property
    def _parent(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> SpanContext | None:
        if not self.parent_id:
            return None
        return _otel.span_context(
            int.from_bytes(self.trace_id, "big"),
            int.from_bytes(self.parent_id, "big"),
            is_remote=self.remote_parent,
            flags=self.flags,
            trace_state=self._trace_state,
        )

    @property
    def _status(self) -> Status:
        message = self._message if self._code is StatusCode.ERROR else None
        return Status(self._code, message or None)

    @_status.setter
    def _status(self, status: Status) -> None:
        self._code = status.status_code
        self._message = status.description or ""

    @property
    def _resource(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> Resource:
        return self._tracer.resource

    @property
    def _instrumentation_scope(  # type: ignore[override, mutable-override]  # computed, where the SDK stores
        self,
    ) -> InstrumentationScope:
        return self._tracer.scope

    @property
    def _instrumentation_info(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> Any:  # noqa: ANN401 - deprecated in the SDK
        return self._tracer.instrumentation_info

    @property
    def _events(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> Sequence[sdk.Event]:
        return self._extras.events or ()

    @property
    def _links(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> Sequence[Link]:
        return self._extras.links or ()

    @property
    def _limits(self) -> sdk.SpanLimits:
        return self._tracer.limits
