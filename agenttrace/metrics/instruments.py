"""The instruments of a meter provider, and where their numbers come from.

Which there are stands in two tables, `semconv.metrics`.  Most are observable: nothing
is counted for them and no thread runs, the reader asks when it wants to know.

OpenTelemetry takes no instrument back.  So each provider has them once, however often
somebody configures, and they fall silent when the runtime that they spoke for is gone.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from opentelemetry.metrics import CallbackOptions, Observation

from agenttrace import safety
from agenttrace.metrics.bounded import Bounded
from agenttrace.metrics.finals import Finals
from agenttrace.metrics.open_work import OpenWork, Work
from agenttrace.semconv import SCOPE, metrics
from agenttrace.semconv.metrics import MEASURES, METRICS

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider

    from agenttrace.registry import OpenSpans

Callback = Callable[[CallbackOptions], Iterable[Observation]]
_KINDS: Final = {
    "counter": "create_observable_counter",
    "updowncounter": "create_observable_up_down_counter",
    "gauge": "create_observable_gauge",
}
_OF_OPEN_WORK: Final = (
    metrics.SPANS_OPEN,
    metrics.SPANS_STUCK,
    metrics.SPANS_IDLE,
    metrics.SPANS_IDLE_LIMIT,
)
_RECORDED: Final = (
    metrics.STALLS,
    metrics.STALL_DURATION,
    metrics.BLOCK_DURATION,
    metrics.CALL_DURATION,
    metrics.TOKEN_USAGE,
    metrics.TIME_TO_FIRST_CHUNK,
)


class Source(Work, Protocol):
    """What instruments speak for: a runtime."""

    def status(self) -> object:
        """Return the figures of `METRICS`."""
        ...

    def catch_up(self) -> None:
        """Have observed what has ended so far."""
        ...


Read = Callable[[object], Source | None]
"""Returns whom the instruments it is given are to speak for, None for nobody."""

_made: list[tuple[Callable[[], object], Instruments]] = []


class Instruments:
    """The instruments of one provider.

    Args:
        provider: The provider.
        read: Where their numbers come from.
        version: Ours, for the instrumentation scope.
        spans: The registry of this process.
    """

    def __init__(
        self, provider: MeterProvider, read: Read, *, version: str, spans: OpenSpans
    ) -> None:
        self._read = read
        self._bounded = Bounded()
        meter = provider.get_meter(SCOPE, version)
        for name, kind, unit, where, meaning in METRICS:
            make = getattr(meter, _KINDS[kind])
            callback = self._callback(partial(self._figure, where.split(".")))
            make(name, [callback], unit=unit, description=meaning)
        record = {name: _recorder(meter, name) for name in _RECORDED}
        self.finals = Finals(self._bounded, record, spans)
        finals = self.finals
        self._work = OpenWork(
            self._bounded, finals.steps, finals.observed, finals.begin
        )
        for name in _OF_OPEN_WORK:
            self._observable(meter, name, partial(self._open, name))
        self._observable(meter, metrics.PROCESS_HEARTBEAT, _now)
        self._observable(meter, metrics.SPANS_ENDED, self._ended)
        self._observable(meter, metrics.RUNS, self._runs)

    def _observable(
        self, meter: Meter, name: str, read: Callable[[Source], Iterable[Observation]]
    ) -> None:
        kind, unit, _, _, meaning = MEASURES[name]
        make = getattr(meter, _KINDS[kind])
        make(name, [self._callback(read)], unit=unit, description=meaning)

    def _callback(self, read: Callable[[Source], Iterable[Observation]]) -> Callback:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return safety.guarded("metrics.observe", self._observed, read) or ()

        return observe

    def _observed(
        self, read: Callable[[Source], Iterable[Observation]]
    ) -> Iterable[Observation]:
        source = self._read(self)
        return () if source is None else read(source)

    def _figure(self, path: Iterable[str], source: Source) -> Iterable[Observation]:
        """Return the number at *path* of the status, if it has one."""
        found = source.status()
        for name in path:
            if found is None:
                return ()
            found = _part(found, name)
        return (Observation(found),) if isinstance(found, int) else ()

    def _open(self, name: str, source: Source) -> list[Observation]:
        source.catch_up()
        return [Observation(*each) for each in self._work.read(name, source)]

    def _ended(self, source: Source) -> list[Observation]:
        source.catch_up()
        return [Observation(*each) for each in self.finals.ended()]

    def _runs(self, source: Source) -> list[Observation]:
        source.catch_up()
        return [Observation(*each) for each in self.finals.runs()]


def instruments_of(
    provider: MeterProvider, read: Read, *, version: str, spans: OpenSpans
) -> Instruments:
    """Return the instruments of *provider*, made when they are first asked for.

    Args:
        provider: The application's, or ours.
        read: Where their numbers come from; the same for all.
        version: Ours, for the instrumentation scope.
        spans: The registry of this process.
    """
    for known, instruments in _made[:]:
        found = known()
        if found is provider:
            return instruments
        if found is None:
            _made.remove((known, instruments))
    made = Instruments(provider, read, version=version, spans=spans)
    _made.append((_reference_to(provider), made))
    return made


def _recorder(meter: Meter, name: str) -> Any:  # noqa: ANN401 - `add` or `record`, which are alike
    kind, unit, _, boundaries, meaning = MEASURES[name]
    if kind == "counter":
        return meter.create_counter(name, unit, meaning).add
    return meter.create_histogram(
        name, unit, meaning, explicit_bucket_boundaries_advisory=list(boundaries)
    ).record


def _now(_source: Source) -> Iterable[Observation]:
    return (Observation(time.time()),)


def _part(whole: object, name: str) -> object:
    if isinstance(whole, Mapping):
        return cast("Mapping[str, object]", whole)[name]
    part: object = getattr(whole, name)
    return part


def _reference_to(provider: object) -> Callable[[], object]:
    try:
        return weakref.ref(provider)
    except TypeError:  # its class has slots, and none for that
        return lambda: provider
