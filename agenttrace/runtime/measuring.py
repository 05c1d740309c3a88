"""What a runtime reports as metrics: to whose meter provider, and from when on.

To the one that is given, to the application's global one, or to one of our own where
OpenTelemetry's variables ask for metrics.  Ours is made when the first span has
been open for a tick, or has ended: its libraries take longer to import than all the
rest.  It is not set globally: what an application measures itself goes
where the application says.

What ends is counted where it is seen; what else is measured of it, and what is judged,
is only put down there, and measured by a thread that does nothing else.  A meter
provider is the application's, and may wait: neither delivery nor the watchdog does.

What the instruments are is `metrics`' business, where ours send to `meters`'.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.lazy import no_fork, no_fork_at_first
from agenttrace.model import SpanData
from agenttrace.runtime.pipelines import OwnPipeline, version
from agenttrace.runtime.process import PROCESS, left_until
from agenttrace.runtime.resource import resource_of
from agenttrace.watchdog.errands import Errands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import MeterProvider

    from agenttrace.metrics import Instruments
    from agenttrace.metrics.finals import Above
    from agenttrace.registry import OpenSpan, OpenSpans
    from agenttrace.runtime.meters import OwnMeters
    from agenttrace.runtime.status import Status
    from agenttrace.runtime.ways import Pipeline
    from agenttrace.settings import Settings
    from agenttrace.watchdog.limits import Limits

_THREAD: Final = "agenttrace-metrics"
_MOST: Final = 10_000
"""Final forms and verdicts that wait to be measured; what is more is dropped."""
_BATCH: Final = 512
_BATCHES: Final = 20
_PATIENCE: Final = 5.0
"""Seconds that a reader waits for what is being measured."""
_HUNG: Final = 30.0
"""Seconds after which a meter provider counts as hanging: what waits is dropped."""
_SHARE: Final = 0.25
_LONGEST_SHARE: Final = 5.0
"""What is kept of a shutdown's time for the last export, in seconds at most."""


class _Judged:
    """A verdict that waits to be measured."""

    __slots__ = ("above", "beat", "report", "span")

    def __init__(
        self, span: OpenSpan, report: object, above: Sequence[OpenSpan]
    ) -> None:
        self.span, self.report, self.above = span, report, above
        # Now: it may make progress before it is measured.
        self.beat = span.last_beat if span.is_open else None


