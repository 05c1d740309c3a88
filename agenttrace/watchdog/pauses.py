"""How long the garbage collector keeps everybody else from running.

A collection holds the GIL, so whatever is running meanwhile seems to take long and is
not to blame.  The collector tells what listens to it when it begins and ends.  What
listens costs each collection some tenths of a microsecond; so this does while spans are
open and an event loop has been seen, and no longer.
"""

from __future__ import annotations

import gc
import time


class Collections:
    """How much time the garbage collector has taken while this was listening."""

    __slots__ = ("_is_listening", "_since", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._since = 0.0
        self._is_listening = False

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        """Take note of a collection.  Called by the collector (`gc.callbacks`)."""
        if phase == "start":
            self._since = time.monotonic()
        elif self._since:
            self._total += time.monotonic() - self._since
            self._since = 0.0

    def seconds(self) -> float:
        """Return the seconds so far, those of a collection that goes on included."""
        since = self._since
        return self._total + (time.monotonic() - since if since else 0.0)

    def listen(self) -> None:
        """Begin, if it has not begun."""
        if not self._is_listening:
            self._is_listening = True
            gc.callbacks.append(self)

    def rest(self) -> None:
        """Listen no longer: what runs at each collection costs the application."""
        if self._is_listening:
            self._is_listening = False
            self._since = 0.0
            if self in gc.callbacks:
                gc.callbacks.remove(self)
