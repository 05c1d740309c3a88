"""How a runtime traces: by our own provider, attached to another, or not at all.

What it is to be attached is `attached`'s business, which most processes never import.
"""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.environment_variables import (
    OTEL_PYTHON_TRACER_PROVIDER,
)

from agenttrace import safety, semconv, tracing
from agenttrace.delivery.spooler import Spooler, SpoolerStatus
from agenttrace.errors import SettingError
from agenttrace.lazy import no_fork
from agenttrace.model import Outcome
from agenttrace.runtime import checks, resource
from agenttrace.runtime.destinations import senders_of, timeout_of
from agenttrace.runtime.durability import Durability
from agenttrace.runtime.process import PROCESS
from agenttrace.settings import INSTANCES
from agenttrace.spans.provider import Ended, Provider, resource_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import sampling
    from opentelemetry.sdk.trace.export import SpanExporter

    from agenttrace.journal import Journal
    from agenttrace.model import SpanData
    from agenttrace.recovery import Recovered
    from agenttrace.registry import OpenSpans
    from agenttrace.runtime.ways import Pipeline
    from agenttrace.settings import Settings
    from agenttrace.watchdog.loops import LoopMonitor

_SHARE: Final = 4
"""What dead processes have left may take this part of the queue: it drops the oldest
where it is full, and those spans are not the ones that are to go.
"""


