"""Finds the dead of a directory, and sends what they have left, so much at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec

from agenttrace import safety
from agenttrace.crashpoints import crash_point
from agenttrace.delivery import segment_files
from agenttrace.journal import is_alive, take_over
from agenttrace.journal.lock import SUFFIX
from agenttrace.journal.process import of_process
from agenttrace.recovery.found import Recovered, reason_of, tell_of
from agenttrace.recovery.orphan import Orphan, look_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agenttrace.delivery.frames import Frame
    from agenttrace.journal import InstanceLock

    Settle = Callable[[], None]
    Send = Callable[[Frame, Settle], bool]
    """Takes a frame to its destinations; False where nobody takes any more."""
    Tell = Callable[[Recovered], object]
    TellOfOne = Callable[[Path, Recovered], object]

P = ParamSpec("P")

_WINDOW: Final = 8 * 2**20
"""Bytes on their way at once: recovery must not fill the memory of who does it."""
_AT_ONCE: Final = 32
"""Locks that are taken together: the directory is listed once for all of them.  Twice
as many may be held, each with a descriptor, of which the application has 1024 or 256.
"""
_PATIENCE: Final = 1.0
"""Seconds after which a wait looks whether it is to stop, and that closing waits for a
disk that is being written to.
"""
_TRY_AGAIN: Final = 600.0
"""Seconds that what could not be recovered is left alone."""


class Recovery:
    """Recovers the dead of one directory, again and again.

    Args:
        directory: Where instances keep their files.
        send: Where frames go.
        window: Bytes that may be on their way at once, at most 8 MiB.
    """

    def __init__(self, directory: Path, send: Send, *, window: int = _WINDOW) -> None:
        self._directory = directory
        self._send = send
        self._window = min(window, _WINDOW)
        self._progress = threading.Condition()
        self._on_their_way = 0
        self._orphans: list[Orphan] = []
        self._left_alone: dict[str, float] = {}
        self._stopped = False
        self.is_refused = False
        """Whether nobody takes any more of what is found: `close` lets go of it."""
        self.total = Recovered()
        """What has been found so far."""

    def run(
        self, tell: Tell | None = None, tell_of_one: TellOfOne | None = None
    ) -> Recovered:
        """Take over every dead process that is found; return what it finds this time.

        What was sent is not settled yet, see `wait`.  Waits while much is on its way.
        Never raises.  By one thread at a time.

        Args:
            tell: Called with what was found so far, after each batch.
            tell_of_one: Called after each process with the path of its lock and what
                was found of it; its `failed` says that it could not be read.
        """
        total = Recovered()
        for paths in _together(self._locks()):
            if not self._has_few():
                break
            orphans = self._taken_over(paths, total, tell_of_one)
            for orphan in orphans:
                if self.is_refused:
                    return total
                before = replace(total)
                self._read(orphan, total, tell)
                _call(tell_of_one, orphan.lock.path, total.since(before))
        return total

    def wait(self, timeout: float) -> bool:
        """Return whether all of it is settled, and the files gone, in time.

        Args:
            timeout: Longest wait in seconds.
        """
        with self._progress:
            return self._progress.wait_for(lambda: not self._orphans, timeout)

    def stop(self) -> None:
        """Take nothing more over, and leave to others what is not settled."""
        with self._progress:
            self._stopped = True
            self._progress.notify_all()

    def close(self) -> None:
        """Let go of what is not settled: the next one finds it.

        What is delivered from here on is not noted any more: it may be delivered once
        more, in the same bytes.
        """
        self.stop()
        with self._progress:
            orphans, self._orphans = self._orphans, []
            self._progress.notify_all()
        patience = _PATIENCE
        for orphan in orphans:
            if not orphan.release(patience):
                patience = 0.0  # one disk, and one wait for it

    def forget(self) -> None:
        """Let go, in a forked child, of what is its parent's.  Nothing is written."""
        self._stopped = True
        for orphan in self._orphans[:]:
            orphan.forget()

    def _locks(self) -> list[Path]:
        try:
            return list_locks(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._tell(self._directory, error)
            return []

    def _has_few(self) -> bool:
        """Wait until few are on their way; return False if it is to stop."""
        with self._progress:
            while not self._stopped and len(self._orphans) > _AT_ONCE:
                self._progress.wait(_PATIENCE)
            return not self._stopped

    def _taken_over(
        self,
        processes: Iterable[Sequence[Path]],
        total: Recovered,
        tell_of_one: TellOfOne | None,
    ) -> list[Orphan]:
        """Take over what is dead of *processes*, and find out what is told of it."""
        held = [self._locked(paths, total, tell_of_one) for paths in processes]
        locks = [lock for some in held for lock in some]
        if not locks:
            return []
        try:
            # Since they are locked: a process may have written until it was dead.
            files = segment_files.by_instance(self._directory)
        except OSError as error:
            total.failed += len(locks)
            self._tell(self._directory, error)
            for lock in locks:
                with contextlib.suppress(OSError):
                    lock.release(remove=False)
            return []
        orphans: list[Orphan] = []
        for some in held:
            of_one = [
                Orphan(lock, files.get(lock.path.name.removesuffix(SUFFIX), ()))
                for lock in some
            ]
            try:
                look_through(of_one)
            except Exception as error:  # noqa: BLE001 - of files that were written by anybody
                safety.note("recovery", error)
                for orphan in of_one:
                    orphan.problem = reason_of(error)
            orphans += of_one
        with self._progress:
            if not self._stopped:
                self._orphans += orphans
                return orphans
        for orphan in orphans:
            orphan.release()
        return []

    def _locked(
        self,
        paths: Sequence[Path],
        total: Recovered,
        tell_of_one: TellOfOne | None,
    ) -> list[InstanceLock]:
        """Take the locks of one process, in the order in which all take them.

        Who finds the first one taken leaves the process to whoever has it.  Who finds
        a later one taken, and had the first, comes when all of them have been looked
        through by somebody: nothing else leaves the first one free.
        """
        locks: list[InstanceLock] = []
        for path in paths:
            if self._left_alone.get(path.name, 0.0) > time.monotonic():
                continue
            try:
                lock = take_over(path)
            except OSError as error:
                # Where nothing can be written nothing is taken over, of the living
                # either: whether there is anything to take is asked by reading.
                if _is_held(path):
                    break
                self._leave_alone(path, reason_of(error), total)
                _call(tell_of_one, path, Recovered(failed=1))
                continue
            if lock is not None:
                locks.append(lock)
            elif not locks and path.exists():
                break
        crash_point("locks taken")
        return locks

    def _read(self, orphan: Orphan, total: Recovered, tell: Tell | None) -> None:
        """Send what *orphan* has left."""
        if orphan.problem is None:
            self._add(total, Recovered(processes=1))
            try:
                for frame, settle, found in orphan.frames():
                    self._add(total, found)
                    _call(tell, total)
                    if not self._pass_on(orphan, frame, settle, found):
                        return  # closing lets go of it
                orphan.is_read = True
            except Exception as error:  # noqa: BLE001 - of files that were written by anybody
                if not isinstance(error, OSError):
                    safety.note("recovery", error)
                orphan.problem = reason_of(error)
        self._add(total, Recovered(damaged=orphan.damaged))
        if orphan.problem is not None:
            self._leave_alone(orphan.lock.path, orphan.problem, total)
        self._finish(orphan)

    def _add(self, total: Recovered, found: Recovered) -> None:
        total.add(found)
        self.total.add(found)

    def _leave_alone(self, path: Path, reason: str, total: Recovered) -> None:
        self._add(total, Recovered(failed=1))
        self._left_alone[path.name] = time.monotonic() + _TRY_AGAIN
        if not self._stopped:
            tell_of(path, reason)

    def _tell(self, path: Path, error: OSError) -> None:
        # After the end nobody may write: a daemon thread that holds the lock of
        # stderr when the interpreter goes makes it abort.
        if not self._stopped:
            tell_of(path, reason_of(error))

    def _pass_on(
        self, orphan: Orphan, frame: Frame, settle: Settle, found: Recovered
    ) -> bool:
        size = len(frame.payload)
        with self._progress:
            while self._on_their_way and self._on_their_way + size > self._window:
                if self._stopped:
                    return False
                self._progress.wait(_PATIENCE)
            self._on_their_way += size
            orphan.unsettled += 1

        def settled() -> None:
            try:
                settle()
            except Exception as error:  # noqa: BLE001 - a lane has other frames to send
                safety.note("recovery.settle", error)
            # Not when it is found: who is refused finds it again, and so does the next.
            safety.count(safety.Count.SPANS_RECOVERED, found.lost + found.ended)
            safety.count(safety.Count.SPANS_REDELIVERED, found.resent)
            with self._progress:
                self._on_their_way -= size
                orphan.unsettled -= 1
                self._progress.notify_all()
            self._finish(orphan)

        if self._stopped:
            return False
        self.is_refused = not self._send(frame, settled)
        return not self.is_refused

    def _finish(self, orphan: Orphan) -> None:
        """Remove the files of *orphan*, if all of it is settled."""
        with self._progress:
            is_done = orphan.is_read or orphan.problem is not None
            if orphan.unsettled or not is_done or orphan.is_finished:
                return
            if orphan not in self._orphans:  # let go of
                return
            orphan.is_finished = True
        try:
            if orphan.problem is None:
                orphan.remove()
            else:
                orphan.release()
        except OSError as error:
            # What could not be removed says by now that it is settled.
            self._left_alone[orphan.lock.path.name] = time.monotonic() + _TRY_AGAIN
            self._tell(orphan.lock.path, error)
        except Exception as error:  # noqa: BLE001 - a lane has other frames to send
            safety.note("recovery.remove", error)
        with self._progress:
            if orphan in self._orphans:
                self._orphans.remove(orphan)
            self._progress.notify_all()


def locks_in(directory: Path) -> list[Path]:
    """Return the lock files in *directory*, the oldest first; none if it is not there.

    What has such a name and is not a file is none.

    >>> from pathlib import Path; locks_in(Path("/nowhere"))
    []
    """
    with contextlib.suppress(OSError):
        return list_locks(directory)
    return []


def list_locks(directory: Path) -> list[Path]:
    """Do the same as `locks_in`, for whoever says why there are none.

    Raises:
        OSError: It is not there, or cannot be listed.
    """
    found: list[tuple[int, str]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.endswith(SUFFIX):
                continue
            # Each for itself: somebody else may be removing it.
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    found.append((facts.st_mtime_ns, entry.path))
    return [Path(path) for _, path in sorted(found)]


def _is_held(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return is_alive(path)
    return False


def _together(paths: Iterable[Path]) -> Iterator[list[list[Path]]]:
    """Yield *paths* by process, each in the order of its journals, some at a time."""
    processes: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        processes[of_process(path.name.removesuffix(SUFFIX))].append(path)
    some: list[list[Path]] = []
    count = 0
    for of_one in processes.values():
        if some and count + len(of_one) > _AT_ONCE:
            yield some
            some, count = [], 0
        some.append(sorted(of_one))
        count += len(of_one)
    if some:
        yield some


def _call(tell: Callable[P, object] | None, *args: P.args, **kwargs: P.kwargs) -> None:
    if tell is not None:
        try:
            tell(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - what shows progress must not end it
            safety.note("recovery.tell", error)
