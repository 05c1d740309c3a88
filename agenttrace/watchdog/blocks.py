"""When a callback blocks its event loop, and what is told of it.  Pure but for formats.

A loop is *blocked* while one callback keeps it from turning for longer than a limit.
Time in which nothing could run is not the callback's: the garbage collector's, and that
in which the whole process stood still (a suspended host, SIGSTOP, a machine that has no
time for it).  Such time is *excused*.

Who looks, and how often, is `loops`' business; what a look is, `turns`'.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from agenttrace.watchdog.turns import Place

SLACK: Final = 0.05
"""Seconds by which a look is late on any machine."""
MOST_CHARACTERS: Final = 4_000
"""Longest text of a stack."""
_LIBRARIES: Final = ("site-packages", "dist-packages")
_STANDARD: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - no pathlib for one name
_OURS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - the same
_DEMO: Final = _OURS + "demo" + os.sep
"""The demo is an application, though it comes with us."""


class Gap:
    """The time between two looks, and why it was longer than planned.

    Args:
        length: Seconds between the looks.
        planned: Seconds that were meant to be between them.
        ours: Seconds on top of those in which whoever looks had others to see to.
        cpu: CPU seconds that the process has taken meanwhile.
        collecting: Seconds that the garbage collector has taken meanwhile.
        is_alive: Whether something shows that the process did run all the time.

    Attributes:
        ours: The same.
        frozen: Seconds by which it was late and in which the process did nothing.
        excused: Seconds in which no callback could have come to its end.
        held: Seconds in which somebody kept the GIL from whoever looks.
        collected: Seconds that the garbage collector has taken.
    """

    __slots__ = ("collected", "excused", "frozen", "held", "ours")

    def __init__(  # noqa: PLR0913 - a record
        self,
        length: float,
        planned: float,
        *,
        ours: float = 0.0,
        cpu: float,
        collecting: float,
        is_alive: bool = False,
    ) -> None:
        self.ours = ours
        late = max(0.0, length - planned - ours)
        # Whoever keeps the GIL computes; a process that stands still, or has to wait
        # for a processor, does not.
        idle = late > SLACK and not is_alive
        self.frozen = max(0.0, late - max(0.0, cpu)) if idle else 0.0
        self.collected = max(0.0, collecting)
        self.excused = min(length, self.frozen + self.collected)
        self.held = max(0.0, late - self.excused)


class Suspicion:
    """One callback that was found running, and may be blocking its loop.

    Args:
        mark: Which callback it is (`turns.Sight.mark`).
        began: When it began, as far as is known (`time.monotonic`).
        is_sure: Whether that is known for sure.
        excused: Excused seconds of the process until then.

    Attributes:
        looks: How often it was found running.
    """

    __slots__ = ("began", "excused", "is_sure", "looks", "mark")

    def __init__(
        self, mark: Hashable, began: float, *, is_sure: bool, excused: float
    ) -> None:
        self.mark = mark
        self.began = began
        self.is_sure = is_sure
        self.excused = excused
        self.looks = 1

    def lasted(self, now: float, excused: float) -> float:
        """Return for how many seconds it has blocked its loop.

        Args:
            now: Until when (`time.monotonic`).
            excused: Excused seconds of the process until then.
        """
        return max(0.0, now - self.began - (excused - self.excused))

    def is_block(self, now: float, excused: float, limit: float) -> bool:
        """Return whether it is known to have blocked its loop for *limit* seconds.

        One look proves nothing where it is not sure when it began: a loop that is busy
        with thousands of short callbacks is always found in one of them.
        """
        return (self.is_sure or self.looks > 1) and self.lasted(now, excused) >= limit


class Rate:
    """Lets so many through in so many seconds, and counts the rest.

    Args:
        most: How many.
        seconds: In how long.

    Attributes:
        refused: How many were refused since the last one that was let through.
    """

    __slots__ = ("_most", "_seconds", "_times", "refused")

    def __init__(self, most: int = 30, seconds: float = 60.0) -> None:
        self.refused = 0
        self._most = most
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Return whether one more may pass at *now* (`time.monotonic`)."""
        times = self._times
        while times and now - times[0] >= self._seconds:
            times.popleft()
        if len(times) >= self._most:
            self.refused += 1
            return False
        times.append(now)
        return True


def culprit(stack: Sequence[Place]) -> Place | None:
    """Return the line to blame: the innermost one of the application's own.

    Args:
        stack: Innermost first.

    Returns:
        Where none of them is the application's, the innermost; None without any.
    """
    for place in stack:
        if is_application(place.file):
            return place
    return stack[0] if stack else None


def is_application(file: str) -> bool:
    """Return whether code in *file* is neither a library's, Python's nor ours."""
    if file.startswith(_DEMO):
        return True
    if file.startswith(("<frozen", _OURS, _STANDARD)):
        return False
    return not any(each in file for each in _LIBRARIES)


def text_of(stack: Sequence[Place], most: int = MOST_CHARACTERS) -> str:
    """Return *stack* as Python prints stacks, the innermost last; no source lines.

    What is too long loses its outermost lines.

    Args:
        stack: Innermost first.
        most: Longest text in characters.
    """
    lines: list[str] = []
    room = most
    for place in stack:
        line = f'  File "{place.file}", line {place.line}, in {place.function}'
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(reversed(lines))
