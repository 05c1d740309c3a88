"""The lean tracer: parents, ids, sampling, limits, and the block that is a span.

A `LeanTracer` is an SDK tracer whose class was exchanged (`adopt`), so the SDK's own
constructor, caches and fork handling go on working.  It makes every span of our
provider, other libraries' included.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import SpanKind

from agenttrace import _otel, attributes, safety, semconv
from agenttrace.context.bound import BOUND_KEY
from agenttrace.context.scope import detach
from agenttrace.model import Opening, ScopeData, ending_of, returned
from agenttrace.registry import OpenSpan
from agenttrace.spans.lean import LeanSpan, UnsampledSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, TraceState

    from agenttrace.registry import OpenSpans
    from agenttrace.spans.provider import Provider

SPAN_KEY: Final = _otel.span_key()
_SAMPLED: Final = int(trace.TraceFlags.SAMPLED)
_RANDOM_TRACE_ID: Final = 0x02
_now: Final = time.time_ns
# Our own generator: `random.seed(0)` in the application must not repeat our ids.
_random: Final = random.Random()  # noqa: S311 - ids are not secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


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
        span = self.begin(
            name,
            otel.get_current() if context is None else context,
            kind,
            attributes,
            links,
            start_time,
        )
        error = sys.exception()
        if error is not None:
            span._started_during = id(error)  # noqa: SLF001 - the span's own maker
        if not (record_exception and set_status_on_exception):
            span._record_exception = record_exception  # noqa: SLF001 - the same
            span._set_status_on_exception = set_status_on_exception  # noqa: SLF001 - the same
        return span

    def start_as_current_span(  # type: ignore[override]  # OTel's is a decorated generator of the same use
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
        return SpanBlock(
            self,
            name,
            context,
            kind,
            attributes,
            links,
            start_time,
            None,
            (record_exception, set_status_on_exception, end_on_exit),
        )

    def start(self, opening: Opening, parent: Context) -> LeanSpan:
        """Start a span below whatever is current in *parent* (see `tracing.Tracer`)."""
        return self.begin(
            opening.name,
            parent,
            opening.kind,
            opening.attributes,
            opening.links,
            None,
            opening,
        )

    def span(self, opening: Opening) -> SpanBlock:
        """Return a block that is a span (see `tracing.Tracer`)."""
        return SpanBlock(
            self,
            opening.name,
            None,
            opening.kind,
            opening.attributes,
            opening.links,
            None,
            opening,
        )

    def begin(  # noqa: PLR0913, PLR0917 - the one constructor, on the hot path
        self,
        name: str,
        context: Context,
        kind: SpanKind,
        given: Mapping[str, Any] | None,
        links: Sequence[Link] | None,
        start_time: int | None,
        opening: Opening | None = None,
    ) -> LeanSpan:
        """Start a span below whatever is current in *context*, and register it."""
        if name.__class__ is not str:
            name = str(attributes.clean(name))
        parent: Any = context.get(SPAN_KEY)
        parent_record: OpenSpan | None = None
        trace_state: TraceState | None = None
        remote = False
        if isinstance(parent, LeanSpan):
            trace_id, parent_id = parent.trace_id, parent.span_id
            flags, trace_state = parent.flags, parent._trace_state  # noqa: SLF001 - our own class
            parent_record = parent.record
        else:
            found = _parent_of(parent)
            if found is None:
                trace_id, parent_id = self._new_trace_id(), b""
                flags = _SAMPLED | self._random_flag()
            else:
                trace_id = found.trace_id.to_bytes(16, "big")
                parent_id = found.span_id.to_bytes(8, "big")
                flags, trace_state = int(found.trace_flags), found.trace_state
                remote = found.is_remote
                parent_record = self.registry.find(parent_id)
        recording = sampled = bool(flags & _SAMPLED)
        values: dict[str, Any] = {}
        bound = context.get(BOUND_KEY)
        if bound:
            values.update(bound)  # type: ignore[call-overload]  # `bind` put a dict there
        if not self.default_sampler:
            verdict = self._ask_sampler(
                context, trace_id, name, kind, {**values, **(given or {})}, links
            )
            recording = verdict.decision.is_recording()
            sampled = verdict.decision.is_sampled()
            flags = (flags & ~_SAMPLED) | (_SAMPLED if sampled else 0)
            trace_state = verdict.trace_state
            given = verdict.attributes
        span_id = self._new_span_id()
        started_at = _now() if start_time is None else start_time
        make = LeanSpan if recording else UnsampledSpan
        span = make(
            self,
            name,
            kind,
            trace_id,
            span_id,
            parent_id,
            flags,
            trace_state,
            values,
            started_at,
        )
        if given:
            span.set_attributes(given)
        if links:
            span._add_links(links)  # noqa: SLF001 - our own class
        if remote:
            span._remote_parent = True  # noqa: SLF001 - our own class
        span.record = record = OpenSpan(
            weakref.ref(span),
            trace_id,
            span_id,
            parent_id,
            parent_record,
            name,
            None,
            started_at,
            sampled=sampled,
        )
        if opening is None:
            operation = values.get(semconv.GEN_AI_OPERATION_NAME)
            if operation is not None:
                record.operation = str(operation)
        else:
            record.operation = opening.operation
            record.heartbeat_timeout = opening.heartbeat_timeout
            record.max_duration = opening.max_duration
        self.registry.started(record)
        chain = self.provider.chain
        if chain.processors and recording:
            chain.started(span, context)
        return span

    def _ask_sampler(  # noqa: PLR0913, PLR0917 - the sampler's signature
        self,
        context: Context,
        trace_id: bytes,
        name: str,
        kind: SpanKind,
        values: dict[str, Any],
        links: Sequence[Link] | None,
    ) -> sampling.SamplingResult:
        verdict = safety.guarded(
            "sampler",
            self.sampler.should_sample,
            context,
            int.from_bytes(trace_id, "big"),
            name,
            kind,
            values,
            links or (),
        )
        # A sampler that fails must not make the application's work invisible.
        return verdict or sampling.SamplingResult(
            sampling.Decision.RECORD_AND_SAMPLE, values
        )

    def _new_trace_id(self) -> bytes:
        if self.default_ids:
            return (_random.getrandbits(128) or 1).to_bytes(16, "big")
        return self.id_generator.generate_trace_id().to_bytes(16, "big")

    def _new_span_id(self) -> bytes:
        if self.default_ids:
            return (_random.getrandbits(64) or 1).to_bytes(8, "big")
        return self.id_generator.generate_span_id().to_bytes(8, "big")

    def _random_flag(self) -> int:
        is_random = getattr(self.id_generator, "is_trace_id_random", None)
        return _RANDOM_TRACE_ID if is_random is not None and is_random() else 0

    def limited(
        self, given: Mapping[str, Any] | None, limit: int | None
    ) -> tuple[dict[str, Any], int]:
        """Return *given* clean and within *limit*, and how many were left out."""
        values: dict[str, Any] = {}
        lost = 0
        for key, value in (given or {}).items():
            name = attributes.clean_key(key)
            if name is None or (limit is not None and len(values) >= limit):
                lost += 1
            else:
                values[name] = attributes.clean(value, self.text_limit)
        return values, lost


class SpanBlock:
    """A span as a block: it starts and becomes current at entry, and ends at exit.

    Used as a decorator, every call is a span of its own.
    """

    __slots__ = (
        "_arguments",
        "_context",
        "_flags",
        "_name",
        "_opening",
        "_span",
        "_token",
        "_tracer",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - built on the hot path
        self,
        tracer: LeanTracer,
        name: str,
        context: Context | None,
        kind: SpanKind,
        given: Mapping[str, Any] | None,
        links: Sequence[Link] | None,
        start_time: int | None = None,
        opening: Opening | None = None,
        flags: tuple[bool, bool, bool] | None = None,
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._context = context
        self._arguments = (kind, given, links, start_time, opening)
        self._opening = opening
        self._flags = flags
        self._span: LeanSpan | None = None
        self._token: Any = None

    def __enter__(self) -> trace.Span:
        current = otel.get_current()
        try:
            self._span = span = self._tracer.begin(
                self._name,
                current if self._context is None else self._context,
                *self._arguments,
            )
        except Exception as error:  # noqa: BLE001 - runs inside the application
            safety.swallow("span.start", error)
            return trace.INVALID_SPAN
        if self._flags is not None:
            span._record_exception, span._set_status_on_exception, _ = self._flags  # noqa: SLF001 - our own class
        inner = Context(current)
        # A Context refuses assignment; nobody else has seen this copy yet.
        dict.__setitem__(inner, SPAN_KEY, span)
        self._token = otel.attach(inner)
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
        detach(self._token)
        if self._flags is None or self._flags[2]:
            span.finish(returned() if error is None else ending_of(error))
        elif error is not None and isinstance(error, Exception):
            # The span goes on: only what OTel's `use_span` does then.
            if self._flags[0]:
                span.record_exception(error)
            if self._flags[1]:
                span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}")

    def _again(self) -> SpanBlock:
        kind, given, links, start_time, opening = self._arguments
        return SpanBlock(
            self._tracer,
            self._name,
            self._context,
            kind,
            given,
            links,
            start_time,
            opening,
            self._flags,
        )

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return *fn* so that every call of it is a span."""
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as fn
                with self._again():
                    return await fn(*args, **kwargs)

            return awaited

        @functools.wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as fn
            with self._again():
                return fn(*args, **kwargs)

        return called


def adopt(tracer: sdk.Tracer, provider: Provider) -> LeanTracer:
    """Make the SDK's *tracer* ours by exchanging its class."""
    tracer.__class__ = LeanTracer
    lean: Any = tracer
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
    tracer.default_ids = type(provider.id_generator) is sdk.RandomIdGenerator


def _parent_of(span: object) -> SpanContext | None:
    """Return the context of a parent that is not ours, None where it is none."""
    if not isinstance(span, trace.Span):
        return None
    context = span.get_span_context()
    return context if context.is_valid else None
