"""The lean tracer: parents, ids, sampling, limits, and the block that is a span.

A `LeanTracer` is an SDK tracer whose class was exchanged (`adopt`), so the SDK's own
constructor, caches and fork handling go on working.  It makes every span of our
provider, other libraries' included.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind

from agenttrace import _otel, attributes, safety, semconv
from agenttrace.model import (
    NO_ATTRIBUTES,
    Attributes,
    Opening,
    Outcome,
    ScopeData,
    identity_of,
)
from agenttrace.registry import UNLIMITED
from agenttrace.spans.block import SPAN_KEY, Manner, SpanBlock
from agenttrace.spans.ids import random_bits
from agenttrace.spans.lean import LeanSpan
from agenttrace.spans.recorded import Limited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from opentelemetry.context.context import Context
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, TraceState

    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.spans.provider import Provider

_SAMPLED: Final = int(trace.TraceFlags.SAMPLED)
_RANDOM_TRACE_ID: Final = 0x02
_INTERNAL: Final = SpanKind.INTERNAL
_ANSWERING: Final = (SpanKind.SERVER, SpanKind.CONSUMER)
_GIVEN_UP: Final = (Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.ABANDONED)
"""How spans end that somebody has put an end to, who would wait no longer."""
_USUAL: Final = Manner()
_new: Final = object.__new__


class LeanTracer(sdk.Tracer):
    """An SDK tracer that makes lean spans."""

    provider: Provider
    registry: OpenSpans
    limits: sdk.SpanLimits
    scope: InstrumentationScope
    scope_data: ScopeData
    attribute_limit: int
    text_limit: int
    default_sampler: bool
    default_ids: bool
    root_flags: int

    def start_span(  # noqa: PLR0913, PLR0917 - OTel's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,  # noqa: ANN401 - any mapping is taken
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - OTel's signature
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002 - the same
    ) -> trace.Span:
        """Start a span.  It is not made current."""
        if not _otel.is_enabled(self):
            return super().start_span(name, context, kind, attributes, links)
        values, operation = _said(attributes)
        limit = None if kind is _INTERNAL else silence_of(kind, operation)
        span = self.begin(
            Opening(name, operation, kind, values, links or (), limit),
            otel.get_current() if context is None else context,
            start_time,
        )
        error = sys.exception()
        if error is not None:
            span.own_extras().started_during = identity_of(error)
        span.on_exception(record=record_exception, set_status=set_status_on_exception)
        return span

    def start_as_current_span(  # type: ignore[override]  # noqa: PLR0913, PLR0917 - OTel's signature; a class where OTel has a decorated generator
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,  # noqa: ANN401 - any mapping is taken
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - OTel's signature
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002 - the same
        end_on_exit: bool = True,  # noqa: FBT001, FBT002 - the same
    ) -> AbstractContextManager[trace.Span]:
        """Return a block that is a span; as a decorator, every call is one."""
        if not _otel.is_enabled(self):
            return super().start_as_current_span(name, context, kind)
        manner = (
            context,
            start_time,
            record_exception,
            set_status_on_exception,
            end_on_exit,
        )
        values, operation = _said(attributes)
        limit = None if kind is _INTERNAL else silence_of(kind, operation)
        block = self.span(name, operation, values, links or (), limit, None)
        block.kind = kind
        if manner != _USUAL:
            block.manner = Manner(*manner)
        return block

    def start(self, opening: Opening, parent: Context) -> LeanSpan:
        """Start a span below whatever is current in *parent* (see `tracing.Tracer`)."""
        return self.begin(opening, parent)

    def span(  # noqa: PLR0913, PLR0917 - those of an opening
        self,
        name: str,
        operation: str | None,
        attributes: Attributes,
        links: Sequence[Link],
        heartbeat_timeout: float | None,
        max_duration: float | None,
    ) -> SpanBlock:
        """Return a block that is a span (see `tracing.Tracer`)."""
        # Here and not in a constructor, whose call would cost more than what it does.
        block: SpanBlock = _new(SpanBlock)
        block.tracer = self
        block.name = name
        block.operation = operation
        block.kind = _INTERNAL
        block.attributes = attributes
        block.links = links
        block.heartbeat_timeout = heartbeat_timeout
        block.max_duration = max_duration
        block.manner = block.span = block.context = None
        block.dead = False
        return block

    def begin(
        self, opening: Opening, context: Context, start_time: int | None = None
    ) -> LeanSpan:
        """Start a span below whatever is current in *context*, and register it."""
        # Past the SDK's `__new__`, which asks who makes spans, and its `__init__`.
        span: LeanSpan = _new(LeanSpan)
        parent = context.get(SPAN_KEY)
        span.begin(self, opening, parent, context, context, start_time)
        span.is_block = False
        return span

    def line_of(
        self, parent: object
    ) -> tuple[bytes, bytes, int, TraceState, OpenSpan | None, bool] | None:
        """Return what a child inherits from a *parent* that is not ours."""
        context = parent.get_span_context() if isinstance(parent, trace.Span) else None
        if context is None or not context.is_valid:
            return None
        parent_id = context.span_id.to_bytes(8, "big")
        return (
            context.trace_id.to_bytes(16, "big"),
            parent_id,
            int(context.trace_flags),
            context.trace_state,
            self.registry.find(parent_id),
            context.is_remote,
        )

    def ask_sampler(
        self,
        context: Context,
        trace_id: bytes,
        name: str,
        opening: Opening,
        values: dict[str, Any],
    ) -> sampling.SamplingResult:
        """Return what the sampler, which is not the default one, says of a span."""
        verdict: Any = safety.guarded(
            "sampler",
            self.sampler.should_sample,
            context,
            int.from_bytes(trace_id, "big"),
            name,
            opening.kind,
            values,
            opening.links,
        )
        if isinstance(getattr(verdict, "decision", None), sampling.Decision):
            return verdict  # type: ignore[no-any-return]  # or what looks like a result
        # A sampler that fails, or returns the bare decision, must not make the
        # application's work invisible.
        decision = sampling.Decision.RECORD_AND_SAMPLE
        if isinstance(verdict, sampling.Decision):
            decision = verdict
        return sampling.SamplingResult(decision, values)

    def new_trace_id(self) -> bytes:
        """Return the id of a new trace."""
        if self.default_ids:
            return (random_bits(128) or 1).to_bytes(16, "big")
        return self.id_generator.generate_trace_id().to_bytes(16, "big")

    def limited(self, given: Mapping[str, Any] | None, limit: int | None) -> Limited:
        """Return *given* clean and within *limit*; the oldest goes, as in the SDK."""
        values = Limited()
        if given is None:
            return values
        for key, value in attributes.mapping_of(given).items():
            name = attributes.clean_key(key)
            if name is None or limit == 0:
                values.dropped += 1
                continue
            if limit is not None and len(values) >= limit and name not in values:
                del values[next(iter(values))]
                values.dropped += 1
            values[name] = attributes.clean(value, self.limits.max_attribute_length)
        return values


def silence_of(kind: SpanKind, operation: object) -> float | None:
    """Return the limit of silence that a span has by its kind; None = the default.

    Who answers requests or messages and is no model's may have nothing to do for hours:
    the connection of a WebSocket is such a span.
    """
    return UNLIMITED if operation is None and kind in _ANSWERING else None


def count_late(outcome: Outcome) -> None:
    """Count the end of a span whose end had been told before."""
    safety.count(safety.Count.LATE_FINISHES)
    if outcome in _GIVEN_UP:
        # It did not go on by itself: that it was stuck was no false alarm.
        safety.count(safety.Count.LATE_GIVEN_UP)


def _said(given: Mapping[str, Any] | None) -> tuple[Attributes, str | None]:
    """Return the attributes that OTel's API was given, and the operation they name."""
    if given is None:
        return NO_ATTRIBUTES, None
    values = attributes.mapping_of(given)
    operation = values.get(semconv.GEN_AI_OPERATION_NAME)
    return values, None if operation is None else str(attributes.clean(operation))


