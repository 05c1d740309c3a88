"""Calls the application's code on threads of their own, where it does no harm to hang.

Span processors, hooks and handlers of the log are the application's.  On its threads
they would be called by somebody who has done nothing to wait for them, and on the
ticker's they would stop the clock, the journal's last tick and every later verdict.

One thread makes the calls, in their order, for as long as there are any.  One that does
not come back is left behind: another thread goes on with the rest beside it, up to a
number.  When so many hang, the rest waits for the first of them to come back.

What is called, and what becomes of what there is no room for, is for callers to say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from agenttrace import safety

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: Final = 256
"""Calls that wait, from which on callers are to hold back."""
_PATIENCE: Final = 5.0


class _Worker:
    """A thread that makes calls, one after the other."""

    __slots__ = ("began", "site", "thread")

    def __init__(self, began: float) -> None:
        self.began = began
        self.site = ""
        self.thread: threading.Thread | None = None


class Errands:
    """Makes calls of the application's code.

    Args:
        name: What its threads are called.
        threads: How many there are at most; all but one of them hang.
        patience: Seconds after which a call counts as hanging, if others wait for it.
        most: Calls that wait, from which on it is full.
        clock: The time in seconds, which nobody sets.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int = 1,
        patience: float = _PATIENCE,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._most_threads = threads
        self._patience = patience
        self._most = most
        self._clock = clock
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        # Re-entrant: a signal handler may flush while somebody is flushing.
        self._change = threading.Condition(threading.RLock())
        self._worker: _Worker | None = None
        self._hanging: set[_Worker] = set()

    @property
    def is_full(self) -> bool:
        """Whether so many calls wait that none should be added."""
        return len(self._waiting) >= self._most

    @property
    def is_waiting(self) -> bool:
        """Whether a call waits: `see_to` is to be called now and then."""
        return bool(self._waiting)

    @property
    def is_hung(self) -> bool:
        """Whether the call that is being made has not come back for long."""
        worker = self._worker
        return worker is not None and self._hangs(worker)

    def ask(self, site: str, call: Callable[[], object]) -> None:
        """Have *call* made, soon.  Waits for nothing; *site* is told if it fails."""
        with self._change:
            self._waiting.append((site, call))
            if self._worker is None:
                self._start()

    def ask_once(self, site: str, call: Callable[[], object]) -> None:
        """Have *call* made, soon, unless a call waits: then see to that one."""
        if self._waiting:
            self.see_to()
        else:
            self.ask(site, call)

    def see_to(self) -> None:
        """Leave a call behind that hangs, and go on with the rest."""
        with self._change:
            worker = self._worker
            if not self._waiting:
                return
            if worker is None:
                self._start()  # there was no thread to be had
            elif self._hangs(worker) and len(self._hanging) + 1 < self._most_threads:
                self._hanging.add(worker)
                self._worker = None
                safety.count(safety.Count.CALLS_HUNG)
                # By the next thread: a handler of the log may be what hangs.
                site, seconds = worker.site, self._patience
                self._waiting.appendleft(("errands", lambda: _say(site, seconds)))
                self._start()
                self._change.notify_all()

    def drop(self, site: str) -> int:
        """Have the calls of *site* that wait not made; return how many those are."""
        with self._change:
            kept = [each for each in self._waiting if each[0] != site]
            dropped = len(self._waiting) - len(kept)
            self._waiting.clear()
            self._waiting.extend(kept)
            return dropped

    def finish(self, timeout: float) -> bool:
        """Wait until all calls are made; return whether they are.

        For one that hangs it does not wait, but for what is behind it, which another
        thread makes if there may be one; nor does it wait on a thread of its own.
        Where no thread can be had, as at the end of the interpreter, it makes them
        itself, unless one hangs: the next might, too.

        Args:
            timeout: Longest wait in seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if (mine := self._stand_in()) is not None:
                try:
                    self._run(mine, stands_in=True)
                finally:  # also where it is interrupted
                    with self._change:
                        self._leave(mine)
            with self._change:
                worker, left = self._worker, deadline - time.monotonic()
                if worker is None and not self._waiting:
                    return not self._hanging
                if left <= 0 or self._is_mine():
                    return False
                if worker is None:
                    if self._hanging:
                        return (
                            False  # no thread is to be had, and the next may hang too
                        )
                    continue
                hangs_in = worker.began + self._patience - self._clock()
                if hangs_in <= 0:
                    self.see_to()
                    if self._worker is worker:
                        return False  # no other thread may be left behind
                    continue
                self._change.wait(min(left, hangs_in))

    def _stand_in(self) -> _Worker | None:
        """Return what this thread is to be, if calls wait and nobody can make them."""
        with self._change:
            if self._worker is not None or not self._waiting:
                return None
            self._start()
            if self._hanging or self._worker is not None:
                return None
            self._worker = worker = _Worker(self._clock())
            worker.thread = threading.current_thread()
            return worker

    def _hangs(self, worker: _Worker) -> bool:
        return self._clock() - worker.began >= self._patience

    def _is_mine(self) -> bool:
        """Return whether a call is asking: it would wait for itself."""
        me = threading.current_thread()
        workers = (*self._hanging, self._worker)
        return any(each is not None and each.thread is me for each in workers)

    def _start(self) -> None:
        worker = _Worker(self._clock())
        thread = threading.Thread(
            target=self._run, args=(worker,), name=self._name, daemon=True
        )
        worker.thread = thread
        self._worker = worker
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the interpreter is about to end
            self._worker = None

    def _run(self, worker: _Worker, *, stands_in: bool = False) -> None:
        while True:
            with self._change:
                if worker is not self._worker or not self._waiting:
                    self._leave(worker)
                    return
                site, call = self._waiting.popleft()
                worker.site, worker.began = site, self._clock()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the application's code
                safety.note(site, error)
            except BaseException:  # an exit, or a cancellation
                if stands_in:  # Ctrl-C on the application's own thread, for one
                    raise
                # A thread of ours is not the application's to end.
            del call  # what it refers to is not ours to keep

    def _leave(self, worker: _Worker) -> None:
        if worker is self._worker:
            self._worker = None
        elif worker in self._hanging:
            self._hanging.remove(worker)
            if self._worker is None and self._waiting:
                self._start()
        self._change.notify_all()


def _say(site: str, seconds: float) -> None:
    safety.log_once(
        f"errands: {site}",
        logging.WARNING,
        "%s has not come back for %g s; agenttrace goes on without it (logged once, "
        "counted in calls_hung)",
        site,
        seconds,
    )
