"""What a runtime reports as metrics: to whose meter provider, and from when on.

To the one that is given, to the application's global one, or to one of our own where
OpenTelemetry's variables ask for metrics.  Ours is made on a thread of ours when the
first span has been open for a tick, or has ended: its libraries take longer to import
than all the rest.  It is not set globally: what an application measures itself goes
where the application says.

What the instruments are is `metrics`' business, where ours send to `meters`'.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.lazy import no_fork, no_fork_at_first
from agenttrace.runtime.pipelines import OwnPipeline, version
from agenttrace.runtime.process import PROCESS
from agenttrace.runtime.resource import resource_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import MeterProvider

    from agenttrace.metrics import Instruments
    from agenttrace.model import SpanData
    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.runtime.meters import OwnMeters
    from agenttrace.runtime.status import Status
    from agenttrace.runtime.ways import Pipeline
    from agenttrace.settings import Settings
    from agenttrace.watchdog.limits import Limits

_MOST: Final = 10_000
"""Final forms that wait to be observed, where nobody encodes them."""


class Measuring:
    """The metrics of one runtime (`metrics.Source`).

    Args:
        status: Returns the figures of the runtime.
        settings: Its settings.
        pipeline: How it traces.
        read: Returns whom some instruments are to speak for now.

    Attributes:
        instruments: Those that speak for it, once there are some.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        settings: Settings,
        pipeline: Pipeline,
        read: Callable[[object], Measuring | None],
    ) -> None:
        self.status = status
        self.instruments: Instruments | None = None
        self._settings = settings
        self._pipeline = pipeline
        self._limits: Limits | None = None
        self._read = read
        self._names: Sequence[str] = ()
        self._own: OwnMeters | None = None
        self._lock = threading.Lock()
        self._is_over = False
        self._waiting: deque[object] = deque(maxlen=_MOST)

    @property
    def spans(self) -> OpenSpans:
        """The registry."""
        return PROCESS.spans

    def silence_of(self, span: OpenSpan) -> int | None:
        """Return how long *span* may be silent, in nanoseconds; None = no limit."""
        if self._limits is None:
            with no_fork():
                from agenttrace.watchdog.limits import (  # noqa: PLC0415 - the ticker has it before
                    Limits,
                )
            said = self._settings
            self._limits = Limits(said.heartbeat_timeout, said.max_duration)
        return self._limits.silence_of(span)

    def begin(self, provider: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - a meter provider, of any make
        """Report to *provider*, or soon by exporters of ours.

        Args:
            provider: The application's, None where it has none.
            names: Of the exporters that are asked for.
        """
        if isinstance(self._pipeline, OwnPipeline):
            if self._pipeline.spooler is not None:
                self._pipeline.spooler.show_to(self.observe)
        elif self._pipeline.mode == "attached":
            PROCESS.spans.taps = (*PROCESS.spans.taps, self.take)
        if provider is not None:
            safety.guarded("metrics", self.report_to, provider)
        else:
            self._names = names

    def report_to(self, provider: MeterProvider) -> None:
        """Have the instruments of *provider* speak for this."""
        with no_fork():
            from agenttrace.metrics import (  # noqa: PLC0415 - most processes have no meters
                instruments_of,
            )
        self.instruments = instruments_of(
            provider, self._read, version=version(), spans=PROCESS.spans
        )

    def tick(self) -> None:
        """See to it that there are meters.  Called by the ticker."""
        if self.instruments is None:
            PROCESS.ticker.busy_with(self._see_to_meters)
        self.catch_up()

    def observe(self, spans: Sequence[SpanData]) -> None:
        """Take final forms.  Called by the thread that has encoded them."""
        self._see_to_meters()
        if self.instruments is not None:
            self.instruments.finals.observe(spans)

    def take(self, form: object) -> None:
        """Take the final form of a span of another provider's, on any thread."""
        self._waiting.append(form)

    def judged(self, span: OpenSpan, report: object, above: Sequence[OpenSpan]) -> None:
        """Take a verdict.  Called by the ticker."""
        if self.instruments is not None:
            self.instruments.finals.judged(span, report, above)

    def catch_up(self) -> None:
        """Observe what was taken so far."""
        if not self._waiting or self.instruments is None:
            return
        with no_fork_at_first("readable"):
            from agenttrace.delivery.readable import (  # noqa: PLC0415 - only where spans are another provider's
                from_readable,
            )
        taken: list[SpanData] = []
        while self._waiting:
            try:
                form: Any = self._waiting.popleft()
            except IndexError:  # another thread was faster
                break
            data = safety.guarded("metrics.take", from_readable, form)
            if data is not None:
                taken.append(data)
        safety.guarded("metrics.take", self.instruments.finals.observe, taken)

    def stop(self, timeout: float, *, is_last: bool) -> None:
        """Export what there is, if the provider is ours.

        Args:
            timeout: Longest wait in seconds.
            is_last: Whether the application's provider may still read the figures.
        """
        self._is_over = True
        taps = PROCESS.spans.taps
        PROCESS.spans.taps = tuple(tap for tap in taps if tap != self.take)
        own = self._own
        if own is not None:
            safety.guarded("metrics.stop", own.stop, timeout)
        if own is not None or not is_last:
            self.instruments = None

    def after_fork(self) -> None:
        """Count for a child process from nothing."""
        self._lock = threading.Lock()
        self._waiting.clear()
        if self.instruments is not None:
            self.instruments.finals.forget()
        if self._own is not None:
            # It says that it is the parent, and its thread is the parent's.
            self._own.abandon()
            self._names = self._own.names
            self._own = self.instruments = None

    def _see_to_meters(self) -> None:
        """Have meters of our own, where they are asked for.

        Whoever comes second waits: what it has to tell is to be counted.
        """
        if not self._names or self._is_over:
            return
        with self._lock:
            if self._names:
                safety.guarded("metrics.begin", self._make, self._names)
                self._names = ()  # once is enough, if it fails

    def _make(self, names: Sequence[str]) -> None:
        with no_fork():
            from agenttrace.runtime.meters import (  # noqa: PLC0415 - see the header
                OwnMeters,
            )
        who = self._pipeline.resource or resource_of(self._settings)
        self._own = own = OwnMeters(names, who)
        self.report_to(own.provider)