def adopt(tracer: sdk.Tracer, provider: Provider) -> LeanTracer:
    """Make the SDK's *tracer* ours by exchanging its class."""
    tracer.__class__ = LeanTracer
    lean: Any = tracer
    # A dict of its own: of the one that shares keys with the tracers of the class it
    # had, CPython does not specialise reads, and every span does a dozen of them.
    lean.__dict__ = dict(vars(tracer))
    lean.provider = provider
    lean.scope = _otel.scope_of(tracer)
    lean.scope_data = ScopeData(
        lean.scope.name,
        lean.scope.version or "",
        lean.scope.schema_url or "",
        dict(lean.scope.attributes or {}),
    )
    refresh(lean)
    return lean  # type: ignore[no-any-return]  # the same object, by its new class


def refresh(tracer: LeanTracer) -> None:
    """Take over what the provider says now: after a fork or another `configure()`."""
    provider = tracer.provider
    tracer.registry = provider.registry
    tracer.sampler = provider.sampler
    tracer.resource = provider.resource
    tracer.id_generator = provider.id_generator
    tracer.limits = limits = provider.limits
    count = limits.max_span_attributes
    length = limits.max_span_attribute_length
    tracer.attribute_limit = sys.maxsize if count is None else count
    tracer.text_limit = attributes.MAX_TEXT if length is None else length
    tracer.default_sampler = provider.sampler is sampling.DEFAULT_ON
    is_random = getattr(provider.id_generator, "is_trace_id_random", None)
    tracer.root_flags = _SAMPLED | (
        _RANDOM_TRACE_ID if is_random is not None and is_random() else 0
    )
    tracer.default_ids = type(provider.id_generator) is RandomIdGenerator
