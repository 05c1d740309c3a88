"""The coarse clock: one word that costs nothing to read.

A heartbeat must cost less than asking the time does, so it copies this word, which the
ticker renews several times a second while any span is open (`watchdog.ticker`).  With
nothing open nobody renews it; the first span that starts does, before it is seen.

This module owns the word.  Who ticks, and what is concluded from it, is not its
business.  Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import time
from typing import Final


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


COARSE: Final = CoarseClock()
