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
_OFTEN_SET: Final = (
    "_tracer",
    "_name",
    "_kind",
    "trace_id",
    "span_id",
    "parent_id",
    "flags",
    "_trace_state",
    "remote_parent",
    "_start_time",
    "_values",
    "_end_time",
    "_code",
    "record",
    "queued",
    "_span_context",
    "_message",
    "_event_list",
    "_link_list",
    "is_block",
    "started_during",
)
"""What is set on every span, in the order it is, then on many a one."""


class SdkNames(sdk.Span):
    """What a lean span keeps, and what others expect it to keep."""

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
    record: OpenSpan | None

    # What is set late, on few spans, or never, is a class attribute until then.  No
    # more than that: CPython 3.11 does not specialise reading what the class has too.
    _message: str = ""
    _event_list: list[sdk.Event] | None = None
    _link_list: list[Link] | None = None
    _lost: tuple[int, int, int] = (0, 0, 0)  # attributes, events, links dropped
    started_during: int = 0  # id of the exception that was being handled at the start
    _span_context: SpanContext | None = None
    is_block: bool = True
    """Whether it was started by a block, which made it current in that very place."""
    is_recorded: bool = True
    """Whether processors see it."""
    _record_exception: bool = True
    _set_status_on_exception: bool = True

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
        context = self._span_context
        if context is None:
            self._span_context = context = _otel.span_context(
                int.from_bytes(self.trace_id, "big"),
                int.from_bytes(self.span_id, "big"),
                is_remote=False,
                flags=self.flags,
                trace_state=self._trace_state,
            )
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
        return self._event_list or ()

    @property
    def _links(  # type: ignore[override]  # computed, where the SDK stores
        self,
    ) -> Sequence[Link]:
        return self._link_list or ()

    @property
    def _limits(self) -> sdk.SpanLimits:
        return self._tracer.limits


def share_names(cls: type[Any]) -> None:
    """Put the names of what spans of *cls* have into the table that all of them share.

    CPython closes that table after some twenty of them.  A span that gets a name later
    than that has a dict of its own; and where it is a name that each of them gets, as
    it was when a thousand were started before the first had ended, each has, for ever.
    """
    span: Any = object.__new__(cls)
    for name in _OFTEN_SET:
        setattr(span, name, None)
