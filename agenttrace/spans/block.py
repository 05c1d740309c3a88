"""A span as a block: `with span(...)`, and `start_as_current_span` of OTel's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context

from agenttrace import _otel, safety
from agenttrace.context.scope import Scope
from agenttrace.model import RETURNED, Opening, ending_of, text_of
from agenttrace.tracing import ENTERED_ALREADY, every_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from agenttrace.spans.lean import LeanSpan
    from agenttrace.spans.tracer import LeanTracer

SPAN_KEY: Final = _otel.span_key()
_put_into: Final = _otel.put_into


class SpanBlock(Scope):
    """A span as a block: it starts and becomes current at entry, and ends at exit.

    The block itself is the scope that stands in OTel's context variable meanwhile.
    Used as a decorator, every call is a span of its own.
    """

    __slots__ = ("_flags", "_opening", "_parent", "_span", "_start_time", "_tracer")

    def __init__(
        self,
        tracer: LeanTracer,
        opening: Opening,
        parent: Context | None = None,
        start_time: int | None = None,
        flags: tuple[bool, bool, bool] | None = None,
    ) -> None:
        self._tracer = tracer
        self._opening = opening
        self._parent = parent
        self._start_time = start_time
        self._flags = flags
        self._span: LeanSpan | None = None
        self.dead = False

    def __enter__(self) -> trace.Span:
        if self._span is not None and self._span.is_recording():
            raise RuntimeError(ENTERED_ALREADY)
        current = otel.get_current()
        try:
            self._span = span = self._tracer.begin(
                self._opening,
                current if self._parent is None else self._parent,
                self._start_time,
            )
        except Exception as error:  # noqa: BLE001 - runs inside the application
            safety.swallow("span.start", error)
            return trace.INVALID_SPAN
        if self._flags is not None:
            span.on_exception(record=self._flags[0], set_status=self._flags[1])
        inner = Context(current)
        _put_into(inner, SPAN_KEY, span)
        self.enter(inner)
        return span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        span = self._span
        if span is None:
            return
        flags = self._flags
        ends = flags is None or flags[2]
        try:
            self.leave()
            if ends:
                span.finish(RETURNED if error is None else ending_of(error))
            elif flags is not None and isinstance(error, Exception):
                # The span goes on: only what OTel's `use_span` does then.
                if flags[0]:
                    span.record_exception(error)
                if flags[1]:
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
            self._tracer, self._opening, self._parent, self._start_time, self._flags
        )

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return *fn* so that every call of it is a span."""
        return every_call(fn, self._again)
