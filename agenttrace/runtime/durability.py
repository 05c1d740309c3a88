"""What of a runtime survives its process: journal, spool files, and recovery.

Made where spans are delivered by us, or by the provider that we are attached to: then
there is no spool, and open spans are all that is kept.  What cannot be had, on a full
or read-only disk, on a file system or a platform without locks, is told once and done
without: spans flow from memory then, and are lost with the process.

Through the same directory others ask where open spans are (`questions`), and find what
was noticed of the application (`noticed`).

What the files say is `journal`'s and `delivery`'s business, what is made of those of
the dead `recovery`'s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.delivery.segments import Segments
from agenttrace.journal import Journal
from agenttrace.journal.lock import SUFFIX, is_alive
from agenttrace.journal.resources import resource_bytes
from agenttrace.lazy import no_fork, no_fork_at_first
from agenttrace.runtime.process import PROCESS
from agenttrace.settings import NOTICED_SUFFIX

if TYPE_CHECKING:
    from agenttrace.model import ResourceData
    from agenttrace.recovery import Recovered, Recovery
    from agenttrace.recovery.search import Send
    from agenttrace.runtime.questions import Questions
    from agenttrace.settings import Limit

_EVERY: Final = 10.0
"""Seconds between two looks for siblings that have died, while spans are open."""
_REFUSED: Final = 600.0
"""Seconds until the next look, after what the dead have left was not taken."""
_LONGEST: Final = threading.TIMEOUT_MAX / 2
_SIBLINGS: Final = 64
"""Locks that are looked at before a thread is left to look at all of them."""


class Durability:
    """The files of one runtime.

    Args:
        directory: Where processes keep them.
        window: Bytes of what others have left that may be on their way at once.
        limits: The settings `heartbeat_timeout` and `max_duration`, for the journal.

    Attributes:
        journal: None where none can be kept.
    """

    def __init__(
        self, directory: Path, window: int, limits: tuple[Limit, Limit] = (None, None)
    ) -> None:
        self._window = window
        self._limits = limits
        self.journal: Journal | None = None
        self._directory = directory
        self._send: Send | None = None
        self._recovery: Recovery | None = None
        self._recovering = threading.Lock()
        self._next_look = 0.0
        self._is_over = False
        self._questions: Questions | None = None
        self._written = 0

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
                resource=resource_bytes(resource, self._limits),
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

    def recover_with(self, send: Send) -> None:
        """Have *send* deliver what dead processes have left, now and later."""
        self.recover_later(send)
        if self.journal is not None and self._may_have_dead():
            self._look()

    def recover_later(self, send: Send) -> None:
        """Do the same, but not at once."""
        if self.journal is not None:
            self._send = send
            self._next_look = time.monotonic() + _EVERY

    def recover(self, timeout: float) -> Recovered | None:
        """Take over what dead processes have left, and wait until it is delivered.

        Args:
            timeout: Longest wait in seconds; what is not delivered then goes on.

        Returns:
            What was found so far; None where there are no files.
        """
        timeout = min(max(timeout, 0.0), _LONGEST)
        deadline = time.monotonic() + timeout
        # On a thread of its own: while destinations are down it waits for them.
        thread = self._look(timeout)
        if thread is not None:
            thread.join(max(deadline - time.monotonic(), 0.0))
        running = self._recovery
        if running is None:
            return None
        running.wait(max(deadline - time.monotonic(), 0.0))
        return replace(running.total)

    def tick(self) -> None:
        """Look for siblings that have died, now and then, and for who asks something.

        Called by the ticker.
        """
        safety.guarded("tick: questions", self._answer)
        self.rest()
        if self._send is not None and time.monotonic() >= self._next_look:
            self._look()

    def rest(self) -> None:
        """Write down what was noticed, if there is more of it than before."""
        # It is imported by whoever has something to note.
        if "agenttrace.noticed" in sys.modules:
            safety.guarded("tick: noticed", self._write)

    def _write(self) -> None:
        with no_fork_at_first("noticed"):
            # Another thread may be in the middle of importing it: this waits for that.
            from agenttrace import noticed  # noqa: PLC0415 - see `rest`
        if noticed.changes() == self._written:
            return
        self._written = noticed.changes()
        path = self._noticed()
        if path is not None:
            with (
                contextlib.suppress(OSError),  # a full disk: it was logged as well
                open(path, "w", opener=_private, encoding="utf-8") as file,
            ):
                file.write(noticed.to_json())

    def _noticed(self) -> Path | None:
        """Return the file for what was noticed; None where nobody could find it."""
        journal = self.journal
        return None if journal is None else journal.path.with_suffix(NOTICED_SUFFIX)

    def _answer(self) -> None:
        """Say where open spans are, if anybody asks."""
        if self._questions is None:
            if self.journal is None:  # nobody can find this process
                return
            with no_fork():
                from agenttrace.runtime.questions import (  # noqa: PLC0415 - a start has no time for it
                    Questions,
                )
            self._questions = Questions(
                self._directory, self.journal.instance, PROCESS.spans
            )
        PROCESS.ticker.busy_with(self._questions.tick)

    def after_fork(self, resource: ResourceData) -> None:
        """Give the child files of its own, unless its parent had shut down."""
        if self._recovery is not None:
            self._recovery.forget()
        self._recovery = self._send = self._questions = None
        self._recovering = threading.Lock()
        self._written = 0
        if self._is_over:
            self.journal = None
        else:
            self.begin(resource)

    def stop(self) -> None:
        """Take over nothing more, before what delivers it is shut down."""
        self._is_over = True
        self._send = None
        running = self._recovery
        if running is not None:
            running.stop()

    def end(self, *, settled: bool) -> None:
        """Let go of the dead, and remove the journal unless it tells something.

        What others have left and is not settled is the next one's.

        Args:
            settled: Whether all that has ended was delivered: else the files are
                kept, and locked until the process is gone.
        """
        running, self._recovery = self._recovery, None
        if running is not None:
            running.close()
        path = self._noticed()
        if self.journal is not None and path is not None and settled:
            PROCESS.release(self.journal)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _look(self, patience: float = 0.0) -> threading.Thread | None:
        """Look on a thread, after waiting so many seconds for another that looks."""
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
        recovering = self._recovering
        if recovering.acquire(timeout=patience):
            try:
                running = self._begin_recovery()
                if running is not None:
                    running.run()
                    self._leave_to_others(running)
            except Exception as error:  # noqa: BLE001 - this thread is all there is
                safety.note("recovery", error)
            finally:
                recovering.release()

    def _leave_to_others(self, running: Recovery) -> None:
        """Let go of the dead, if nobody here takes what they have left."""
        if running.is_refused and not self._is_over:
            self._recovery = None
            self._next_look = time.monotonic() + _REFUSED
            running.close()

    def _begin_recovery(self) -> Recovery | None:
        """Return the one recovery of this runtime; None where there are no files."""
        send = self._send
        if self._recovery is None and send is not None:
            # Imported when it is needed, which in most processes it never is.
            with no_fork():
                from agenttrace.recovery import Recovery  # noqa: PLC0415 - see above
            self._recovery = Recovery(self._directory, send, window=self._window)
            if self._send is None:  # stopped meanwhile
                self._recovery.stop()
        return self._recovery

    def _may_have_dead(self) -> bool:
        """Return whether a process that is not known to be alive has left files.

        Siblings that are alive are the rule, and no reason to begin a recovery.
        """
        # It stops at the first, and after some: this is the application's thread.
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            locks = (entry for entry in entries if entry.name.endswith(SUFFIX))
            some = list(islice(locks, _SIBLINGS + 1))
            return len(some) > _SIBLINGS or not all(map(_is_alive, some))
        return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_alive(entry: os.DirEntry[str]) -> bool:
    try:
        return is_alive(Path(entry.path))
    except OSError:  # gone by now, or for the recovery to tell of
        return False
