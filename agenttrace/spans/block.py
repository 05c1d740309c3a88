"""A span as a block: `with span(...)`, and `start_as_current_span` of OTel's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.scope import SafeRuntimeContext, Scope, Value, context_of
from agenttrace.exceptions import summary_of
from agenttrace.model import RETURNED, Opening
from agenttrace.records import NamedTuple
from agenttrace.spans.lean import LeanSpan
from agenttrace.tracing import ENTERED_ALREADY, F, ending_of, every_call

if TYPE_CHECKING:
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
        "base",
        "context",
        "dead",
        "home",
        "manner",
        "span",
        "token",
        "tracer",
    )

    # Where `LeanTracer.span`, which alone makes one, puts what it says.
    tracer: LeanTracer
    manner: Manner | None
    base: Context
    """What it was entered in, but for the spans of the blocks around it."""
    span: LeanSpan | None

    def made(self) -> Context:
        """Make the context with the span in it: many a block ends before one asks."""
        inner = Context(self.base)
        _put_into(inner, SPAN_KEY, self.span)
        return inner

    def __enter__(self) -> trace.Span:
        if self.span is not None:
            self._leave_the_last(self.span)
        runtime = _otel.runtime_context()
        home: SafeRuntimeContext | None = None
        outer: Value
        if isinstance(runtime, SafeRuntimeContext):
            home = runtime
            outer = runtime.top()
        else:
            outer = runtime.get_current()
        if isinstance(outer, SpanBlock):
            # What most blocks stand in; no context is needed to know what it says.
            parent: object = outer.span
            base = outer.base
        else:
            base = context_of(outer)
            parent = base.get(SPAN_KEY)
        try:
            span: LeanSpan = _new(LeanSpan)
            if self.manner is None:
                span.begin(self.tracer, self, parent, base, outer)
            else:
                self._begin(span, self.manner, parent, base, outer)
        except Exception as error:  # noqa: BLE001 - runs inside the application
            self.span = None
            safety.swallow("span.start", error)
            return trace.INVALID_SPAN
        self.base = base
        self.span = span
        if home is None or self.dead:
            self.substitute(runtime)
        else:
            self.home = home
            home.push(self)
        return span

    def _begin(
        self,
        span: LeanSpan,
        manner: Manner,
        parent: object,
        base: Context,
        outer: Value,
    ) -> None:
        """Start *span* as OTel's API was asked to."""
        given = manner.parent
        if given is not None:
            parent, base, outer = given.get(SPAN_KEY), given, given
        span.begin(self.tracer, self, parent, base, outer, manner.start_time)
        span.on_exception(record=manner.record_exception, set_status=manner.set_status)

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
        span = self.span
        if span is None:
            return
        manner = self.manner
        ends = manner is None or manner.ends
        try:
            if self.dead:
                self.leave_substitute()
            else:
                self.home.end(self)
            if ends:
                span.finish(RETURNED if error is None else ending_of(error))
            elif manner is not None and isinstance(error, Exception):
                # The span goes on: only what OTel's `use_span` does then.
                if manner.record_exception:
                    span.record_exception(error)
                if manner.set_status:
                    span.set_status(trace.StatusCode.ERROR, summary_of(error))
        except BaseException:
            # A signal handler raised, or no stack is left: so without a call.
            self.dead = True
            if ends:
                waiting = self.tracer.registry.cut_short
                waiting += ((span, error),)
            raise

    def _again(self) -> SpanBlock:
        block = self.tracer.span(
            self.name,
            self.operation,
            self.attributes,
            self.links,
            self.heartbeat_timeout,
            self.max_duration,
        )
        block.kind = self.kind
        block.manner = self.manner
        return block

    def __call__(self, fn: F) -> F:
        """Return *fn* so that every call of it is a span."""
        return every_call(fn, self._again)