class LoopWatch:
    """The loop monitor of a pipeline, made at its first tick.

    Args:
        settings: As configured.
        registry: The open spans.
        emit: Returns what takes what is told; asked for when there is a monitor.
    """

    def __init__(
        self,
        settings: Settings,
        registry: OpenSpans,
        emit: Callable[[], Callable[[SpanData], None]],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._emit = emit
        self._is_on = not math.isinf(settings.loop_blocked_after)
        self._monitor: LoopMonitor | None = None

    def tick(self, journal: Journal | None) -> None:
        """Look at the loops once."""
        if self._is_on:
            if self._monitor is None:
                # Imported on the ticker's thread: a start has no time for it.
                with no_fork():
                    from agenttrace.runtime.monitoring import (  # noqa: PLC0415 - see above
                        loop_monitor,
                    )
                self._monitor = loop_monitor(
                    self._settings, self._registry, self._emit(), journal
                )
            self._monitor.tick()
            if not self._is_on:  # stopped meanwhile
                self._monitor.stop()

    def rest(self) -> None:
        """Tell what there is to tell."""
        if self._monitor is not None:
            self._monitor.rest()

    def stop(self) -> None:
        """Tell what there is to tell, and look no more."""
        self._is_on = False
        if self._monitor is not None:
            self._monitor.stop()

    def after_fork(self) -> None:
        """Begin anew in a child process."""
        if self._monitor is not None:
            self._monitor.after_fork()
            self._monitor = None


class Kept:
    """What a pipeline does beside sending: it watches loops, and keeps files.

    Attributes:
        _loops: The loops.
        _durability: The files; None where there are none.
    """

    _loops: LoopWatch
    _durability: Durability | None

    @property
    def journal(self) -> Journal | None:
        """Where open spans survive the process; None where they do not."""
        return None if self._durability is None else self._durability.journal

    def tick(self) -> None:
        """Look for siblings that have died, and for loops that are blocked."""
        # Apart: neither may keep the other from its work.
        safety.guarded("tick: loops", self._loops.tick, self.journal)
        if self._durability is not None:
            self._durability.tick()

    def rest(self) -> None:
        """Tell what there is to tell of loops, and of what was noticed."""
        self._loops.rest()
        if self._durability is not None:
            self._durability.rest()

    def recover(self, timeout: float) -> Recovered | None:
        """Deliver what dead processes have left."""
        if self._durability is None:
            return None
        return self._durability.recover(timeout)


class OwnPipeline(Kept):
    """Our provider, our spooler, our senders."""

    mode = "own"

    def __init__(
        self,
        settings: Settings,
        registry: OpenSpans,
        span_exporter: SpanExporter | None,
        sampler: sampling.Sampler | None,
    ) -> None:
        # What may be wrong comes before there are threads.
        checks.check_limits()
        who = resource.resource_of(settings)
        senders = senders_of(settings, span_exporter)
        self.destinations = tuple(senders)
        self.spooler: Spooler | None = None
        self._durability = None
        if senders and settings.durable:
            self._durability = Durability(
                settings.state_dir / INSTANCES,
                settings.max_queue_bytes // _SHARE,
                settings.limits,
            )
            self._durability.begin(resource_data(who))
        if senders:
            self.spooler = Spooler(
                tuple(senders.values()),
                max_bytes=settings.max_queue_bytes,
                timeout=timeout_of(senders),
                segments=self._durability.segments if self._durability else None,
            )
        self.provider = _provider(
            registry,
            self.spooler.put if self.spooler else _discard,
            who,
            sampler,
            settings,
        )
        self.provider.before_flush = self.flush
        self.provider.flush_timeout = settings.flush_timeout
        self._loops = LoopWatch(settings, registry, lambda: self.provider.tell)
        self._tracer = self.provider.get_tracer(semconv.SCOPE, version())
        if self._durability is not None and self.spooler is not None:
            self._durability.recover_with(self.spooler.resume)

    @property
    def resource(self) -> Resource:
        """Who this process is."""
        return self.provider.resource

    @property
    def tracer(self) -> tracing.Tracer:
        """A lean tracer; OTel's no-op one where the SDK is disabled."""
        lean: Any = self._tracer
        return lean if hasattr(lean, "begin") else tracing.DISABLED

    def flush(self, timeout: float) -> bool:
        """Deliver what has ended; True if all of it is acknowledged."""
        return self.spooler is None or self.spooler.flush(timeout)

    def stop(self, timeout: float) -> bool:
        """Flush, then end the threads; files that nobody needs any more go."""
        safety.guarded("loops.stop", self._loops.stop)
        if self._durability is not None:
            self._durability.stop()
        settled = self.spooler is None or self.spooler.shutdown(timeout)
        if self._durability is not None:
            self._durability.end(settled=settled)
        return settled

    def tell(self, form: SpanData) -> None:
        """Send *form*, a span that nobody has started, as this process's."""
        self.provider.tell(form)

    def after_fork(self) -> None:
        """Give the child a queue, threads and files of its own, another identity."""
        self.provider.set_resource(resource.of_this_process(self.provider.resource))
        self._loops.after_fork()
        if self._durability is not None:
            self._durability.after_fork(self.provider.resource_data)
        if self.spooler is not None:
            self.spooler.reset_after_fork()
            if self._durability is not None:
                self._durability.recover_later(self.spooler.resume)

    def status(self) -> SpoolerStatus | None:
        """Return queue and destinations; None where `none` was asked for."""
        return None if self.spooler is None else self.spooler.status()


class NoPipeline:
    """Tracing is disabled, or there is nothing to attach to."""

    destinations: tuple[str, ...] = ()
    journal = None
    resource = None

    def __init__(self, mode: str, tracer: tracing.Tracer) -> None:
        self.mode = mode
        self.tracer = tracer

    def flush(self, _timeout: float, /) -> bool:
        """Find nothing to deliver."""
        return True

    def stop(self, _timeout: float, /) -> bool:
        """Find nothing to stop."""
        return True

    def tell(self, form: SpanData, /) -> None:
        """Find nobody to send *form* to."""

    def tick(self) -> None:
        """Find nothing to do."""

    def rest(self) -> None:
        """Find nothing to do."""

    def recover(self, _timeout: float, /) -> Recovered | None:
        """Return None: there is no way out."""
        return None

    def after_fork(self) -> None:
        """Find nothing to begin anew."""

    def status(self) -> SpoolerStatus | None:
        """Return None: there is no queue."""
        return None


def choose(
    settings: Settings,
    given: trace.TracerProvider | None,
    span_exporter: SpanExporter | None,
    sampler: sampling.Sampler | None,
) -> Pipeline:
    """Return the pipeline for the provider that is given, set globally, or ours.

    Raises:
        SettingError: One of the arguments, or a variable, cannot be meant.
    """
    checks.need("tracer_provider", given, "TracerProvider", "get_tracer")
    checks.need("span_exporter", span_exporter, "SpanExporter", "export", "shutdown")
    checks.need("sampler", sampler, "Sampler", "should_sample")
    if settings.disabled:
        return NoPipeline("disabled", tracing.DISABLED)
    checks.check_propagators()
    provider = _global_provider() if given is None else given
    if isinstance(provider, trace.ProxyTracerProvider | Provider):
        return OwnPipeline(settings, PROCESS.spans, span_exporter, sampler)
    from agenttrace.spans.attached import (  # noqa: PLC0415 - most processes have no other provider
        sdk_provider,
    )

    behind = sdk_provider(provider)
    if isinstance(behind, Provider):
        return OwnPipeline(settings, PROCESS.spans, span_exporter, sampler)
    if behind is not None:
        checks.warn_of_ignored(behind, settings, span_exporter, sampler)
        from agenttrace.runtime.attached import (  # noqa: PLC0415 - most processes have no other provider
            AttachedPipeline,
        )

        return AttachedPipeline(
            provider, behind, PROCESS.spans, settings, version=version()
        )
    safety.log_once(
        "configure: foreign provider",
        logging.WARNING,
        "The tracer provider in use, %s, is not OpenTelemetry's SDK: agenttrace "
        "traces through it, but cannot watch or correct its spans.",
        type(provider).__qualname__,
    )
    return NoPipeline("api", tracing.ApiTracer(provider.get_tracer(semconv.SCOPE)))


def _global_provider() -> trace.TracerProvider:
    """Return OTel's global provider, which a variable may name.

    Raises:
        SettingError: It names none that can be loaded.
    """
    try:
        return trace.get_tracer_provider()
    except Exception as error:  # a StopIteration, or whatever loading one raises
        named = os.environ.get(OTEL_PYTHON_TRACER_PROVIDER, "")
        allowed = "the name of a tracer provider that is installed, or not set"
        raise SettingError(OTEL_PYTHON_TRACER_PROVIDER, named, allowed) from error


def _discard(ended: Ended) -> None:
    """Take a span that is to go nowhere (`OTEL_TRACES_EXPORTER=none`)."""
    ended.written()


def _provider(
    registry: OpenSpans,
    sink: Callable[[Ended], None],
    who: Resource,
    sampler: sampling.Sampler | None,
    settings: Settings,
) -> Provider:
    """Return the one provider of this process with *sink* behind it."""
    as_error = frozenset(Outcome(word) for word in settings.error_outcomes)
    provider = PROCESS.provider
    if provider is None:
        provider = Provider(
            registry, sink, resource=who, sampler=sampler, as_error=as_error
        )
        PROCESS.provider = provider
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


def version() -> str:
    """Return our version, for instrumentation scopes."""
    from agenttrace import __version__  # noqa: PLC0415 - the package is loaded by now

    return __version__
