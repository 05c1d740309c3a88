"""What of a runtime survives its process: journal, spool files, and recovery.

Made where spans are delivered by us.  What cannot be had, on a full or read-only disk,
on a file system or a platform without locks, is told once and done without: spans flow
from memory then, and are lost with the process.

What the files say is `journal`'s and `delivery`'s business, what is made of those of
the dead `recovery`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace import recovery, safety
from agenttrace.delivery.segments import Segments
from agenttrace.journal import Journal
from agenttrace.runtime.process import PROCESS

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.delivery.spooler import Spooler
    from agenttrace.model import ResourceData
    from agenttrace.recovery import Recovered

_EVERY: Final = 10.0
"""Seconds between two looks for siblings that have died, while spans are open."""


class Durability:
    """The files of one runtime.

    Args:
        directory: Where processes keep them.

    Attributes:
        journal: None where none can be kept.
    """

    def __init__(self, directory: Path) -> None:
        self.journal: Journal | None = None
        self._directory = directory
        self._recovery: recovery.Recovery | None = None
        self._recovering = threading.Lock()
        self._next_look = 0.0
        self._is_over = False

    def begin(self, resource: ResourceData) -> None:
        """Have spans that start from now on written to a new journal.

        Args:
            resource: Who this process is, for whoever recovers its spans.
        """
        try:
            # Or it would be made for everybody to look into.
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.journal = Journal(
                self._directory,
                resource=recovery.resource_bytes(resource),
                previous=PROCESS.spans.slots,
            )
        except (OSError, ValueError) as error:
            self.journal = None
            safety.log_once(
                "journal",
                logging.WARNING,
                "no journal can be kept in %s (%s): spans that are open when this "
                "process is killed are lost (settings: state_dir, durable)",
                self._directory,
                error,
            )
        else:
            PROCESS.keep(self.journal)

    def segments(self) -> Segments | None:
        """Return the spool files of this process; None where it has no lock."""
        if self.journal is None:
            return None
        return Segments(self._directory, self.journal.instance)

    def recover_with(self, spooler: Spooler) -> None:
        """Have *spooler* deliver what dead processes have left, now and later."""
        self.recover_later(spooler)
        if self.journal is not None and len(recovery.locks_in(self._directory)) > 1:
            self._look()

    def recover_later(self, spooler: Spooler) -> None:
        """Do the same, but not at once."""
        if self.journal is not None:
            self._recovery = recovery.Recovery(self._directory, spooler.resume)
            self._next_look = time.monotonic() + _EVERY

    def recover(self, timeout: float) -> Recovered:
        """Take over what dead processes have left, and wait until it is delivered.

        Args:
            timeout: Longest wait in seconds; what is not delivered then goes on.
        """
        running = self._recovery
        if running is None:
            return recovery.Recovered()
        timeout = min(max(timeout, 0.0), threading.TIMEOUT_MAX / 2)
        deadline = time.monotonic() + timeout
        # Not on this thread: what is taken over waits for room while none is sent.
        thread = self._look(patience=timeout)
        if thread is not None:
            thread.join(timeout)
        running.wait(max(deadline - time.monotonic(), 0.0))
        return running.total

    def tick(self) -> None:
        """Look for siblings that have died, now and then.  Called by the ticker."""
        if self._recovery is not None and time.monotonic() >= self._next_look:
            self._look()

    def after_fork(self, resource: ResourceData) -> None:
        """Give the child files of its own, unless its parent had shut down."""
        self._recovery = None
        self._recovering = threading.Lock()
        if self._is_over:
            self.journal = None
        else:
            self.begin(resource)

    def stop(self) -> None:
        """Take over nothing more; what is on its way is still waited for."""
        self._is_over = True
        if self._recovery is not None:
            self._recovery.stop()

    def end(self, *, settled: bool) -> None:
        """Let go of the dead, and remove the journal unless it tells something.

        What is not settled is for the next process to find.

        Args:
            settled: Whether all that has ended was delivered: else the files are
                kept, and locked until the process is gone.
        """
        if self._recovery is not None:
            self._recovery.close()
            self._recovery = None
        if self.journal is not None and settled:
            PROCESS.release(self.journal)

    def _look(self, patience: float = 0.0) -> threading.Thread | None:
        self._next_look = time.monotonic() + _EVERY
        # A thread for as long as it takes: directories are on disks, which stall.
        thread = threading.Thread(
            target=self._run, args=(patience,), name="agenttrace-recovery", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the interpreter is about to end
            return None
        return thread

    def _run(self, patience: float) -> None:
        running = self._recovery
        # One that has begun may have passed by who died since.
        if running is not None and self._recovering.acquire(timeout=patience):
            try:
                running.run()
            except Exception as error:  # noqa: BLE001 - this thread is all there is
                safety.note("recovery", error)
            finally:
                self._recovering.release()
