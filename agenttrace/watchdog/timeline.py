"""The watchdog's own time, in which a suspended host and a starved machine take none.

Heartbeats are instants of the wall clock, which is set, stepped, and goes on while the
host sleeps.  So silence is not counted on it, but on a line that is made of ticks: each
adds what the steady clock says has passed, and one that came late only as much as one
that was on time.  What a span did not do while nothing ran is not held against it.

The line is remembered as pieces on which the wall clock ran evenly, so that an instant
of the wall clock can be found on it.  Where it can be found more than once, because the
clock was set back, the latest counts: to be judged late is better than to be judged
wrongly.

Pure: it reads no clock.  Times are nanoseconds.
"""

from __future__ import annotations

from typing import Final

LATE: Final = 1_000_000_000
"""Between two ticks.  From here on the second one is late, and limits move."""
STEP: Final = 500_000_000
"""What the wall clock may gain on the steady one, or lose, between two ticks."""
TICK: Final = 200_000_000
"""What a tick that came late adds."""
_MOST: Final = 256
"""Pieces that are remembered."""


class Timeline:
    """Ticks, and where instants of the wall clock are among them.

    Attributes:
        now: The present instant on the line.
    """

    __slots__ = ("_is_cut", "_pieces", "_steady", "now")

    def __init__(self) -> None:
        self.now = 0
        self._steady = 0
        # Begin and end by the wall clock, and begin on the line.
        self._pieces: list[tuple[int, int, int]] = []
        self._is_cut = False

    def advance(self, wall: int, steady: int) -> bool:
        """Add one tick; return whether it came in time, so that it may judge.

        Args:
            wall: The wall clock, nanoseconds since the epoch.
            steady: A clock that nobody sets.
        """
        if not self._pieces:
            self.now, self._steady = wall, steady
            self._pieces.append((wall, wall, wall))
            return True
        begin, end, at = self._pieces[-1]
        passed, self._steady = steady - self._steady, steady
        moved = wall - end
        in_time = 0 <= passed <= LATE and abs(moved - passed) <= STEP
        if in_time and moved >= 0:
            self._pieces[-1] = (begin, wall, at)
            self.now = at + wall - begin
            return True
        self.now += passed if 0 <= passed <= LATE else TICK
        self._pieces.append((wall, wall, self.now))
        if len(self._pieces) > _MOST:
            del self._pieces[0]
            self._is_cut = True
        return in_time

    def instant(self, wall: int) -> int:
        """Return where *wall* is on the line: never before it was, never after now."""
        begin, end, at = self._pieces[-1]
        if begin <= wall <= end:
            return at + wall - begin
        found: int | None = None
        following = self.now
        for begin, end, at in reversed(self._pieces):
            if begin <= wall <= end:
                return at + wall - begin
            if wall > end and found is None:
                # Between this piece and the next, in which no time passed.
                found = following
            following = at
        if found is None:
            begin, _, at = self._pieces[0]
            found = at if self._is_cut else at + wall - begin
        return found
