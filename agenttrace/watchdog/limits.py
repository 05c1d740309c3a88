"""How long a span may be silent, and how long it may take.

The first of these that says something counts: what was said for this one span (or by
the decorator), what the settings say for its operation and name, for its operation, or
for all; the default of its operation.  What an instrumentation knows of a request comes
in between: `Usual` gives way to the settings, `AtLeast` only lengthens.

Whether a limit has passed is a matter of `rules`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import semconv
from agenttrace.registry import AtLeast, Usual

if TYPE_CHECKING:
    from agenttrace.settings import Limit

SILENT: Final = 300.0
"""Seconds that anything may be silent for which the table has no other number."""
DEFAULTS: Final[Mapping[str, float]] = {
    semconv.EMBEDDINGS: 60.0,
    semconv.RETRIEVAL: 60.0,
}
"""Seconds by operation."""


class Limited(Protocol):
    """What is asked of a span for its limits."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def operation(self) -> str | None:
        """Its operation, None where it has none."""
        ...

    @property
    def heartbeat_timeout(self) -> float | None:
        """What was said for it alone, in seconds, None where nothing was."""
        ...

    @property
    def max_duration(self) -> float | None:
        """The same for its total time."""
        ...


class Limits:
    """The limits of every span.

    Args:
        heartbeat_timeout: The setting of that name.
        max_duration: The setting of that name.

    Attributes:
        shortest: The shortest that a span has which says none itself, in nanoseconds.
    """

    __slots__ = ("_duration", "_silence", "shortest")

    def __init__(
        self, heartbeat_timeout: Limit = None, max_duration: Limit = None
    ) -> None:
        self._silence = heartbeat_timeout
        self._duration = max_duration
        in_question = [*DEFAULTS.values(), SILENT]
        for setting in (heartbeat_timeout, max_duration):
            if isinstance(setting, Mapping):
                in_question += setting.values()
            elif setting is not None:
                in_question.append(setting)
        self.shortest = int(min(in_question) * 1e9)

    def silence_of(self, span: Limited) -> int | None:
        """Return the longest healthy silence in nanoseconds; None = no limit."""
        own = span.heartbeat_timeout
        kind = type(own)
        if own is None or kind is Usual or kind is AtLeast:
            seconds = _set_for(span, self._silence)
            if seconds is None:
                usual = own if kind is Usual else None
                seconds = usual or DEFAULTS.get(span.operation or "", SILENT)
            if kind is AtLeast and own is not None:
                seconds = max(seconds, own)
        else:
            seconds = own
        return _nanoseconds(seconds)

    def duration_of(self, span: Limited) -> int | None:
        """Return the longest total time in nanoseconds; None = no limit."""
        own = span.max_duration
        return _nanoseconds(_set_for(span, self._duration) if own is None else own)


def _set_for(span: Limited, setting: Limit) -> float | None:
    """Return what *setting* says for *span*; None where it says nothing."""
    if setting is None or not isinstance(setting, Mapping):
        return setting
    operation = span.operation or ""
    # By the conventions a name begins with the operation, which is known by then.
    name = span.name.removeprefix(f"{operation} ")
    seconds = setting.get(f"{operation}:{name}")
    return setting.get(operation) if seconds is None else seconds


def _nanoseconds(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    nanoseconds = seconds * 1e9  # without end also where that is more than a float has
    return int(nanoseconds) if math.isfinite(nanoseconds) else None
