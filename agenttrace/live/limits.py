"""How long a step of another process may be silent, and how long it may take.

A journal says what was said for the one span, and what its process has in its settings.
It does not say whether the former is what an instrumentation knows of a request, to
which settings are preferred: it is shown as if it were said for the span.  Seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace.journal.resources import limits_from
from agenttrace.watchdog.limits import Limits

if TYPE_CHECKING:
    from agenttrace.journal import Slot

USUAL: Final = Limits()
"""Those of a process that has no settings for them."""
_SECOND: Final = 1_000_000_000


def limits_of(resource: bytes) -> Limits:
    """Return the limits of the process whose journal has *resource* in its header."""
    return Limits(*limits_from(resource))


def silence_of(slot: Slot, limits: Limits) -> float | None:
    """Return the longest healthy silence of the span in *slot*; None = no limit."""
    return _seconds(limits.silence_of(slot))


def duration_of(slot: Slot, limits: Limits) -> float | None:
    """Return the longest total time of the span in *slot*; None = no limit."""
    return _seconds(limits.duration_of(slot))


def _seconds(nanoseconds: int | None) -> float | None:
    # As they were set: cut off to nanoseconds, 2.01 would be 2.009999999.
    return None if nanoseconds is None else round(nanoseconds / _SECOND, 8)
