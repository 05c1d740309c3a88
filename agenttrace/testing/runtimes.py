"""Runtimes for tests: one where there is none, and one that is a test's own.

Both leave behind what they found: the runtime that was current, what stood behind the
provider, the tracer in use and the policy on content.  What they cannot take back is
OpenTelemetry's global provider, which is set once in the life of a process, and the
safe runtime context, which does no harm.

Spans that are open when such a runtime goes stay open: whoever looks for leaks is to
find them.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace import _otel, content, noticed, safety, settings, tracing
from agenttrace.runtime import core
from agenttrace.runtime.process import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    from agenttrace.runtime import Runtime
    from agenttrace.spans.provider import Ended, Provider

_FLUSH_TIMEOUT: Final = 5.0


class Nowhere(SpanExporter):
    """Takes every span and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take *spans*."""
        del spans
        return SpanExportResult.SUCCESS


@dataclass(frozen=True, slots=True)
class FreshRuntime:
    """A test's own runtime.

    Attributes:
        runtime: The runtime.
        exporter: Where it delivers to, unless it was given another or is attached.
    """

    runtime: Runtime
    exporter: InMemorySpanExporter

    def exported(self) -> tuple[ReadableSpan, ...]:
        """Return what has been delivered by now, everything that ended included."""
        self.runtime.flush(_FLUSH_TIMEOUT)
        return tuple(self.exporter.get_finished_spans())


@contextmanager
def fresh_runtime(
    *,
    swallows: Collection[str] = (),
    **settings: Any,  # noqa: ANN401 - the arguments of `configure()`
) -> Generator[FreshRuntime]:
    """Configure a runtime that delivers into memory, and bring back what was there.

    agenttrace is strict meanwhile: what its guard would swallow is raised.

    Args:
        swallows: Sites at which the guard is expected to swallow something.  Then it
            does swallow, and every other site at which it did fails the test.
        settings: Arguments of `agenttrace.configure()`.

    Raises:
        AssertionError: The guard swallowed something at another site.
        SettingError: A setting cannot be meant.

    >>> import agenttrace
    >>> with fresh_runtime(service_name="test") as fresh:
    ...     with agenttrace.span("plan"):
    ...         pass
    ...     [span.name for span in fresh.exported()]
    ['plan']
    """
    exporter = InMemorySpanExporter()
    with _put_aside(), _strict(swallows):
        given: dict[str, Any] = {
            "span_exporter": exporter,
            "durable": False,
            # A machine that is slow now and then must not add a span to a test's.
            "loop_blocked_after": math.inf,
            "visible_after": math.inf,
            **settings,
        }
        runtime = core.configure(**given)
        yield FreshRuntime(runtime, exporter)


@contextmanager
def runtime_without_destination() -> Generator[Runtime]:
    """Return the runtime in use; where there is none, one that delivers nowhere.

    One that the application configures meanwhile stays.  Several may use the same at
    once; the last to leave retires it.
    """
    with _lending:
        found = core.current()
        if found is not None and found.is_running:
            runtime, lent = found, _lent.get(found)
        else:
            tracer, policy = tracing.installed, content.install(content.Policy())
            before = settings.use(None)
            try:
                runtime = core.configure(
                    span_exporter=Nowhere(),
                    durable=False,
                    loop_blocked_after=math.inf,
                    visible_after=math.inf,
                )
            except BaseException:  # a setting of the environment's that cannot be meant
                content.install(policy)
                settings.use(before)
                raise
            lent = _lent[runtime] = _Lent(found, tracer, policy, before)
        if lent is not None:
            lent.users += 1
    try:
        yield runtime
    finally:
        with _lending:
            if lent is not None:
                lent.users -= 1
                if not lent.users:
                    del _lent[runtime]
                    lent.take_back(runtime)


class _Lent:
    """What is to be as it was, when the last user of a runtime has left."""

    def __init__(
        self,
        found: Runtime | None,
        tracer: tracing.Tracer,
        policy: content.Policy,
        in_use: settings.Settings | None,
    ) -> None:
        self.users = 0
        self._before = found, tracer, policy, in_use

    def take_back(self, runtime: Runtime) -> None:
        """Retire *runtime*, unless the application has another one by now."""
        if core.current() is runtime:
            found, tracer, policy, in_use = self._before
            _retire(runtime)
            core.replace(found)
            tracing.install(tracer)
            content.install(policy)
            settings.use(in_use)


_lending: Final = threading.RLock()
_lent: Final[dict[Runtime, _Lent]] = {}


@contextmanager
def _put_aside() -> Generator[None]:
    """Keep everything that `configure()` would exchange, and put it back."""
    provider, limit = PROCESS.provider, PROCESS.spans.limit
    behind = None if provider is None else _Behind.of(provider)
    tracer, policy = tracing.installed, content.install(content.Policy())
    before = settings.use(None)
    found = core.replace(None)
    try:
        yield
    finally:
        runtime = core.replace(found)
        if runtime is not None:
            _retire(runtime)
        if PROCESS.provider is not None:
            behind = behind or _Behind.nothing(PROCESS.provider)
            behind.put(PROCESS.provider)
        PROCESS.spans.limit = limit
        tracing.install(tracer)
        content.install(policy)
        settings.use(before)


def _retire(runtime: Runtime) -> None:
    # The provider that it is attached to is not ours to wait for.
    runtime.retire(0.0 if runtime.status().mode == "attached" else None)


@dataclass(frozen=True, slots=True)
class _Behind:
    """What stands behind our provider, and who looks at its spans."""

    exchanged: Mapping[str, Any]
    before_flush: Callable[[float], bool] | None
    flush_timeout: float
    processors: tuple[SpanProcessor, ...]

    @classmethod
    def of(cls, provider: Provider) -> Self:
        """Return what is there now."""
        names = ("registry", "sink", "resource", "sampler", "as_error")
        return cls(
            {name: getattr(provider, name) for name in names},
            provider.before_flush,
            provider.flush_timeout,
            _otel.processors_of(provider),
        )

    @classmethod
    def nothing(cls, provider: Provider) -> Self:
        """Return what is to be there where nothing had ever been configured."""
        now = cls.of(provider)
        return cls({**now.exchanged, "sink": _discard}, None, now.flush_timeout, ())

    def put(self, provider: Provider) -> None:
        """Put it back behind *provider*."""
        provider.exchange(**self.exchanged)
        provider.before_flush = self.before_flush
        provider.flush_timeout = self.flush_timeout
        _otel.set_processors(provider, self.processors)
        provider.chain.processors = self.processors


def _discard(ended: Ended) -> None:
    """Take what ends where nothing is configured any more."""
    ended.written()


@contextmanager
def _strict(swallows: Collection[str]) -> Generator[None]:
    before = os.environ.get(safety.STRICT_VARIABLE)
    os.environ[safety.STRICT_VARIABLE] = "0" if swallows else "1"
    bring_back = safety.set_aside()
    put_back = noticed.set_aside()
    try:
        yield
    finally:
        hits = safety.guard_hits()
        bring_back()
        put_back()
        if before is None:
            del os.environ[safety.STRICT_VARIABLE]
        else:
            os.environ[safety.STRICT_VARIABLE] = before
    unexpected = sorted(hits.keys() - set(swallows))
    if unexpected:
        message = f"the guard swallowed something at {', '.join(unexpected)}"
        raise AssertionError(message)
