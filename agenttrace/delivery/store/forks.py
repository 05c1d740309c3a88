"""Keeps SQLite and `fork` apart.

A connection must not be carried across a fork, not even to be closed there: the child
would inherit SQLite's belief that it holds locks which only the parent holds, and any
mutex that another thread had at that instant would stay locked for ever.  So whoever
is inside SQLite holds `GATE`, and a fork waits for it, closes what is open, and goes
on; both sides open again when they next need to.

The wait is bounded.  Where it runs out, and where C code forks without telling Python
beforehand, the child does not touch SQLite at all: `GATE` raises `ForkedInsideError`.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE: Final = 1.0
"""Seconds that a fork waits for a thread which is inside SQLite."""


class ForkedInsideError(RuntimeError):
    """SQLite cannot be used: its state was copied in the middle of something."""

    def __init__(self) -> None:
        super().__init__("this process was forked while SQLite was in use")


class Holder(Protocol):
    """Has a connection that must not be carried across a fork."""

    @property
    def is_connected(self) -> bool:
        """Whether it holds a connection now."""
        ...

    def disconnect(self) -> None:
        """Close the connection, if there is one.  Called with the gate held."""
        ...


class _OfThread(threading.local):
    waited_out: bool | None = None
    """What came of this thread's fork: None while it forks none that we know of."""


class Gate:
    """Held by a thread while it is inside SQLite, and by a fork until it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By identity and weakly: a sender that is dropped without close() is gone.
        self._holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._fork = _OfThread()
        self._unsafe = False
        self._inherited: tuple[Holder, ...] = ()

    def add(self, holder: Holder) -> None:
        """Have *holder* disconnected before every fork."""
        with self._lock:
            self._holders.add(holder)

    def __enter__(self) -> None:
        """Wait until no other thread is inside.

        Raises:
            ForkedInsideError: SQLite cannot be used in this process.
        """
        if self._unsafe:
            raise ForkedInsideError
        self._lock.acquire()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Let the next one in."""
        self._lock.release()

    def before_fork(self) -> None:
        """Wait for the thread inside, then leave no connection open."""
        waited_out = self._lock.acquire(timeout=PATIENCE)
        # Per thread: another one's fork may time out while ours is under way, and
        # must not decide who releases the lock.
        self._fork.waited_out = waited_out
        if waited_out:
            for holder in tuple(self._holders):
                holder.disconnect()

    def after_fork_in_parent(self) -> None:
        """Let threads in again."""
        if self._fork.waited_out:
            self._lock.release()
        self._fork.waited_out = None

    def after_fork_in_child(self) -> None:
        """Find out whether SQLite can be used here."""
        if self._fork.waited_out is None:
            idle = not self._lock.locked()
            safe = idle and not any(holder.is_connected for holder in self._holders)
        else:
            safe = self._fork.waited_out
        if not safe:
            self._unsafe = True
            # A connection that is collected is closed.  The one in use is kept by the
            # frame of the parent's thread, which no longer runs; the others by this.
            self._inherited = tuple(self._holders)
        self._lock = threading.Lock()
        self._fork.waited_out = None


GATE: Final = Gate()
"""The one of this process: SQLite's state is per process, too."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=GATE.before_fork,
        after_in_parent=GATE.after_fork_in_parent,
        after_in_child=GATE.after_fork_in_child,
    )
