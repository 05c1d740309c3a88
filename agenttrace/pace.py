"""How threads of agenttrace leave the interpreter to those of the application.

Whoever waits for the GIL is given it by force after 5 ms (`sys.getswitchinterval`), and
before that only if they are quick: a thread that lets go of it for a short system call,
a write say, has it back before anybody has woken up.  An event loop would be late by
whatever is encoded at one go.  So what may take long is done in slices, with a sleep in
between that is long enough for somebody to wake up.

This module owns how long at a time.  What is done, and on which thread, is others'.
"""

from __future__ import annotations

import threading
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

SLICE: Final = 0.00025
"""Seconds for which nobody else has the interpreter, at first."""
LONGEST: Final = 0.001
"""The same where there is much to do: a sleep costs as much as two spans."""
PAUSE: Final = 0.00001
"""Seconds of sleep that are asked for; an operating system makes 60 to 90 µs of it."""
_SHARE: Final = 0.5
"""Of the time that others had, at least, what comes next may take.

They keep it for 5 ms at a time where they have that much to do.  A slice for each of
these would be too little: what ends would pile up.
"""
MOST: Final = 0.005
"""Seconds that it takes at most: while a process was suspended, nobody had them."""


class Pace:
    """The pace of one thread: work that goes along with it sleeps between slices.

    By that thread alone, and with no lock held that an application may wait for.
    """

    __slots__ = ("_slice", "_until")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin the first slice: the thread has waited for something to do."""
        self._slice = SLICE
        self._until = perf_counter() + SLICE

    def along(self, items: Iterable[T]) -> Iterator[T]:
        """Yield *items*, giving way before each that would be too much at one go."""
        for item in items:
            now = perf_counter()
            if now >= self._until:
                self._give_way(now)
            yield item

    def _give_way(self, now: float) -> None:
        _sleep(PAUSE)
        after = perf_counter()
        self._slice = min(2 * self._slice, LONGEST)
        owed = min((after - now) * _SHARE, MOST)
        self._until = after + max(self._slice, owed)


_never = threading.Lock()
_never.acquire()


def _sleep(seconds: float) -> None:
    # Not `time.sleep`, whose calls an application's test may count, or forbid.
    _never.acquire(timeout=seconds)
