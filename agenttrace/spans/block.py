"""A span as a block: `with span(...)`, and `start_as_current_span` of OTel's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.scope import Scope
from agenttrace.exceptions import text_of
from agenttrace.model import RETURNED, Attributes, Opening, ending_of
from agenttrace.spans.lean import LeanSpan
from agenttrace.tracing import ENTERED_ALREADY, F, every_call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agenttrace.spans.tracer import LeanTracer

SPAN_KEY: Final = _otel.span_key()
_put_into: Final = _otel.put_into
_new: Final = object.__new__


class Manner(NamedTuple):
    """What OTel's `start_as_current_span` may ask for beyond an opening.

    Attributes:
        parent: What it starts below, if that is not what is current.
        start_time: Nanoseconds since the epoch, None = now.
        record_exception, set_status: What an exception that comes out does to it.
        ends: Whether leaving the block ends the span.
    """

    parent: Context | None = None
    start_time: int | None = None
    record_exception: bool = True
    set_status: bool = True
    ends: bool = True


class SpanBlock(Opening, Scope):
    """A span as a block: it starts and becomes current at entry, and ends at exit.

    The block is itself the opening of its span, and the scope that stands in OTel's
    context variable meanwhile: one object where there would be three.  Used as a
    decorator, every call is a span of its own.
    """

    __slots__ = (
        "_manner",
        "_outer",
        "_span",
        "_tracer",
        "context",
        "dead",
        "home",
        "token",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - by position: keywords double the cost of a call  # pylint: disable=super-init-not-called
        self,
        tracer: LeanTracer,
        name: str,
        operation: str | None,
        kind: trace.SpanKind,
        attributes: Attributes,
        links: Sequence[trace.Link],
        heartbeat_timeout: float | None = None,
        max_duration: float | None = None,
        manner: Manner | None = None,
    ) -> None:
        self.name = name
        self.operation = operation
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.heartbeat_timeout = heartbeat_timeout
        self.max_duration = max_duration
        self.context = None
        self.dead = False
        self._tracer = tracer
        self._manner = manner
        self._outer: Context
        self._span: LeanSpan | None = None

    def made(self) -> Context:
        """Make the context with the span in it: many a block ends before one asks."""
        inner = Context(self._outer)
        _put_into(inner, SPAN_KEY, self._span)
        return inner

    def __enter__(self) -> trace.Span:
        if self._span is not None:
            self._leave_the_last(self._span)
        manner = self._manner
        runtime = _otel.runtime_context()
        current = runtime.get_current()
        try:
            span: LeanSpan = _new(LeanSpan)
            if manner is None:
                span.begin(self._tracer, self, current)
            else:
                parent = current if manner.parent is None else manner.parent
                span.begin(self._tracer, self, parent, manner.start_time)
                span.on_exception(
                    record=manner.record_exception, set_status=manner.set_status
                )
        except Exception as error:  # noqa: BLE001 - runs inside the application
            self._span = None
            safety.swallow("span.start", error)
            return trace.INVALID_SPAN
        self._outer = current
        self._span = span
        self.enter(runtime)
        return span

    def _leave_the_last(self, span: LeanSpan) -> None:
        """Make sure that this block is done with *span*, which it was before."""
        if span.is_recording():
            raise RuntimeError(ENTERED_ALREADY)
        # Tasks that were started under it may still have it.
        self.seen()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._span
        if span is None:
            return
        manner = self._manner
        ends = manner is None or manner.ends
        try:
            self.leave()
            if ends:
                span.finish(RETURNED if error is None else ending_of(error))
            elif manner is not None and isinstance(error, Exception):
                # The span goes on: only what OTel's `use_span` does then.
                if manner.record_exception:
                    span.record_exception(error)
                if manner.set_status:
                    message = f"{type(error).__name__}: {text_of(error)}"
                    span.set_status(trace.StatusCode.ERROR, message)
        except BaseException:
            # A signal handler raised, or no stack is left: so without a call.
            self.dead = True
            if ends:
                waiting = self._tracer.registry.cut_short
                waiting += ((span, error),)
            raise

    def _again(self) -> SpanBlock:
        return SpanBlock(
            self._tracer,
            self.name,
            self.operation,
            self.kind,
            self.attributes,
            self.links,
            self.heartbeat_timeout,
            self.max_duration,
            self._manner,
        )

    def __call__(self, fn: F) -> F:
        """Return *fn* so that every call of it is a span."""
        return every_call(fn, self._again)
