"""Who is alive: one lock file per instance, which the kernel frees when it dies.

The lock is a POSIX record lock (`fcntl.lockf`).  Two of its rules shape this module.
Closing *any* descriptor of the file frees the lock of the whole process, so a process
never opens a lock file that it holds: those are known by device and inode, however
they are spelled.  And a forked child does not inherit the lock, only the descriptor,
which it can close without harm to its parent.

Which instances there are, and what is done with those of the dead, is not decided here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # asked for before each use

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX: Final = ".lock"
_PATIENCE: Final = 1.0
"""Seconds that an owner waits for a finder who came between creating and locking."""
_HELD_ELSEWHERE: Final = (errno.EACCES, errno.EAGAIN)
_FLAGS: Final = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)

# What asks for a lock on a whole file, `struct flock`; l_type and l_whence come first
# on Linux, last on macOS and the BSDs.
_IS_LINUX: Final = sys.platform.startswith("linux")
_FLOCK: Final = struct.Struct("@hhqqi" if _IS_LINUX else "@qqihh")

_Identity = tuple[int, int]

# Re-entrant: a finalizer that releases a lock may run on a thread that is inside.
_mutex = threading.RLock()
_held: dict[_Identity, InstanceLock] = {}


class InstanceLock:
    """A lock file that this process has locked.  Made by `hold` and `take_over`.

    Attributes:
        path: The lock file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._identity = _identity_of(os.fstat(descriptor))
        _held[self._identity] = self

    @property
    def is_held(self) -> bool:
        """Whether this process still has it."""
        return self._descriptor >= 0

    def release(self, *, remove: bool) -> None:
        """Let go of it; a second time, or in a forked child, nothing happens.

        Args:
            remove: Delete the file first, while nobody else can have it.

        Raises:
            OSError: The file could not be deleted.  The lock is released all the same.
        """
        with _mutex:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor < 0:
                return
            try:
                if remove:
                    with contextlib.suppress(FileNotFoundError):
                        self.path.unlink()
            finally:
                _held.pop(self._identity, None)
                os.close(descriptor)

    def forget(self) -> None:
        """Close what a forked child has of its parent's lock."""
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):
            os.close(descriptor)


def hold(directory: Path, instance: str) -> InstanceLock:
    """Create and lock the lock file of *instance*, whose owner this process is.

    Raises:
        OSError: It cannot be created or locked: a directory that is read-only or
            full, a file system or a platform without locks.
    """
    path = directory / (instance + SUFFIX)
    give_up_at = time.monotonic() + _PATIENCE
    while True:
        with _mutex:
            lock = _lock(path, _FLAGS | os.O_CREAT)
        # A finder may have locked the new file first, taken it for a dead process's
        # and removed it.
        if lock is not None:
            return lock
        if time.monotonic() >= give_up_at:
            raise OSError(errno.EAGAIN, "somebody else holds this lock", str(path))
        time.sleep(0.001)


def take_over(path: Path) -> InstanceLock | None:
    """Lock the lock file at *path*, if its process is dead.

    Returns:
        The lock; None where its process is alive or this one, or the file is gone.

    Raises:
        OSError: It cannot be opened, as one of another user, or cannot be locked on
            this file system or platform.
    """
    with _mutex:
        try:
            if _identity_of(path.stat()) in _held:
                return None
            return _lock(path, _FLAGS)
        except FileNotFoundError:  # somebody was faster
            return None


def is_alive(path: Path) -> bool:
    """Return whether some process holds the lock file at *path*, this one included.

    It takes nothing over: for whoever only wants to look.

    Raises:
        OSError: It is gone, or another user's, or cannot be locked on this file system
            or platform.
    """
    return holder(path) is not None


def holder(path: Path) -> int | None:
    """Return the process id of who holds the lock file at *path*, None if nobody does.

    It takes nothing over.  A holder in another PID namespace has the id 0.

    Raises:
        OSError: As of `is_alive`.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no file locks on this platform", str(path))
    with _mutex:
        # First, as in `take_over`: to close it would be to let go of it.
        if _identity_of(path.stat()) in _held:
            return os.getpid()
        descriptor = os.open(path, _FLAGS & ~os.O_RDWR | os.O_RDONLY)
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _wanted_lock())
        except OSError as error:
            message = f"this file cannot be locked ({error.strerror})"
            raise OSError(error.errno, message, str(path)) from error
        finally:
            os.close(descriptor)
    said = _FLOCK.unpack_from(answer)
    kind, pid = (said[0], said[4]) if _IS_LINUX else (said[3], said[2])
    return None if kind == fcntl.F_UNLCK else int(pid)


def _wanted_lock() -> bytes:
    """Return an exclusive lock on a whole file, as the system is asked for it."""
    if fcntl is None:  # pragma: no cover - asked for before
        return b""
    start, length, pid = 0, 0, 0
    if _IS_LINUX:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, pid)
    else:
        wanted = _FLOCK.pack(start, length, pid, fcntl.F_WRLCK, os.SEEK_SET)
    return wanted.ljust(-(-_FLOCK.size // 8) * 8, b"\0")


def _lock(path: Path, flags: int) -> InstanceLock | None:
    """Open and lock *path*; None where somebody else has it, or it is not there now."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "no file locks on this platform", str(path))
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What was locked may have been unlinked by its last holder meanwhile, and
        # the name may be somebody else's by now.
        if _identity_of(os.fstat(descriptor)) == _identity_of(path.stat()):
            lock = InstanceLock(path, descriptor)
            descriptor = -1
            return lock
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _HELD_ELSEWHERE:
            return None
        message = f"this file cannot be locked ({error.strerror})"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def _identity_of(facts: os.stat_result) -> _Identity:
    return facts.st_dev, facts.st_ino


def _after_fork() -> None:
    global _mutex  # noqa: PLW0603 - another thread may have held it at the fork
    _mutex = threading.RLock()
    for lock in _held.values():
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
