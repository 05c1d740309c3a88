"""The runtime: what `configure()` builds, and what the module-level verbs delegate to.

How it traces is its pipeline's business (`pipelines`); what there is one of in a
process, and forks and exits, are `process`'s.  Calling `configure()` again exchanges
the runtime; spans that are open stay open.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, Self

# Before anything of ours: while it is imported, it may import our runtime context.
import opentelemetry.context  # noqa: F401  # pyright: ignore[reportUnusedImport] - see above

from agenttrace import _otel, content, safety, tracing
from agenttrace.clock import COARSE
from agenttrace.context import scope
from agenttrace.lazy import no_fork
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.runtime import checks
from agenttrace.runtime.neighbours import warn_of_foreign_distributions
from agenttrace.runtime.pipelines import choose
from agenttrace.runtime.process import PROCESS, left_until
from agenttrace.runtime.status import nothing_recovered, status_of
from agenttrace.settings import Settings, resolve, use

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from opentelemetry import metrics, trace
    from opentelemetry.sdk.trace import sampling
    from opentelemetry.sdk.trace.export import SpanExporter

    from agenttrace.recovery import Recovered
    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.runtime.heartbeats import HeartbeatLogs
    from agenttrace.runtime.measuring import Measuring
    from agenttrace.runtime.status import Status
    from agenttrace.runtime.ways import Pipeline
    from agenttrace.watchdog.verdict import Report
    from agenttrace.watchdog.watch import Watchdog

_EXIT: Final = "its process ended while it was open"


class Runtime:
    """A configured agenttrace, made by `configure()`.

    A context manager that shuts itself down.

    Attributes:
        settings: What it was configured with.
        spans: The registry of open spans.
        measuring: What it reports as metrics, None where there is nobody to report to.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        spans: OpenSpans,
        heartbeats: HeartbeatLogs | None = None,
    ) -> None:
        self.settings = settings
        self.spans = spans
        self._pipeline = pipeline
        self._heartbeats = heartbeats
        self._stopped = False
        self.measuring: Measuring | None = None
        self._watchdog: Watchdog | None = None
        self._policy = content.Policy(
            settings.capture_content, settings.redact, settings.max_content_characters
        )
        self._safe = False
        if pipeline.mode != "disabled":
            spans.limit = settings.max_open_spans
            self._safe = settings.safe_context and scope.install()
        content.install(self._policy)
        use(settings)
        tracing.install(pipeline.tracer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def flush_timeout(self) -> float:
        """Seconds that exit waits for delivery."""
        return self.settings.flush_timeout

    @property
    def is_running(self) -> bool:
        """Whether it has been neither shut down nor replaced."""
        return not self._stopped

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
        deadline = time.monotonic() + timeout
        PROCESS.sweep()
        told = PROCESS.finish_errands(timeout)
        return self._pipeline.flush(left_until(deadline)) and told

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
        timeout = self.flush_timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        PROCESS.sweep()
        for span in self.spans.snapshot():
            self.spans.judge(span, Ending(Outcome.LOST, EndedBy.EXIT, message=_EXIT))
        told = PROCESS.finish_errands(left_until(deadline), self._pipeline.journal)
        if self._heartbeats is not None:
            self._heartbeats.stop(left_until(deadline))
        left = left_until(deadline)
        kept = 0.0 if self.measuring is None else self.measuring.share_of(left)
        delivered = self._pipeline.stop(left - kept) and told
        if self.measuring is not None:
            # At exit the last figures are still to be read.
            self.measuring.stop(left_until(deadline), is_last=PROCESS.is_exiting)
        if current() is self:
            tracing.install(None)
            content.install(content.Policy())
            use(None)
        return delivered

    def retire(self, timeout: float | None = None) -> None:
        """Make room for another runtime: deliver, but leave open spans open.

        Args:
            timeout: Longest wait in seconds; None = `flush_timeout`.
        """
        if not self._stopped:
            self._stopped = True
            timeout = self.flush_timeout if timeout is None else timeout
            deadline = time.monotonic() + timeout
            PROCESS.finish_errands(timeout)
            if self._heartbeats is not None:
                self._heartbeats.stop(left_until(deadline))
            self._pipeline.stop(left_until(deadline))
            if self.measuring is not None:
                self.measuring.stop(left_until(deadline), is_last=False)

    def recover(self, timeout: float = 30.0) -> Recovered:
        """Deliver what processes that died have left in the same state directory.

        `configure()` begins with that by itself, and looks again now and then.

        Args:
            timeout: Longest wait for delivery in seconds; it goes on afterwards.

        Returns:
            What was found since `configure()`.
        """
        return self._pipeline.recover(timeout) or nothing_recovered()

    def measure(self, provider: object, exporters: Sequence[str]) -> None:
        """Report to *provider*, or by exporters of ours where there is none."""
        from agenttrace.runtime import measuring  # noqa: PLC0415 - most have no meters

        self.measuring = measuring.Measuring(
            self.status, self.settings, self._pipeline, _speaking
        )
        self.measuring.begin(provider, exporters)

    def tick(self) -> None:
        """Do what is to be done now and then while spans are open."""
        # Apart: neither may keep the other from its work.
        safety.guarded("tick: pipeline", self._pipeline.tick)
        if self.measuring is not None:
            safety.guarded("tick: metrics", self.measuring.tick)
        if self._heartbeats is not None:
            safety.guarded("tick: heartbeats", self._heartbeats.tick, self._pipeline)
        self.judge(time.monotonic_ns())

    @property
    def is_behind(self) -> bool:
        """Whether tasks of what was judged are still to be cancelled."""
        return not self._stopped and bool(self._watchdog and self._watchdog.is_behind)

    def judge(self, steady: int) -> None:
        """Have the watchdog look, if it does, at what is due (see `Watchdog.tick`)."""
        if self.settings.watches and not self._stopped:
            PROCESS.ticker.busy_with(partial(self._watch().tick, COARSE.now, steady))

    def _watch(self) -> Watchdog:
        """Return the watchdog, made when the first span has been open for a tick."""
        if self._watchdog is None:
            with no_fork():
                from agenttrace.runtime import watching  # noqa: PLC0415 - see there
            self._watchdog = watching.watchdog_of(
                self.settings, self.spans, PROCESS.errands, self._pipeline.tell, _note
            )
        return self._watchdog

    def rest(self) -> None:
        """Do what is to be done when no span is open any more."""
        self._pipeline.rest()
        for each in (self.measuring, self._heartbeats):
            if each is not None:
                each.rest()
        if self._watchdog is not None:  # it has no lock: it is for one thread at a time
            PROCESS.ticker.unless_paused(self._watchdog.rest)

    def after_fork(self) -> None:
        """Be the runtime of a child process."""
        self._watchdog = None
        for each in (self.measuring, self._heartbeats):
            if each is not None:
                each.after_fork()
        self._pipeline.after_fork()

    def status(self) -> Status:
        """Return what this runtime is and has done."""
        return status_of(self._pipeline, self.spans, safe_context=self._safe)


_current: Runtime | None = None


def configure(  # noqa: PLR0913 - one keyword a setting, all optional
    *,
    service_name: str | None = None,
    resource_attributes: Mapping[str, object] | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    span_exporter: SpanExporter | None = None,
    sampler: sampling.Sampler | None = None,
    heartbeat_timeout: float | Mapping[str, float] | None = None,
    max_duration: float | Mapping[str, float] | None = None,
    on_stuck: str | None = None,
    stuck_hooks: Iterable[Callable[[Report], object]] | None = None,
    visible_after: float | None = None,
    heartbeat_logs_every: float | None = None,
    state_dir: str | None = None,
    durable: bool | None = None,
    on_abandon: str | None = None,
    on_sigterm: str | None = None,
    continue_trace: bool | None = None,
    safe_context: bool | None = None,
    capture_content: bool | None = None,
    redact: Callable[[str, object], object] | None = None,
    max_content_characters: int | None = None,
    vendor_export: bool | None = None,
    error_outcomes: Collection[str] | None = None,
    loop_blocked_after: float | None = None,
    gil_dump_after: float | None = None,
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
        meter_provider: Where our own metrics go; default the global one, if one is set.
        span_exporter: Send spans with this exporter instead.
        sampler: Which traces are recorded; default `OTEL_TRACES_SAMPLER`.
        heartbeat_timeout: Longest healthy silence of a span, in seconds: one number, or
            by operation and name (`{"chat": 60, "invoke_agent:triage": 900}`).
        max_duration: Longest total time of a span, in the same way.
        on_stuck: What happens when either passes: `off`, `observe`, `warn`, `fail` or
            `cancel`.
        stuck_hooks: Called with the report of each.
        visible_after: Seconds until a marker shows an open span; `math.inf` = never.
        heartbeat_logs_every: Seconds between two log records of an open span.
        state_dir: Where agenttrace keeps its files.
        durable: Keep open and unsent spans in files that survive the process.
        on_abandon: `observe` or `cancel` a streamed run that nobody listens to.
        on_sigterm: `default` leaves SIGTERM alone, `flush` delivers first.
        continue_trace: Continue the trace that `TRACEPARENT` in the environment is of.
        safe_context: Make OTel's context tokens safe to detach anywhere.
        capture_content: Capture prompts, outputs, arguments and results.
        redact: Called with key and value of all content before it is kept.
        max_content_characters: Longest captured content.
        vendor_export: Whether instrumented SDKs go on sending traces to their vendor.
        error_outcomes: Which of `cancelled`, `abandoned` the OTel status calls ERROR.
        loop_blocked_after: Seconds that one callback may block an event loop untold.
        gil_dump_after: Seconds that C code may keep the GIL; by default for ever.
        max_open_spans: Open spans that are watched.
        flush_timeout: Longest that exit waits for delivery, in seconds.
        max_queue_bytes: Encoded spans kept while no backend takes them.
        max_store_bytes: Size of the embedded store.
        disabled: Trace nothing and patch nothing.

    Raises:
        SettingError: A setting cannot be meant; the message says what it may be.
    """
    said = dict(locals())
    for name in ("tracer_provider", "meter_provider", "span_exporter", "sampler"):
        said.pop(name)
    checks.need("meter_provider", meter_provider, "MeterProvider", "get_meter")
    settings = resolve(said)
    global _current  # noqa: PLW0603 - one runtime is the current one
    with PROCESS.lock:
        meters = meter_provider or _otel.meter_provider()
        exporters = checks.metric_exporters(settings, meters)
        heartbeats = checks.heartbeat_logs(settings, PROCESS.spans)
        pipeline = choose(settings, tracer_provider, span_exporter, sampler)
        if _current is not None:
            _current.retire()
        _current = runtime = Runtime(settings, pipeline, PROCESS.spans, heartbeats)
        PROCESS.enter(runtime)
        if not settings.disabled and (meters is not None or exporters):
            runtime.measure(meters, exporters)
        if settings.on_sigterm == "flush":
            PROCESS.flush_on_sigterm()
    if settings.continue_trace and not settings.disabled:
        from agenttrace.context import environment  # noqa: PLC0415 - few are asked to

        environment.continue_environment()
    warn_of_foreign_distributions()
    return runtime


def _speaking(instruments: object) -> Measuring | None:
    """Return whom *instruments* speak for; None where they have had their time."""
    found = None if _current is None else _current.measuring
    return found if found is not None and found.instruments is instruments else None


def _note(span: OpenSpan, report: Report, above: Sequence[OpenSpan]) -> None:
    if _current is not None and _current.measuring is not None:
        _current.measuring.judged(span, report, above)


def current() -> Runtime | None:
    """Return the runtime of the last `configure()`, if it was ever called."""
    return _current


def replace(runtime: Runtime | None) -> Runtime | None:
    """Make *runtime* the current one and return the one before it.

    Neither is started or stopped: `agenttrace.testing` puts runtimes aside this way,
    and brings them back.
    """
    global _current
    with PROCESS.lock:
        previous, _current = _current, runtime
        PROCESS.lives = runtime
    return previous


def flush(timeout: float = 30.0) -> bool:
    """Deliver every span that has ended (see `Runtime.flush`)."""
    return _current is None or _current.flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Deliver what there is and stop tracing (see `Runtime.shutdown`)."""
    return _current is None or _current.shutdown(timeout)


def recover(timeout: float = 30.0) -> Recovered:
    """Deliver what processes that died have left (see `Runtime.recover`)."""
    return nothing_recovered() if _current is None else _current.recover(timeout)


def open_spans() -> tuple[OpenSpan, ...]:
    """Return the spans of this process that are open now, oldest first."""
    return PROCESS.spans.snapshot()
