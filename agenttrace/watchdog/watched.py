"""A loop that may be blocked, while it is watched, and the span that tells of it."""

from __future__ import annotations

import contextvars
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from agenttrace import _otel, semconv, tracing
from agenttrace.context.scope import SafeRuntimeContext, context_of
from agenttrace.model import SpanData
from agenttrace.watchdog.blocks import Suspicion, culprit, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import SpanContext

    from agenttrace.model import LinkData
    from agenttrace.watchdog.turns import Place, Sight


class _Probe:
    """Notes when a loop gets round to it."""

    __slots__ = ("answered",)

    def __init__(self) -> None:
        self.answered: float | None = None

    def __call__(self) -> None:
        self.answered = time.monotonic()


class Watched(Suspicion):
    """A suspicion, and what was found when it became a block."""

    __slots__ = (
        "collected",
        "dump",
        "earliest",
        "is_told",
        "links",
        "name",
        "parent",
        "piece",
        "probe",
        "stack",
    )

    def __init__(  # noqa: PLR0913 - a record
        self,
        sight: Sight,
        began: float,
        *,
        is_sure: bool,
        excused: float,
        collected: float,
        piece: float,
    ) -> None:
        super().__init__(sight.mark, began, is_sure=is_sure, excused=excused)
        self.collected = collected
        self.probe: _Probe | None = None
        self.stack: Sequence[Place] | None = None
        """Set once it is a block."""
        self.parent: SpanContext | None = None
        self.name = ""
        """Of the span that is to blame."""
        self.earliest = 0
        """When that has started, nanoseconds since the epoch."""
        self.links: Sequence[LinkData] = ()
        self.dump: str | None = None
        self.piece = piece
        self.is_told = False
        """Whether a part of it has been told."""

    def ask(self, sight: Sight) -> None:
        """Have the loop say when it gets any further."""
        if self.probe is None:
            self.probe = probe = _Probe()
            # In a context of its own, or it would keep the application's.
            alone = contextvars.Context()
            try:
                sight.loop.call_soon_threadsafe(probe, context=alone)
            except Exception:  # noqa: BLE001 - closed meanwhile, or a loop like no other
                probe.answered = time.monotonic()

    @property
    def answered(self) -> float | None:
        """When the loop got further; None while nobody has heard of it."""
        return None if self.probe is None else self.probe.answered


def current_in(context: contextvars.Context | None) -> trace.Span | None:
    """Return the span that is current in *context*; None without one."""
    runtime = _otel.runtime_context()
    variable = (
        runtime.variable
        if isinstance(runtime, SafeRuntimeContext)
        else _otel.context_variable(runtime)
    )
    if context is None or variable is None:
        return None
    value = context.get(variable)
    if value is None:
        return None
    # Dead or alive: what was started under a span keeps it as its parent.
    span = trace.get_current_span(context_of(value))
    return span if span.get_span_context().is_valid else None


def blamed(span: trace.Span, before: int) -> tuple[SpanContext, int, str] | None:
    """Return which span blocks, of *span* and those around it, since when, its name.

    The innermost that has been open for long enough: neither one of many short ones
    that a callback opens in turn, nor one that was opened only in the end.

    Args:
        span: What is current.
        before: When it must have begun, nanoseconds since the epoch.

    Returns:
        None where none of them has.  A span without a record is taken to be as old as
        it must be.
    """
    record = tracing.record_of(span)
    if record is None:
        return span.get_span_context(), 0, ""
    while record is not None:
        if record.started_at <= before:
            context = (_api_of(record()) or span).get_span_context()
            return context, record.started_at, record.name
        record = record.parent
    return None


def _api_of(live: Any) -> trace.Span | None:  # noqa: ANN401 - ours, or what refers to another's
    """Return the span that *live* stands for, None where it is gone."""
    if isinstance(live, weakref.ReferenceType):
        live = live()  # pyright: ignore[reportUnknownVariableType]  # of another provider
    api: object = getattr(live, "api", live)  # pyright: ignore[reportUnknownArgumentType]  # the same
    return api if isinstance(api, trace.Span) else None


def form_of(
    watched: Watched, end: float, *, collected: float, goes_on: bool, untold: int
) -> SpanData:
    """Return the span that tells of a block.

    Args:
        watched: The block.
        end: When it was over, or told (`time.monotonic`).
        collected: Seconds of it that the garbage collector took.
        goes_on: Whether the loop is still blocked.
        untold: How many blocks before it were not told.
    """
    stack = watched.stack or ()
    attributes: dict[str, object] = {}
    place = culprit(stack)
    if place is not None:
        attributes[semconv.CODE_FILE_PATH] = place.file
        attributes[semconv.CODE_LINE_NUMBER] = place.line
        attributes[semconv.CODE_FUNCTION_NAME] = place.function
        attributes[semconv.CODE_STACKTRACE] = text_of(stack)
    if watched.dump is not None:
        attributes[semconv.LOOP_DUMP] = watched.dump
    if collected > 0:
        attributes[semconv.LOOP_GC_TIME] = round(collected, 6)
    if goes_on:
        attributes[semconv.LOOP_GOES_ON] = True
    if untold:
        attributes[semconv.LOOP_UNTOLD] = untold
    parent = watched.parent
    ago = time.time_ns() - int(time.monotonic() * 1e9)
    return SpanData(
        trace_id=os.urandom(16)
        if parent is None
        else parent.trace_id.to_bytes(16, "big"),
        span_id=os.urandom(8),
        parent_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        trace_state="" if parent is None else parent.trace_state.to_header(),
        name=semconv.LOOP_BLOCKED,
        # Two clocks: without this it might begin a moment before its parent.
        start_time=max(ago + int(watched.began * 1e9), watched.earliest),
        end_time=ago + int(end * 1e9),
        attributes=attributes,
        links=watched.links,
    )
