"""agenttrace's own figures as metrics of the application's meter provider.

The instruments are observable: nothing is counted for them and no thread runs, the
reader asks when it wants to know.  Which there are stands in one table,
`semconv.METRICS`, and says of each where the status of the runtime has its number.

OpenTelemetry takes no instrument back.  So each provider has them once, however often
somebody configures, and they fall silent when the runtime that they spoke for is gone.

Only the API is used.  Whether there is a provider, and what the status says, is the
runtime's business, which imports this where there is one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, cast

from opentelemetry.metrics import CallbackOptions, Observation

from agenttrace import safety, semconv

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

Callback = Callable[[CallbackOptions], Iterable[Observation]]
Read = Callable[[object], object]
"""Returns the status that the instruments it is given are to report, None for none."""
_NAME: Final = "agenttrace"

_made: list[tuple[Callable[[], object], Instruments]] = []


class Instruments:
    """The instruments of one provider.

    Args:
        provider: The provider.
        read: Where their numbers come from.
        version: Ours, for the instrumentation scope.
    """

    __slots__ = ("_read",)

    def __init__(self, provider: MeterProvider, read: Read, *, version: str) -> None:
        self._read = read
        meter = provider.get_meter(_NAME, version)
        make: Mapping[str, Callable[..., object]] = {
            "counter": meter.create_observable_counter,
            "updowncounter": meter.create_observable_up_down_counter,
        }
        for name, kind, unit, where, meaning in semconv.METRICS:
            make[kind](name, [self._callback(where)], unit=unit, description=meaning)

    def _callback(self, where: str) -> Callback:
        path = where.split(".")

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            value = safety.guarded("metrics.observe", self._value, path)
            return () if value is None else (Observation(value),)

        return observe

    def _value(self, path: Iterable[str]) -> int | None:
        """Return the number at *path* of the status; None where it has none."""
        found = self._read(self)
        for name in path:
            if found is None:
                return None
            found = _part(found, name)
        return found if isinstance(found, int) else None


def instruments_of(provider: MeterProvider, read: Read, *, version: str) -> Instruments:
    """Return the instruments of *provider*, made when they are first asked for.

    Args:
        provider: The application's.
        read: Where their numbers come from; the same for all.
        version: Ours, for the instrumentation scope.
    """
    for known, instruments in _made[:]:
        found = known()
        if found is provider:
            return instruments
        if found is None:
            _made.remove((known, instruments))
    made = Instruments(provider, read, version=version)
    _made.append((_reference_to(provider), made))
    return made


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
