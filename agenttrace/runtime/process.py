"""What there is one of in a process, and what becomes of it at a fork and at exit.

The registry of open spans and our provider live as long as the process does, runtimes
come and go.  The hooks are registered once and ask for the runtime of the moment: they
cannot be taken back.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from agenttrace import clock, safety, semconv
from agenttrace.lazy import no_fork
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.runtime import sigterm
from agenttrace.runtime.last_thread import LastThread
from agenttrace.watchdog.ticker import Ticker

if TYPE_CHECKING:
    from agenttrace.journal import Journal
    from agenttrace.spans.provider import Provider
    from agenttrace.watchdog.errands import Errands

_PATIENCE: Final = 0.1
"""Seconds that whoever flushes waits for a span that another thread is telling."""
_MOMENT: Final = 0.001
_ERRANDS: Final = 2.0
"""Seconds that whoever flushes waits for processors that are telling verdicts."""
_THREADS: Final = 4
"""How many calls of processors may hang, and later ones be made all the same."""
_GRACE: Final = _ERRANDS
"""Seconds that SIGTERM waits beyond the flush for what is done after it."""


def left_until(deadline: float) -> float:
    """Return the seconds until *deadline* (`time.monotonic`), 0 after it."""
    return max(deadline - time.monotonic(), 0.0)


class Lives(Protocol):
    """What the hooks need of a runtime."""

    @property
    def flush_timeout(self) -> float:
        """Seconds that exit waits for delivery."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether a tick has left something to the next, though no span may be open."""
        ...

    def tick(self) -> None:
        """Do what is to be done now and then while spans are open."""
        ...

    def rest(self) -> None:
        """Do what is to be done when no span is open any more."""
        ...

    def after_fork(self) -> None:
        """Be the runtime of a child process."""
        ...

    def shutdown(self) -> bool:
        """Deliver what can be delivered in bounded time."""
        ...


