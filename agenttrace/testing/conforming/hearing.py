"""Hears what nobody would: logs, what cannot be raised, what is said too late."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agenttrace.spans.lean import LeanSpan

if TYPE_CHECKING:
    from collections.abc import Generator

_AFTER_THE_END: Final = {
    "end": "ended a second time",
    "set_status": "given a status after its end, which is lost",
    "record_exception": "given an exception after its end, which is lost",
}


class _Hearing(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().partition("\n")[0]
        self._heard.append(f"{record.name} logs: {message}")


@contextmanager
def listening() -> Generator[list[str]]:
    """Collect what OpenTelemetry and agenttrace log, and what nobody could raise."""
    heard: list[str] = []
    handler = _Hearing(heard)
    loggers = [logging.getLogger(name) for name in ("opentelemetry", "agenttrace")]
    hook = sys.unraisablehook

    def note(what: sys.UnraisableHookArgs) -> None:
        # What Python says of a coroutine that ends in the middle, or never began.
        if not isinstance(what.exc_value, RuntimeError | RuntimeWarning | None):
            heard.append(f"raised where nobody could catch it: {what.exc_value!r}")

    sys.unraisablehook = note
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield heard
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def counting_ends() -> Generator[list[str]]:
    """Collect what is done to spans that have ended: that it is, nothing else shows."""
    found: list[str] = []
    owners = {
        name: next(each for each in LeanSpan.__mro__ if name in vars(each))
        for name in _AFTER_THE_END
    }
    originals = {name: vars(owner)[name] for name, owner in owners.items()}

    def watched(name: str, original: Any) -> Any:  # noqa: ANN401 - a method of any span
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the same
            if self.end_time is not None:
                found.append(f"{_AFTER_THE_END[name]}: {self.name!r}")
            return original(self, *args, **kwargs)

        return method

    for name, original in originals.items():
        setattr(owners[name], name, watched(name, original))
    try:
        yield found
    finally:
        for name, original in originals.items():
            setattr(owners[name], name, original)
