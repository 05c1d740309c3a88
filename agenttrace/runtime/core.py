"""The runtime: what `configure()` builds, and what the module-level verbs delegate to.

A runtime either has our own provider and pipeline, or is attached to the provider the
application has.  The registry of open spans and our provider live as long as the
process; what stands behind them is exchanged when `configure()` is called again.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from opentelemetry import trace
from opentelemetry.sdk import trace as sdk

from agenttrace import content, safety, semconv, tracing
from agenttrace.context import scope
from agenttrace.delivery.spooler import Spooler, SpoolerStatus
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.runtime import process, resource
from agenttrace.runtime.destinations import senders_of
from agenttrace.settings import Settings, resolve
from agenttrace.spans.attached import Attachment
from agenttrace.spans.provider import Ended, Provider
from agenttrace.watchdog.ticker import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import sampling
    from opentelemetry.sdk.trace.export import SpanExporter

INSTRUMENTATION_NAME: Final = "agenttrace"
_EXIT: Final = "its process ended while it was open"


@dataclass(frozen=True, slots=True)
class Status:
    """What a runtime is and has done; for health endpoints, tests and benchmarks.

    Attributes:
        mode: `own`, `attached` or `disabled`.
        destinations: Where spans go: `otlp`, `console`, `store`, `exporter`; of an
            attached runtime none, its provider has them.
        safe_context: Whether OTel's context tokens are safe to detach anywhere.
        journal: Whether open spans survive the process.
        open: Spans that are open now.
        started: Spans that have started, unsampled ones included.
        delivery: Queue and destinations; None when attached or disabled.
        counts: agenttrace's own counters (`safety.Count`).
        guard_hits: What the guard swallowed, by site.
    """

    mode: str
    destinations: tuple[str, ...] = ()
    safe_context: bool = False
    journal: bool = False
    open: int = 0
    started: int = 0
    delivery: SpoolerStatus | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    guard_hits: Mapping[str, int] = field(default_factory=dict[str, int])


class Pipeline(Protocol):
    """How a runtime traces: own, attached, or not at all."""

    mode: str
    destinations: tuple[str, ...]

    @property
    def tracer(self) -> tracing.Tracer:
        """What the port is to use."""
        ...

    def flush(self, timeout: float, /) -> bool:
        """Deliver what has ended."""
        ...

    def stop(self, timeout: float, /) -> bool:
        """Deliver what has ended and take nothing more."""
        ...

    def after_fork(self) -> None:
        """Begin anew in a child process."""
        ...

    def status(self) -> SpoolerStatus | None:
        """Return queue and destinations, where there are any."""
        ...


class OwnPipeline:
    """Our provider, our spooler, our senders."""

    mode = "own"

    def __init__(
        self,
        settings: Settings,
        registry: OpenSpans,
        span_exporter: SpanExporter | None,
        sampler: sampling.Sampler | None,
    ) -> None:
        senders = senders_of(settings, span_exporter)
        self.destinations = tuple(senders)
        self.spooler = Spooler(
            tuple(senders.values()), max_bytes=settings.max_queue_bytes
        )
        self.provider = _provider(
            registry,
            self.spooler.put,
            resource.resource_of(settings),
            sampler,
            settings,
        )
        self.provider.before_flush = self.flush
        self._tracer = self.provider.get_tracer(INSTRUMENTATION_NAME, _version())

    @property
    def tracer(self) -> tracing.Tracer:
        """A lean tracer; OTel's no-op one where the SDK is disabled."""
        lean: Any = self._tracer
        return lean if hasattr(lean, "begin") else tracing.DISABLED

    def flush(self, timeout: float) -> bool:
        """Deliver what has ended; True if all of it is acknowledged."""
        return self.spooler.flush(timeout)

    def stop(self, timeout: float) -> bool:
        """Flush, then end the threads."""
        return self.spooler.shutdown(timeout)

    def after_fork(self) -> None:
        """Give the child a queue and threads of its own, and another identity."""
        self.spooler.reset_after_fork()
        self.provider.set_resource(resource.of_this_process(self.provider.resource))

    def status(self) -> SpoolerStatus | None:
        """Return queue and destinations."""
        return self.spooler.status()


class AttachedPipeline:
    """Another provider's processors carry our spans."""

    mode = "attached"
    destinations: tuple[str, ...] = ()

    def __init__(self, provider: sdk.TracerProvider, registry: OpenSpans) -> None:
        self.attachment = Attachment(provider, registry)
        self._provider = provider

    @property
    def tracer(self) -> tracing.Tracer:
        """A tracer of the application's provider."""
        return self.attachment.tracer

    def flush(self, timeout: float) -> bool:
        """Ask the application's provider to deliver."""
        flushed = safety.guarded(
            "provider.force_flush", self._provider.force_flush, int(timeout * 1000)
        )
        # Providers of others return None for "as far as I know".
        return flushed is not False

    def stop(self, timeout: float) -> bool:
        """Take the gate out again; the provider is the application's."""
        flushed = self.flush(timeout)
        self.attachment.detach()
        return flushed

    def after_fork(self) -> None:
        """Leave it to the provider's processors."""

    def status(self) -> SpoolerStatus | None:
        """Return None: the queue is the provider's."""
        return None