class _Counted:
    """A final form that is counted, and of which more waits to be measured."""

    __slots__ = ("above", "span")

    def __init__(self, span: SpanData, above: Above) -> None:
        self.span, self.above = span, above


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
        # Twice as many: an append alone, by threads of the application, looks at none.
        self._waiting: deque[Any] = deque(maxlen=2 * _MOST)
        self._errands = _errands()

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
        if provider is None:
            self._names = names
            return
        safety.guarded("metrics", self.report_to, provider)
        if self.instruments is None:
            self._give_up()

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
        """See to what waits, and that there are meters.  Called by the ticker."""
        if self._names or self._is_behind:
            self._ask()

    def rest(self) -> None:
        """Have measured what waits: nothing may for long.  Called by the ticker."""
        if self._is_behind:
            self._ask()

    def observe(self, spans: Sequence[SpanData]) -> None:
        """Take final forms.  Called by the thread that has encoded them.

        Which counts them, where there is something to count with: to hand over what is
        measured of most spans would cost more than that.
        """
        instruments = self.instruments
        if instruments is None:
            self._waiting.extend(spans)
        else:
            self._waiting.extend(starmap(_Counted, instruments.finals.count(spans)))
        if self._names or len(self._waiting) >= _BATCH:
            self._ask()
        else:
            self._ask_at_rest()  # else it waits for the next tick, or for a reader

    def take(self, form: object) -> None:
        """Take the final form of a span of another provider's, on any thread."""
        self._waiting.append(form)
        self._ask_at_rest()

    def judged(self, span: OpenSpan, report: object, above: Sequence[OpenSpan]) -> None:
        """Take a verdict.  Called by the ticker."""
        self._waiting.append(_Judged(span, report, above))
        self._ask()

    def catch_up(self) -> None:
        """Have measured what was taken so far.  Waits a little for that."""
        if self._is_behind:
            self._ask()
        self._errands.finish(_PATIENCE)

    def share_of(self, timeout: float) -> float:
        """Return what of the *timeout* seconds of a shutdown is for the last export.

        A backend for spans that is away takes all the rest; figures that stay as they
        are look like those of a process that has died.
        """
        is_ours = self._own is not None or self._names
        return min(timeout * _SHARE, _LONGEST_SHARE) if is_ours else 0.0

    def stop(self, timeout: float, *, is_last: bool) -> None:
        """Export what there is, if the provider is ours.

        Args:
            timeout: Longest wait in seconds.
            is_last: Whether the application's provider may still read the figures.
        """
        deadline = time.monotonic() + timeout
        self._errands.ask("metrics", self._finish)
        self._errands.finish(timeout - self.share_of(timeout))
        with self._lock:
            self._is_over = True
            own = self._own
        self._look_away()
        if own is not None:
            safety.guarded("metrics.stop", own.stop, left_until(deadline))
        if own is not None or not is_last:
            self.instruments = None

    def after_fork(self) -> None:
        """Count for a child process from nothing."""
        self._lock = threading.Lock()
        self._errands = _errands()
        self._waiting.clear()
        if self.instruments is not None:
            self.instruments.finals.forget()
        if self._own is not None:
            # It says that it is the parent, and its thread is the parent's.
            self._own.after_fork()
            self._names = self._own.names
            self._own = self.instruments = None

    @property
    def _is_behind(self) -> bool:
        instruments = self.instruments
        is_to_settle = instruments is not None and instruments.finals.is_waiting
        return bool(self._waiting) or is_to_settle

    def _ask_at_rest(self) -> None:
        """Have measured what waits if nobody else will: the ticker has gone to sleep.

        What waits is content, and the next span may open in hours.
        """
        if self._waiting and not PROCESS.spans.awake:
            self._ask()

    def _ask(self) -> None:
        """Have measured what waits, on the thread that does that."""
        waiting = len(self._waiting)
        if waiting and self._errands.is_hung:
            self._drop(waiting)
        elif waiting > _MOST:
            self._drop(waiting - _MOST)
        self._errands.ask_once("metrics", self._measure)

    def _drop(self, count: int) -> None:
        for dropped in range(count):
            try:
                self._waiting.popleft()
            except IndexError:  # another thread was faster
                count = dropped
                break
        safety.count(safety.Count.MEASUREMENTS_DROPPED, count)

    def _measure(self) -> None:
        """Measure what waits.  Called by one thread at a time."""
        self._see_to_meters()
        instruments = self.instruments
        if instruments is None:
            self._waiting.clear()
            return
        finals = instruments.finals
        for _ in range(_BATCHES):
            if not self._waiting:
                break
            forms, counted, judged = self._next()
            # In this order: a run that ends after a verdict has hung.
            safety.guarded("metrics.take", finals.observe, forms)
            for each in counted:
                finals.measure(each.span, each.above)
            if judged is not None:
                safety.guarded(
                    "metrics.judged",
                    finals.judged,
                    judged.span,
                    judged.report,
                    judged.above,
                    judged.beat,
                )
        finals.settle()
        if self._waiting:
            self._ask()  # by another call: none takes so long that it seems to hang

    def _next(self) -> tuple[list[SpanData], list[_Counted], _Judged | None]:
        """Return what waits up to the next verdict, and that.

        Returns:
            Final forms, those that are counted already, and the verdict.
        """
        forms: list[SpanData] = []
        counted: list[_Counted] = []
        for _ in range(_BATCH):
            try:
                item = self._waiting.popleft()
            except IndexError:
                break
            if isinstance(item, _Counted):
                counted.append(item)
            elif isinstance(item, _Judged):
                return forms, counted, item
            elif (data := _read(item)) is not None:
                forms.append(data)
        return forms, counted, None

    def _finish(self) -> None:
        """Measure what waits, and wait for nothing more."""
        self._measure()
        while self._waiting:
            self._measure()
        if self.instruments is not None:
            self.instruments.finals.settle(is_last=True)

    def _see_to_meters(self) -> None:
        """Have meters of our own, where they are asked for."""
        if not self._names or self._is_over:
            return
        if not self._waiting and not len(PROCESS.spans):
            return  # there is nothing to tell of, and perhaps there never will be
        with no_fork():  # also what is made: a child could not stop the half of it
            safety.guarded("metrics.begin", self._make, self._names)
            self._names = ()  # once is enough, if it fails
        if self.instruments is None:
            self._give_up()

    def _make(self, names: Sequence[str]) -> None:
        from agenttrace.runtime.meters import (  # noqa: PLC0415 - see the header
            OwnMeters,
        )

        who = self._pipeline.resource or resource_of(self._settings)
        own = OwnMeters(names, who)
        try:
            with self._lock:
                if not self._is_over:
                    self.report_to(own.provider)
                    self._own = own
        finally:
            if self._own is not own:
                own.stop(0)

    def _give_up(self) -> None:
        """Keep nothing for meters that there are not going to be."""
        self._look_away()
        self._waiting.clear()

    def _look_away(self) -> None:
        """Be shown nothing more."""
        if isinstance(self._pipeline, OwnPipeline) and self._pipeline.spooler:
            self._pipeline.spooler.show_to(None)
        taps = PROCESS.spans.taps
        PROCESS.spans.taps = tuple(tap for tap in taps if tap != self.take)


def _errands() -> Errands:
    return Errands(_THREAD, patience=_HUNG)


def _read(form: Any) -> SpanData | None:  # noqa: ANN401 - a span of any make
    if isinstance(form, SpanData):
        return form
    with no_fork_at_first("readable"):
        from agenttrace.delivery.readable import (  # noqa: PLC0415 - only where spans are another provider's
            from_readable,
        )
    return safety.guarded("metrics.take", from_readable, form)
