"""The stacks of all threads, written while C code keeps the GIL: `faulthandler`.

Nothing of ours runs while a C function keeps the GIL.  `faulthandler` has a thread that
needs none: a timer, pushed off at every tick, that writes the stacks to a file when no
tick comes.  Where the GIL is given back in the end, the tick finds them there; where it
never is, the file stays, for people.

It is off unless asked for, because of what it does besides:

- It reads the stacks without the GIL.  While C code holds that, they stand still.  But
  the timer also runs out where a process was stopped, or a machine is starved, and then
  it reads what is being changed: with three threads at work, one dump in forty crashed
  the process (3.11 and 3.13).
- A process that is forked while the timer runs hangs when it exits, or asks for a timer
  of its own.  So it is taken back before a fork; forks that C code makes by itself
  cannot be seen.
- There is one timer in a process.  Under pytest it is pytest's.  If the application
  takes it, it is the application's from then on: `faulthandler` lets go of our file
  then, which can be seen.  One that the application has set *before* is lost.

Who ticks is `loops`' business, and what is made of the stacks as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS: Final = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_APPEND
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
_MOST_LINES: Final = 40
"""Lines of one stack that are kept, the innermost."""
_NEVER: Final = 1e8
"""Seconds, three years."""
_LARGEST: Final = 1 << 20
"""Bytes of a dump that are read."""


class Dump(NamedTuple):
    """What was written while no tick came.

    Args:
        at: When, in seconds since the epoch.
        text: All stacks, as `faulthandler` writes them.
    """

    at: float
    text: str

    def stack_of(self, thread: int) -> str | None:
        """Return the stack of *thread*, the innermost line first; None without it."""
        beginning = f"Thread 0x{thread:016x} "
        for part in self.text.split("\n\n"):
            for start, line in enumerate(lines := part.splitlines()):
                if line.startswith(beginning):
                    return "\n".join(lines[start + 1 : start + 1 + _MOST_LINES])
        return None


class _File:
    """The file as `faulthandler` holds it, and lets go of it when another one comes."""

    __slots__ = ("__weakref__", "_descriptor")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def flush(self) -> None:
        """Have nothing to flush."""


class Backstop:
    """The timer of this process.

    Args:
        path: The file; it is removed at `stop`.
        after: Seconds without a tick after which the stacks are written.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, after: float) -> None:
        self._path = path
        self._after = after
        self._descriptor = os.open(path, _FLAGS, 0o600)
        self._armed: weakref.ref[_File] | None = None
        self._is_given_up = False
        self._owner = os.getpid()
        self._forking = threading.RLock()
        _backstops.add(self)

    def tick(self) -> Dump | None:
        """Push the timer off; return what was written because this came late."""
        with self._forking:
            if self._descriptor < 0 or self._owner != os.getpid():
                return None
            dump = self._read()
            if self._is_free():
                self._arm(self._after)
            return dump

    def rest(self) -> None:
        """Put the timer off as good as for ever: there are no ticks for a while.

        It is not taken back, or nobody would see that the application takes it.
        """
        with self._forking:
            if self._armed is not None and self._is_free():
                self._arm(_NEVER)

    def stop(self) -> None:
        """Take it back for good, and remove the file."""
        with self._forking:
            self._disarm()
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
                if self._owner == os.getpid():
                    with contextlib.suppress(OSError):
                        self._path.unlink()

    def before_fork(self) -> None:
        """Take it back, and let no tick set it until the fork has been made."""
        self._forking.acquire()
        self._disarm()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._forking.release()

    def after_fork_in_child(self) -> None:
        """Be nobody's: the child has a file of its own, if any."""
        self._forking = threading.RLock()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _is_free(self) -> bool:
        """Return whether the timer may be set: it is ours, or was nobody's."""
        if self._armed is not None and self._armed() is None:
            self._is_given_up = True
        # pytest sets it for every test.
        self._is_given_up = self._is_given_up or "pytest" in sys.modules
        return not self._is_given_up

    def _arm(self, after: float) -> None:
        import faulthandler  # noqa: PLC0415 - only where it is asked for

        file = _File(self._descriptor)
        faulthandler.dump_traceback_later(after, file=file)  # pyright: ignore[reportArgumentType]  # `fileno` and `flush` are all it needs
        self._armed = weakref.ref(file)

    def _disarm(self) -> None:
        armed, self._armed = self._armed, None
        if armed is None:
            return
        if armed() is None:
            self._is_given_up = True
            return
        import faulthandler  # noqa: PLC0415 - only where it is asked for

        faulthandler.cancel_dump_traceback_later()

    def _read(self) -> Dump | None:
        facts = os.fstat(self._descriptor)
        if not facts.st_size:
            return None
        size = min(facts.st_size, _LARGEST)
        data = os.pread(self._descriptor, size, 0)
        os.ftruncate(self._descriptor, 0)
        return Dump(facts.st_mtime, data.decode(errors="replace"))


_backstops: Final[weakref.WeakSet[Backstop]] = weakref.WeakSet()


def _before() -> None:
    for backstop in tuple(_backstops):
        backstop.before_fork()


def _after_in_parent() -> None:
    for backstop in tuple(_backstops):
        backstop.after_fork_in_parent()


def _after_in_child() -> None:
    for backstop in tuple(_backstops):
        backstop.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
