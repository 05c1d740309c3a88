"""Finds the dead of a directory, and sends what they have left, so much at a time."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.journal import take_over
from agenttrace.recovery.orphan import Orphan, Recovered, tell_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenttrace.delivery.frames import Frame

    Settle = Callable[[], None]
    Send = Callable[[Frame, Settle], bool]
    """Takes a frame to its destinations; False where nobody takes any more."""

_WINDOW: Final = 8 * 2**20
"""Bytes on their way at once: recovery must not fill the memory of who does it."""
_PATIENCE: Final = 1.0
"""Seconds after which a wait looks whether it is to stop."""


class Recovery:
    """Recovers the dead of one directory, again and again.

    Args:
        directory: Where instances keep their files.
        send: Where frames go.
        window: Bytes that may be on their way at once.
    """

    def __init__(self, directory: Path, send: Send, *, window: int = _WINDOW) -> None:
        self._directory = directory
        self._send = send
        self._window = window
        self._progress = threading.Condition()
        self._on_their_way = 0
        self._orphans: list[Orphan] = []
        self._stopped = False
        self.total = Recovered()
        """What has been found so far."""

    def run(
        self,
        tell: Callable[[Recovered], object] | None = None,
        tell_of_one: Callable[[Path, Recovered], object] | None = None,
    ) -> Recovered:
        """Take over every dead process that is found; return what it finds this time.

        What was sent is not settled yet, see `wait`.  Never raises.

        Args:
            tell: Called with what was found so far, after each batch.
            tell_of_one: Called after each process with the path of its lock and what
                was found of it; its `failed` says that it could not be read.
        """
        total = Recovered()
        for path in locks_in(self._directory):
            if self._stopped:
                break
            before = replace(total)
            orphan = _taken_over(path, total)
            if orphan is None:
                if tell_of_one is not None and total.failed > before.failed:
                    tell_of_one(path, total.since(before))
                continue
            self._orphans.append(orphan)
            total.processes += 1
            try:
                for frame, settle, found in orphan.frames():
                    total.add(found)
                    if tell is not None:
                        tell(total)
                    if not self._pass_on(orphan, frame, settle):
                        break
                else:
                    orphan.is_read = True
            except OSError as error:
                total.failed += 1
                tell_of(path, error)
            total.damaged += orphan.damaged
            if tell_of_one is not None:
                tell_of_one(path, total.since(before))
            self._finish(orphan)
        self.total.add(total)
        safety.count(safety.Count.SPANS_RECOVERED, total.lost + total.ended)
        safety.count(safety.Count.SPANS_REDELIVERED, total.resent)
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
        self._stopped = True
        with self._progress:
            self._progress.notify_all()

    def close(self) -> None:
        """Let go of what is not settled: the next one finds it."""
        self.stop()
        for orphan in self._orphans[:]:
            orphan.release()
        self._orphans.clear()

    def _pass_on(self, orphan: Orphan, frame: Frame, settle: Settle) -> bool:
        size = len(frame.payload)
        with self._progress:
            while self._on_their_way and self._on_their_way + size > self._window:
                if self._stopped:
                    return False
                self._progress.wait(_PATIENCE)
            self._on_their_way += size
            orphan.unsettled += 1

        def settled() -> None:
            settle()
            with self._progress:
                self._on_their_way -= size
                orphan.unsettled -= 1
                self._progress.notify_all()
            self._finish(orphan)

        return not self._stopped and self._send(frame, settled)

    def _finish(self, orphan: Orphan) -> None:
        with self._progress:
            if orphan.unsettled or not orphan.is_read or orphan not in self._orphans:
                return
            self._orphans.remove(orphan)
            self._progress.notify_all()
        try:
            orphan.remove()
        except OSError as error:
            tell_of(orphan.lock.path, error)


def locks_in(directory: Path) -> list[Path]:
    """Return the lock files in *directory*, the oldest first; none if it is not there.

    >>> from pathlib import Path; locks_in(Path("/nowhere"))
    []
    """
    try:
        found = [(path.stat().st_mtime_ns, path) for path in directory.glob("*.lock")]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def _taken_over(path: Path, total: Recovered) -> Orphan | None:
    try:
        lock = take_over(path)
    except OSError as error:
        total.failed += 1
        tell_of(path, error)
        return None
    return None if lock is None else Orphan(lock)
