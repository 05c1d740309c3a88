"""The coarse clock: one word that costs nothing to read.

A heartbeat must cost less than asking the time does, so it copies this word, which the
ticker renews several times a second while any span is open (`watchdog.ticker`).  With
nothing open nobody renews it; the first span that starts does, before it is seen.

This module owns the word, and how an instant is written down.  Who ticks, and what is
concluded from it, is not its business.  Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

_SECOND: Final = 1_000_000_000
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999: a damaged journal may say anything."""


class CoarseClock:
    """A time that is right to within one tick.

    Attributes:
        now: That time.
        read: What it is renewed from; `testing.ManualClock` puts itself in its place.
    """

    __slots__ = ("now", "read")

    def __init__(self) -> None:
        self.read = time.time_ns
        self.now = self.read()

    def renew(self) -> int:
        """Read the real clock into the word and return it."""
        self.now = now = self.read()
        return now


def iso(instant: int, timespec: str = "milliseconds") -> str:
    """Return *instant* as ISO 8601 has it, in UTC; cut off, not rounded.

    Args:
        instant: Nanoseconds since the epoch; beyond the year 9999 its last second.
        timespec: As `datetime.isoformat` has it.

    >>> iso(1_700_000_000_123_456_789)
    '2023-11-14T22:13:20.123+00:00'
    """
    seconds, rest = divmod(instant, _SECOND)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return moment.replace(microsecond=rest // 1000).isoformat(timespec=timespec)


COARSE: Final = CoarseClock()
