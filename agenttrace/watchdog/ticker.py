"""The one thread that keeps time: several ticks a second while a span is open.

It renews the coarse clock and calls its subscribers, each behind the guard.  With no
span open it sleeps without waking, and the first span that opens wakes it.  What is
due, and what follows, is the subscribers' business.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.clock import COARSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.registry import OpenSpans

INTERVAL: Final = 0.2
"""Seconds between two ticks."""
_LATE: Final = 1.0
"""Seconds behind time from which on a tick is counted as late."""


class Ticker:
    """Ticks while *registry* has open spans.

    Args:
        registry: Whose open spans keep it awake.
        interval: Seconds between two ticks.

    Attributes:
        ticks: How many there have been.
        lag: Seconds that the last one was late by.
        worst_lag: The most of that so far.
        also_for: Returns whether it is to tick though no span is open.
        occupied: Seconds so far that ticks have spent on what takes long: whoever
            looks how late a tick came has to know.
        is_paused: Whether the ticks are left out: somebody else has the time in hand.
    """

    def __init__(self, registry: OpenSpans, interval: float = INTERVAL) -> None:
        self.ticks = 0
        self.lag = self.worst_lag = 0.0
        self.occupied = 0.0
        self.also_for: Callable[[], bool] = _never
        self.is_paused = False
        self._registry = registry
        self._interval = interval
        self._subscribers: list[tuple[str, Callable[[], object]]] = []
        self._resting: list[tuple[str, Callable[[], object]]] = []
        self._reset()

    def _reset(self) -> None:
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._start_lock = threading.Lock()
        self._ticking = threading.Lock()
        self._thread: threading.Thread | None = None

    def subscribe(self, name: str, call: Callable[[], object]) -> None:
        """Call *call* at every tick; *name* is its site if it fails."""
        self._subscribers.append((name, call))

    def at_rest(self, name: str, call: Callable[[], object]) -> None:
        """Call *call* whenever it goes to sleep because no span is open."""
        self._resting.append((name, call))

    def wake(self) -> None:
        """Start ticking.  Called by the registry, on the application's threads."""
        self._wanted.set()
        if self._thread is None:
            safety.guarded("ticker.start", self._start)

    def busy_with(self, call: Callable[[], object]) -> None:
        """Make a *call* that may take long, in a tick, and add its time up."""
        began = time.monotonic()
        try:
            call()
        finally:
            self.occupied += time.monotonic() - began

    def stop(self) -> None:
        """End the thread; it is not waited for."""
        self._stopped.set()
        self._wanted.set()

    def pause(self) -> None:
        """Leave out the ticks from now on; one that is under way is waited for."""
        with self._ticking:
            self.is_paused = True

    def resume(self) -> None:
        """Tick again."""
        self.is_paused = False

    def unless_paused(self, call: Callable[[], object]) -> None:
        """Make a *call* that is not to come beside the ticks of somebody else."""
        with self._ticking:
            if not self.is_paused:
                call()

    def after_fork(self) -> None:
        """Begin anew: threads do not survive a fork, locks may be held by the dead."""
        self.lag = self.worst_lag = 0.0
        self._reset()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._stopped.is_set():
                thread = threading.Thread(
                    target=self._run, name="agenttrace-ticker", daemon=True
                )
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:
                    # The interpreter is about to end, or there are too many threads:
                    # without it the clock stands still, and nothing else is amiss.
                    self._thread = None

    def _run(self) -> None:
        registry, wanted, stopped = self._registry, self._wanted, self._stopped
        while not stopped.is_set():
            wanted.wait()
            wanted.clear()
            while not stopped.is_set() and (registry.is_busy or self.also_for()):
                self.unless_paused(self._tick)
                asleep = time.monotonic()
                stopped.wait(self._interval)
                self._note_lag(time.monotonic() - asleep - self._interval)
            # Announce the sleep, then look again: see OpenSpans.started.  What others
            # leave to a tick is found at rest, unless they have seen it asleep.
            registry.awake = False
            for name, call in self._resting:
                safety.guarded(f"rest: {name}", call)
            if registry.is_busy:
                registry.awake = True
                wanted.set()

    def _note_lag(self, lag: float) -> None:
        """Take note of how much longer the sleep was than it was to be."""
        self.lag = lag = max(lag, 0.0)
        self.worst_lag = max(lag, self.worst_lag)
        if lag >= _LATE and not self._stopped.is_set():
            safety.count(safety.Count.TICKS_LATE)

    def _tick(self) -> None:
        COARSE.renew()
        self.ticks += 1
        for name, call in self._subscribers:
            safety.guarded(f"tick: {name}", call)


def _never() -> bool:
    return False
