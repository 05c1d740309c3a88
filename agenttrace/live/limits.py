"""How long a step of another process may be silent, and how long it may take.

A journal says what was said for the one span.  What a process has in its settings it
does not say: where the span has no limit of its own, the default of its operation is
shown.  Seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agenttrace.watchdog.limits import DEFAULTS, SILENT

if TYPE_CHECKING:
    from agenttrace.journal import Slot


def silence_of(slot: Slot) -> float | None:
    """Return the longest healthy silence of the span in *slot*; None = no limit."""
    own = slot.heartbeat_timeout
    if own is None:
        own = DEFAULTS.get(slot.operation or "", SILENT)
    return None if math.isinf(own) else own


def duration_of(slot: Slot) -> float | None:
    """Return the longest total time of the span in *slot*; None = no limit."""
    own = slot.max_duration
    return None if own is None or math.isinf(own) else own
