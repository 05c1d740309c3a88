"""The ids and the instants that spans are given."""

from __future__ import annotations

import os
import random
import time
from typing import Any, Final

from agenttrace import safety

LAST_INSTANT: Final = (1 << 64) - 1
"""The last nanosecond since the epoch that OTLP can carry."""

# Our own generator: `random.seed(0)` in the application must not repeat our ids.
_random: Final = random.Random()  # noqa: S311 - ids are not secrets
random_bits: Final = _random.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def instant(given: Any) -> int:  # noqa: ANN401 - whatever the caller took for a time
    """Return *given* as nanoseconds that OTLP can carry, or now if it is no time."""
    # Many write `time.time() * 1e9`, which is a float.
    nanoseconds = safety.guarded("start_time", int, given)
    if nanoseconds is None:
        return time.time_ns()
    return min(max(nanoseconds, 0), LAST_INSTANT)


def not_before(started_at: int, end_time: int) -> int:
    """Return *end_time*, or *started_at* where that is later: a clock was set back."""
    try:
        return max(started_at, end_time)
    except TypeError:  # whatever the caller took for a time: the encoder sees to it
        return end_time


def late_id(span_id: int) -> int:
    """Return the id of the late finish of the span with *span_id*."""
    return span_id ^ 0x5A5A_5A5A_5A5A_5A5A or 1