class Process:
    """Registry, ticker, provider, and the runtime of the moment."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.spans = OpenSpans()
        self.ticker = Ticker(self.spans)
        self.spans.wake = self.ticker.wake
        self.spans.awake = False
        # In this order: the look at the loops, the runtime's first, sees most if no
        # system call of ours has let others go on.
        self.ticker.subscribe("journal", self._write_tick)
        self.ticker.subscribe("runtime", self._tick)
        self.ticker.subscribe("sweep", self._have_swept)
        self.ticker.subscribe("errands", self._see_to_errands)
        self.ticker.at_rest("runtime", self._rest)
        self.ticker.also_for = self._is_behind
        self._errands: Errands | None = None
        self._is_to_sweep = False
        self._journal: Journal | None = None
        self._released: list[Journal] = []
        self.provider: Provider | None = None
        self.lives: Lives | None = None
        self.is_exiting = False
        """Whether the exit handlers run: figures that are read then are the last."""
        self._last_thread = LastThread(self._leave)
        self._hooked = False
        self._flushes_on_sigterm = False

    def enter(self, runtime: Lives) -> None:
        """Make *runtime* the one that forks and exits are told to."""
        self.lives = runtime
        if not self._hooked:
            self._hooked = True
            atexit.register(self._at_exit)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._after_fork)
        self._last_thread.watch()
        self._end_with_worker()

    def flush_on_sigterm(self) -> None:
        """Deliver before SIGTERM takes effect; says so where that cannot be had."""
        self._flushes_on_sigterm = self._flushes_on_sigterm or sigterm.install(
            self._at_exit, self._patience
        )
        if not self._flushes_on_sigterm:
            safety.log_once(
                "configure: on_sigterm",
                logging.WARNING,
                "on_sigterm='flush' has no effect: configure() was not called on the "
                "main thread, or the application handles SIGTERM itself",
            )

    def _patience(self) -> float:
        # What the exit handlers may take: the flush, and processors of others.
        return 0.0 if self.lives is None else self.lives.flush_timeout + _GRACE

    def keep(self, journal: Journal) -> None:
        """Have spans that start from now on written to *journal*."""
        self.spans.slots = self._journal = journal
        self._remove_journals()

    def release(self, journal: Journal) -> None:
        """Remove *journal* as soon as no span stands in it that is told nowhere else.

        Those that were open when another one took its place still do.
        """
        self._released.append(journal)
        self._remove_journals()

    def _remove_journals(self) -> None:
        for journal in self._released[:]:
            if not journal.is_needed:
                try:
                    self._released.remove(journal)
                except ValueError:  # another thread does it
                    continue
                with contextlib.suppress(OSError):
                    journal.close(remove=True)
                if self._journal is not None:
                    self._journal.pass_over(journal)

    def _write_tick(self) -> None:
        self.spans.slots.tick()

    @property
    def errands(self) -> Errands:
        """Makes the calls of the application's code that the ticker must not make."""
        if self._errands is None:
            with no_fork():
                from agenttrace.watchdog.errands import (  # noqa: PLC0415 - most processes have none to run
                    Errands,
                )
            self._errands = Errands("agenttrace-verdicts", threads=_THREADS)
        return self._errands

    def finish_errands(self, timeout: float, kept: object = "") -> bool:
        """Wait a little for what was judged to be told, before that is delivered.

        Half of *timeout* at most: one that hangs must leave time to deliver the rest.

        Args:
            timeout: Seconds that there are for all.
            kept: The journal that has what is not told.  None = that is dropped.

        Returns:
            Whether all of it is told.
        """
        errands = self._errands
        if errands is None or errands.finish(min(timeout / 2, _ERRANDS)):
            return True
        if kept is None and (dropped := errands.drop("judge")):
            safety.count(safety.Count.SPANS_DROPPED, dropped)
        return False

    def _is_behind(self) -> bool:
        has_errands = self._errands is not None and self._errands.is_waiting
        return has_errands or (self.lives is not None and self.lives.is_behind)

    def _see_to_errands(self) -> None:
        if self._errands is not None:
            self._errands.see_to()

    def _have_swept(self) -> None:
        """Have told what was collected without an end, where processors may hang."""
        waiting = self.spans.collected or self.spans.cut_short
        if waiting and not self._is_to_sweep and not self.errands.is_full:
            self._is_to_sweep = True
            self.errands.ask("sweep", self._sweep)

    def _sweep(self) -> None:
        self._is_to_sweep = False
        self.spans.sweep(_collected, patient=True)

    def _tick(self) -> None:
        if self.lives is not None:
            self.lives.tick()

    def _rest(self) -> None:
        if self.lives is not None:
            self.lives.rest()

    def sweep(self) -> None:
        """End the spans whose object was collected without an end."""
        self.spans.sweep(_collected)
        deadline = time.monotonic() + _PATIENCE
        while self.spans.cut_short and time.monotonic() < deadline:
            # The ticker is telling one, and will have done so in a moment.
            time.sleep(_MOMENT)
            self.spans.sweep(_collected)

    def _after_fork(self) -> None:
        # Whatever other threads held at the fork is held for ever.
        self.lock = threading.RLock()
        self.is_exiting = False
        self.ticker.after_fork()
        self.spans.forget()
        self._journal = None
        self._released.clear()
        self._errands = None
        self._is_to_sweep = False
        if self.lives is not None:
            safety.guarded("after_fork", self.lives.after_fork)
        self._last_thread.is_off = False
        self._last_thread.watch()
        self._end_with_worker()

    def _end_with_worker(self) -> None:
        """Have multiprocessing tell us when a worker of its ends.

        Its workers skip the interpreter's exit handlers and run only its own, which it
        empties when they begin; what is registered to run after that stays.
        """
        module: Any = sys.modules.get("multiprocessing.util")
        if module is None:
            return
        module.register_after_fork(self, Process._finalize_in_worker)
        process: Any = sys.modules["multiprocessing.process"]
        if process.parent_process() is not None:
            self._finalize_in_worker()

    def _finalize_in_worker(self) -> None:
        module: Any = sys.modules["multiprocessing.util"]
        # Below all others: queues of the application's are emptied first.
        module.Finalize(None, self._at_exit, exitpriority=_LAST)

    def _leave(self) -> None:
        """End what is ours: no thread but ours is left, and no exit comes."""
        self._at_exit()
        self.ticker.stop()

    def _at_exit(self) -> None:
        self._last_thread.is_off = True
        if self.lives is None:
            return
        self.is_exiting = True
        try:
            safety.guarded("at_exit", self.lives.shutdown)
            if self.provider is not None:
                # What the application added to it has a queue of its own.
                safety.guarded("provider.shutdown", self.provider.shutdown)
        except KeyboardInterrupt:
            # Nobody presses it to have a traceback of ours: it is to end now, and what
            # was not delivered is on disk.
            pass
        finally:
            self._remove_journals()
            _keep_interrupt()


def _keep_interrupt() -> None:
    """Let a process that Ctrl-C ended still exit as one that SIGINT ended.

    The interpreter keeps "the last code string that ran was interrupted" in a flag and
    looks at it after the exit handlers.  An import of ours (or a named tuple) runs
    strings as well and clears it; a string that is interrupted sets it again.
    """
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - a constant; see above


def _collected(span: OpenSpan) -> Ending:
    """Return the ending of a span whose object was collected without one."""
    return Ending(
        Outcome.ABANDONED,
        EndedBy.GC,
        end_time=span.last_beat,
        attributes={semconv.DISCOVERED_AT: clock.iso(clock.COARSE.read())},
    )


_LAST: Final = -1_000_000
PROCESS: Final = Process()
