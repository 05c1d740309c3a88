"""Our tracer provider: where lean spans come from, and where their final form goes.

OTel takes one global provider for the life of a process, so there is one `Provider`,
and `configure()` exchanges what stands behind it (`exchange`).  Other tools may add
their processors to it; those see every span before it is handed on, and what they
change is what is sent.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from agenttrace import _otel, safety, semconv
from agenttrace.model import Outcome, ResourceData, ScopeData, SpanData
from agenttrace.spans import tracer as tracers

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import sampling
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    from agenttrace.registry import OpenSpans
    from agenttrace.spans.lean import LeanSpan
    from agenttrace.spans.tracer import LeanTracer


_SAMPLED: Final = int(trace.TraceFlags.SAMPLED)
_FLUSH_TIMEOUT: Final = 5.0
"""Seconds that a shutdown waits for delivery until the runtime says how long."""


class Ended(Protocol):
    """What a sink is handed: the same words as `delivery.encoder.Ended`."""

    queued: bool

    def data(self) -> SpanData:
        """Return the final form."""
        ...

    def written(self) -> None:
        """Learn that the final form is where it cannot be lost."""
        ...


class Chain:
    """The processors that the application added, each behind the guard."""

    def __init__(self) -> None:
        self.processors: tuple[sdk.SpanProcessor, ...] = ()

    def started(self, span: LeanSpan, context: Context) -> None:
        """Tell every processor that *span* has started."""
        for processor in self.processors:
            safety.guarded(
                f"{type(processor).__qualname__}.on_start",
                processor.on_start,
                span,
                context,
            )

    def ended(self, span: LeanSpan) -> None:
        """Tell every processor that *span* has ended; it may still redact it."""
        for processor in self.processors:
            ending = getattr(processor, "_on_ending", None)
            if ending is not None:
                safety.guarded(
                    f"{type(processor).__qualname__}._on_ending", ending, span
                )
            safety.guarded(
                f"{type(processor).__qualname__}.on_end", processor.on_end, span
            )


class Provider(sdk.TracerProvider):
    """An SDK tracer provider whose spans are lean.

    Args:
        registry: Where open spans are listed.
        sink: Takes every span that has ended and is sampled.
        resource: Who we are.
        sampler: None takes `OTEL_TRACES_SAMPLER`.
        as_error: Outcomes that count as errors in the OTel status.
    """

    def __init__(  # noqa: PLR0913 - what a provider is made of
        self,
        registry: OpenSpans,
        sink: Callable[[Ended], None],
        *,
        resource: Resource,
        sampler: sampling.Sampler | None = None,
        id_generator: IdGenerator | None = None,
        span_limits: sdk.SpanLimits | None = None,
        as_error: frozenset[Outcome] = frozenset(),
    ) -> None:
        super().__init__(
            sampler=sampler,
            resource=resource,
            shutdown_on_exit=False,
            id_generator=id_generator,
            span_limits=span_limits,
        )
        self.registry = registry
        self.sink = sink
        self.as_error = as_error
        self.resource_data = resource_data(resource)
        self.own_scope = ScopeData(semconv.SCOPE)
        self.before_flush: Callable[[float], bool] | None = None
        self._lean: weakref.WeakSet[LeanTracer] = weakref.WeakSet()
        self.flush_timeout = _FLUSH_TIMEOUT
        self.chain = Chain()
        self._down = False

    def _handle_fork(self) -> None:
        """Begin anew in a child process, without the SDK's way to do so (1.45).

        That looks for the resource in a pool of threads, which in a child that is just
        being forked may wait for ever: for a lock that the fork itself holds, where the
        application has imported `concurrent.futures.thread` after us.  Who the child is
        is the runtime's to say.
        """
        _otel.renew_lock_of(self)

    @property
    def limits(self) -> sdk.SpanLimits:
        """The limits that spans keep to."""
        limits: sdk.SpanLimits = _otel.limits_of(self)
        return limits

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:  # noqa: ANN401 - it varies by version
        """Return a tracer, made lean at its first look."""
        tracer = super().get_tracer(*args, **kwargs)
        # A NoOpTracer (OTEL_SDK_DISABLED) passes.
        if type(tracer) is sdk.Tracer:
            tracer = tracers.adopt(tracer, self)
            self._lean.add(tracer)
        return tracer

    def add_span_processor(self, span_processor: sdk.SpanProcessor) -> None:
        """Add a processor that sees every span, and may change it, before it goes."""
        super().add_span_processor(span_processor)
        self.chain.processors = _otel.processors_of(self)
        self._down = False

    def exchange(
        self,
        *,
        registry: OpenSpans,
        sink: Callable[[Ended], None],
        resource: Resource,
        sampler: sampling.Sampler | None,
        as_error: frozenset[Outcome],
    ) -> None:
        """Put something else behind the same provider."""
        self.registry = registry
        self.sink = sink
        self.as_error = as_error
        # Without one the variable counts again, not the sampler of the runtime before;
        # what the variable means is for a provider of the SDK's to say.
        self.sampler = (
            sampler
            or sdk.TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        )
        self.set_resource(resource)

    def set_resource(self, resource: Resource) -> None:
        """Be somebody else from now on: another service name, or a forked process."""
        _otel.set_resource(self, resource)
        self.resource_data = resource_data(resource)
        for tracer in tuple(self._lean):
            tracers.refresh(tracer)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what has ended: ours first, then the application's processors'."""
        started = time.monotonic()
        seconds = timeout_millis / 1000
        flushed = self.before_flush is None or self.before_flush(seconds)
        left = max(0.0, seconds - (time.monotonic() - started))
        return super().force_flush(int(left * 1000)) and flushed

    def shutdown(self) -> None:
        """Deliver what has ended and shut the application's processors down.

        Our own pipeline is the runtime's and goes on.
        """
        if self.before_flush is not None:
            safety.guarded("provider.flush", self.before_flush, self.flush_timeout)
        # Exporters complain of a second time, which is what exit would be.
        if not self._down:
            self._down = True
            super().shutdown()

    def ended(self, span: LeanSpan) -> None:
        """Take a span whose final form is settled."""
        if self.chain.processors and span.is_recorded:
            self.chain.ended(span)
        if span.flags & _SAMPLED:
            if self.registry.taps:
                self._show(span.data())
            sink = self.sink
            sink(span)
        else:
            span.written()

    def finished_late(self, span: LeanSpan, outcome: Outcome) -> None:
        """Tell that *span* ended after all, though its end had been told."""
        tracers.count_late(outcome)
        if span.flags & _SAMPLED:
            self.ended(span.late_finish())

    def tell(self, form: SpanData) -> None:
        """Send *form*, a span that nobody has started, as this process's.

        Args:
            form: Complete but for whose it is: resource and scope are set here.
        """
        # Not to taps: whoever asserts a tree means what the application has started.
        whose = form._replace(resource=self.resource_data, scope=self.own_scope)
        self.sink(Told(whose))

    def _show(self, form: SpanData) -> None:
        """Show *form* to whoever taps the registry."""
        for tap in self.registry.taps:
            safety.guarded("tap", tap, form)


class Told:
    """A span that was complete when it was made: no slot of a journal has it."""

    queued = False

    def __init__(self, data: SpanData) -> None:
        self._data = data

    def data(self) -> SpanData:
        """Return it."""
        return self._data

    def written(self) -> None:
        """There is no slot to free."""


def resource_data(resource: Resource) -> ResourceData:
    """Return the SDK's resource as data."""
    return ResourceData(dict(resource.attributes), resource.schema_url or "")