class NoPipeline:
    """Tracing is disabled, or there is nothing to attach to."""

    destinations: tuple[str, ...] = ()

    def __init__(self, mode: str, tracer: tracing.Tracer) -> None:
        self.mode = mode
        self.tracer = tracer

    def flush(self, _timeout: float, /) -> bool:
        """Find nothing to deliver."""
        return True

    def stop(self, _timeout: float, /) -> bool:
        """Find nothing to stop."""
        return True

    def after_fork(self) -> None:
        """Find nothing to begin anew."""

    def status(self) -> SpoolerStatus | None:
        """Return None: there is no queue."""
        return None


class Runtime:
    """A configured agenttrace, made by `configure()`.

    A context manager that shuts itself down.

    Attributes:
        settings: What it was configured with.
        spans: The registry of open spans.
    """

    def __init__(
        self, settings: Settings, pipeline: Pipeline, spans: OpenSpans
    ) -> None:
        self.settings = settings
        self.spans = spans
        self._pipeline = pipeline
        self._stopped = False
        self._policy = content.Policy(
            settings.capture_content, settings.redact, settings.max_content_characters
        )
        self._safe = False
        if pipeline.mode != "disabled":
            spans.limit = settings.max_open_spans
            self._safe = settings.safe_context and scope.install()
        content.install(self._policy)
        tracing.install(pipeline.tracer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def open_spans(self) -> tuple[OpenSpan, ...]:
        """Return the spans that are open now, oldest first."""
        return self.spans.snapshot()

    def flush(self, timeout: float = 30.0) -> bool:
        """Deliver every span that has ended.

        Args:
            timeout: Longest wait in seconds.

        Returns:
            Whether all of them are acknowledged (or refused for good).
        """
        self.sweep()
        return self._pipeline.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Deliver what there is and stop; spans still open are told as `lost`.

        Args:
            timeout: Longest wait in seconds; None = `flush_timeout`.

        Returns:
            Whether everything was delivered in time.
        """
        if self._stopped:
            return True
        self._stopped = True
        if timeout is None:
            timeout = self.settings.flush_timeout
        self.sweep()
        for span in self.spans.snapshot():
            self.spans.judge(span, Ending(Outcome.LOST, EndedBy.EXIT, message=_EXIT))
        delivered = self._pipeline.stop(timeout)
        if current() is self:
            tracing.install(None)
            content.install(content.Policy())
        return delivered

    def retire(self) -> None:
        """Make room for another runtime: deliver, but leave open spans open."""
        if not self._stopped:
            self._stopped = True
            self._pipeline.stop(self.settings.flush_timeout)

    def sweep(self) -> None:
        """End the spans whose object was collected without an end."""
        self.spans.sweep(_collected)

    def after_fork(self) -> None:
        """Be the runtime of a child process: what was open is the parent's."""
        self.spans.forget()
        self._pipeline.after_fork()

    def at_exit(self) -> None:
        """Deliver at interpreter exit, within `flush_timeout`."""
        self.shutdown()

    def status(self) -> Status:
        """Return what this runtime is and has done."""
        return Status(
            mode=self._pipeline.mode,
            destinations=self._pipeline.destinations,
            safe_context=self._safe,
            open=len(self.spans),
            started=self.spans.started_count,
            delivery=self._pipeline.status(),
            counts=safety.counts(),
            guard_hits=safety.guard_hits(),
        )


class _Process:
    """What there is one of in a process: registry, ticker, provider, runtime."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.spans = OpenSpans()
        self.ticker = Ticker(self.spans)
        self.spans.wake = self.ticker.wake
        self.spans.awake = False
        self.provider: Provider | None = None
        self.runtime: Runtime | None = None
        self.ticker.subscribe("sweep", self.sweep)

    def sweep(self) -> None:
        """End the spans whose object was collected without an end."""
        self.spans.sweep(_collected)

    def after_fork(self) -> None:
        """Begin anew in a child process, whatever other threads held at the fork."""
        self.lock = threading.RLock()
        self.ticker.after_fork()
        if self.runtime is not None:
            self.runtime.after_fork()

    def at_exit(self) -> None:
        """Let the runtime deliver."""
        if self.runtime is not None:
            self.runtime.at_exit()


_process = _Process()


def configure(  # noqa: PLR0913 - one keyword a setting, all optional
    *,
    service_name: str | None = None,
    resource_attributes: Mapping[str, object] | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    span_exporter: SpanExporter | None = None,
    sampler: sampling.Sampler | None = None,
    state_dir: str | None = None,
    safe_context: bool | None = None,
    capture_content: bool | None = None,
    redact: Callable[[str, object], object] | None = None,
    max_content_characters: int | None = None,
    error_outcomes: frozenset[str] | None = None,
    max_open_spans: int | None = None,
    flush_timeout: float | None = None,
    max_queue_bytes: int | None = None,
    max_store_bytes: int | None = None,
    disabled: bool | None = None,
) -> Runtime:
    """Start tracing and return the runtime, which is the current one from now on.

    With no argument and no variable set, spans go to the embedded store, where
    `agenttrace tree` shows them.  With an OTLP endpoint in the environment they go
    there.  Where the application has a tracer provider of its own (given, or set
    globally before), agenttrace attaches to it and its processors carry the spans.

    None always means "not said": the `AGENTTRACE_*` variable of the same name counts
    then, OpenTelemetry's where it has one, else the default (see `Settings`).
    Calling it again replaces the runtime; spans that are open stay open.

    Args:
        service_name: `service.name`.
        resource_attributes: More attributes of the resource.
        tracer_provider: The application's provider to attach to.
        span_exporter: Send spans with this exporter instead.
        sampler: Which traces are recorded; default `OTEL_TRACES_SAMPLER`.
        state_dir: Where agenttrace keeps its files.
        safe_context: Make OTel's context tokens safe to detach anywhere.
        capture_content: Capture prompts, outputs, arguments and results.
        redact: Called with key and value of all content before it is kept.
        max_content_characters: Longest captured content.
        error_outcomes: `cancelled` and `abandoned` are no errors in the OTel status
            unless they stand here.
        max_open_spans: Open spans that are watched.
        flush_timeout: Longest that exit waits for delivery, in seconds.
        max_queue_bytes: Encoded spans kept while no backend takes them.
        max_store_bytes: Size of the embedded store.
        disabled: Trace nothing and patch nothing.

    Raises:
        SettingError: A setting cannot be meant; the message says what it may be.
    """
    said = dict(locals())
    for name in ("tracer_provider", "span_exporter", "sampler"):
        said.pop(name)
    settings = resolve(said)
    with _process.lock:
        previous = _process.runtime
        pipeline = _pipeline(settings, tracer_provider, span_exporter, sampler)
        if previous is not None:
            previous.retire()
        runtime = Runtime(settings, pipeline, _process.spans)
        _process.runtime = runtime
        process.watch(lambda: _process)
    return runtime


def current() -> Runtime | None:
    """Return the runtime of the last `configure()`, if it was ever called."""
    return _process.runtime


def flush(timeout: float = 30.0) -> bool:
    """Deliver every span that has ended (see `Runtime.flush`)."""
    runtime = current()
    return True if runtime is None else runtime.flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Deliver what there is and stop tracing (see `Runtime.shutdown`)."""
    runtime = current()
    return True if runtime is None else runtime.shutdown(timeout)


def open_spans() -> tuple[OpenSpan, ...]:
    """Return the spans of this process that are open now, oldest first."""
    return _process.spans.snapshot()


def _pipeline(
    settings: Settings,
    given: trace.TracerProvider | None,
    span_exporter: SpanExporter | None,
    sampler: sampling.Sampler | None,
) -> Pipeline:
    if settings.disabled:
        return NoPipeline("disabled", tracing.DISABLED)
    provider = trace.get_tracer_provider() if given is None else given
    if isinstance(provider, trace.ProxyTracerProvider | Provider):
        return OwnPipeline(settings, _process.spans, span_exporter, sampler)
    if isinstance(provider, sdk.TracerProvider):
        return AttachedPipeline(provider, _process.spans)
    safety.log_once(
        "configure: foreign provider",
        30,
        "The tracer provider in use, %s, is not OpenTelemetry's SDK: agenttrace "
        "traces through it, but cannot watch or correct its spans.",
        type(provider).__qualname__,
    )
    return NoPipeline("api", tracing.ApiTracer(provider.get_tracer("agenttrace")))


def _provider(
    registry: OpenSpans,
    sink: Callable[[Ended], None],
    who: Resource,
    sampler: sampling.Sampler | None,
    settings: Settings,
) -> Provider:
    """Return the one provider of this process with *sink* behind it."""
    as_error = frozenset(Outcome(word) for word in settings.error_outcomes)
    provider = _process.provider
    if provider is None:
        provider = Provider(
            registry, sink, resource=who, sampler=sampler, as_error=as_error
        )
        _process.provider = provider
        trace.set_tracer_provider(provider)
    else:
        provider.exchange(
            registry=registry,
            sink=sink,
            resource=who,
            sampler=sampler,
            as_error=as_error,
        )
    return provider


def _collected(span: OpenSpan) -> Ending:
    """Return the ending of a span whose object was collected without one."""
    found = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return Ending(
        Outcome.ABANDONED,
        EndedBy.GC,
        end_time=span.last_beat,
        attributes={semconv.DISCOVERED_AT: found},
    )


def _version() -> str:
    from agenttrace import __version__  # noqa: PLC0415 - the package is loaded by now

    return __version__
