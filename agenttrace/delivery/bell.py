"""Wakes one sleeping thread, at the price of reading an attribute when it is awake."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized


class Bell:
    """What a thread sleeps on until others have put something into a queue.

    A producer appends first and then rings if the thread is `asleep`, or does what
    else the thread wants of producers while it says so; the thread
    says that it is `asleep` first and then looks into the queue again.  Under the GIL
    one of the two always sees the other.  Where threads run freely a processor may let
    the producer's look overtake its append, for some nanoseconds; so the thread takes
    a short nap and looks a second time before it sleeps for good.

    Ringing takes no lock that anybody holds for long, cannot block, and may be done
    from a finalizer or a signal handler.
    """

    __slots__ = ("_rung", "asleep")

    def __init__(self) -> None:
        # A lock that is held means silence; whoever releases it rings.
        self._rung = threading.Lock()
        self._rung.acquire()
        self.asleep = False
        """Whether the thread wants something of producers, mostly to be woken."""

    def ring(self) -> None:
        """Wake the thread, or keep it from its next sleep."""
        # First, so that of many producers one rings and the others go on.
        self.asleep = False
        with contextlib.suppress(RuntimeError):  # it is ringing already
            self._rung.release()

    def sleep(self, queue: Sized, nap: float) -> None:
        """Return when there is something in *queue* or the bell has rung.

        May return without a reason: callers look for themselves.

        Args:
            queue: What producers append to before they ring.
            nap: Seconds of the first, bounded sleep.
        """
        self.asleep = True
        if not queue and not self.wait(nap) and not queue:
            self.wait()
        self.asleep = False

    def wait(self, timeout: float = -1) -> bool:
        """Return whether it rang within *timeout* seconds; -1 means without end."""
        return self._rung.acquire(timeout=timeout)
