"""How long a thread was ready to run and had no processor, as Linux tells it.

A loop that is at work, on a machine that has no time for it, looks like one that is
blocked: its thread is found at the same place again and again.

The kernel adds up what a thread has waited for a processor when it gets one.  Of a wait
that goes on it says nothing: it is known by a thread that is ready to run and has not
run for a while.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

_WHILE: Final = 0.02
"""Seconds, two ticks of the slowest kernel, which counts what has run at each."""


class RunQueue:
    """Adds up how long the thread *ident* waits for a processor from now on.

    Args:
        ident: The thread's id.
        now: The time in seconds, of any clock that the later ones are of.
    """

    __slots__ = ("_before", "_native", "_ran_at", "_told")

    def __init__(self, ident: int, now: float) -> None:
        active: dict[int, threading.Thread] = getattr(threading, "_active", {})
        self._native = getattr(active.get(ident), "native_id", None)
        self._before = self._told = self._look()
        self._ran_at = now

    def waited(self, now: float) -> float:
        """Return how many seconds it has waited until *now*; 0 where nobody tells it.

        What it is waiting at the moment is known no better than to 20 ms.
        """
        told = self._look()
        if told is None or self._before is None:
            return 0.0
        if told != self._told:
            self._told, self._ran_at = told, now
        waited = told.waited - self._before.waited
        idle = now - self._ran_at
        return waited + idle if idle > _WHILE and self._is_ready() else waited

    def _look(self) -> _Told | None:
        try:
            ran, waited, _ = self._read("schedstat").split()
            return _Told(int(ran), int(waited) / 1e9)
        except (OSError, ValueError):
            return None

    def _is_ready(self) -> bool:
        try:
            # The name before it may have anything in it, also a closing bracket.
            return self._read("stat").rpartition(b")")[2].split()[:1] == [b"R"]
        except OSError:
            return False

    def _read(self, name: str) -> bytes:
        with open(f"/proc/self/task/{self._native}/{name}", "rb") as file:  # noqa: PTH123 - for each look
            return file.read()


class _Told(NamedTuple):
    ran: int
    waited: float
