"""When a journal grows: on a thread that lives as long as that takes, one at a time.

Growing waits for the disk, so the application's threads only ask for it.  What failed
is logged once and tried again seconds later, when somebody asks.

What growing is, `file` says.
"""

from __future__ import annotations

import _thread
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace import safety

if TYPE_CHECKING:
    from collections.abc import Callable

_RETRY_AFTER: Final = 5.0
"""Seconds after which it is tried again to grow what could not grow."""


class Growth:
    """The wish for more slots, and its fulfilment.

    Args:
        double: Makes more slots; False where that will never be possible.
        ring: Asks for `run` on another thread; None: a thread of its own runs it.
    """

    def __init__(
        self, double: Callable[[], bool], ring: Callable[[], object] | None = None
    ) -> None:
        self.lock = threading.Lock()
        """Held while it runs."""
        self._double = double
        self._ring = ring or self._start
        self._is_wanted = False
        self._retry_at = 0.0

    def ask(self) -> None:
        """Ask for more, on an application's thread; once, until that was tried."""
        if not self._is_wanted and time.monotonic() >= self._retry_at:
            self._is_wanted = True
            safety.guarded("journal.on_low", self._ring)

    def run(self) -> bool:
        """Return whether there are more slots now.  Waits for the disk; never fails."""
        with self.lock:
            try:
                grown = self._double()
            except (OSError, ValueError, MemoryError) as error:
                self._retry_at = time.monotonic() + _RETRY_AFTER
                safety.log_once(
                    "journal.grow",
                    logging.WARNING,
                    "the journal cannot grow (%s); spans that find no slot are not "
                    "recovered if the process is killed (logged once)",
                    error,
                )
                return False
            finally:
                self._is_wanted = False
            if not grown:
                self.stop()
            return grown

    def stop(self) -> None:
        """Have nobody ask any more."""
        self._retry_at = math.inf

    def _start(self) -> None:
        try:
            # Not `threading.Thread`: its start takes a lock that this very thread may
            # hold, if a finalizer or a signal handler came here in the middle of one.
            _thread.start_new_thread(self._run_named, ())
        except RuntimeError:  # too many threads, or the interpreter is about to end
            self._retry_at = time.monotonic() + _RETRY_AFTER
            self._is_wanted = False

    def _run_named(self) -> None:
        threading.current_thread().name = "agenttrace-journal"
        self.run()
