"""Processes that live, have spans open, and make no sign: told of by `guard`.

While a span is open its process writes the time into its journal several times a
second.  One that does not, though it holds its lock, is stopped (SIGSTOP, a frozen
container), starved, or held by C code that keeps the GIL.  From inside it nobody could
tell.

Journals are only read, and locks only asked about: nothing is taken over.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace import clock
from agenttrace.delivery.segment_files import by_instance
from agenttrace.journal import JournalError, State, read_journal
from agenttrace.journal.file import SUFFIX
from agenttrace.journal.lock import holder
from agenttrace.recovery import last_sign, locks_in, pid_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agenttrace.delivery.segment_files import Files
    from agenttrace.journal import Slot

_SURE: Final = 1.0
"""Seconds for which it has to make no sign while we look: clocks are set, and a whole
host may have been suspended until just now."""
_MOST: Final = 3
"""Spans that are named."""
_DEEPEST: Final = 50
_SECOND: Final = 1_000_000_000


class Notice(NamedTuple):
    """That a process stands still, or goes on.

    Args:
        instance: The name of its files.
        since: Its last sign before that, nanoseconds since the epoch.
        goes_on: When it was seen to make signs again; None while it stands still.
        open: How many spans it has open.
        spans: The deepest of them, each with those around it.
    """

    instance: str
    since: int
    goes_on: int | None = None
    open: int = 0
    spans: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return it in words, in one line."""
        pid = pid_of(self.instance)
        who = f"process {self.instance if pid is None else pid}"
        if self.goes_on is not None:
            return f"{who} goes on, after {self._seconds():,.0f} s"
        since = datetime.fromtimestamp(self.since / _SECOND, UTC).astimezone()
        number = "1 span" if self.open == 1 else f"{self.open:,} spans"
        named = "; ".join(self.spans)
        return f"{who} stands still since {since:%H:%M:%S}, {number} open: {named}"

    def as_json(self) -> dict[str, object]:
        """Return it in values that JSON knows."""
        said: dict[str, object] = {
            "instance": self.instance,
            "pid": pid_of(self.instance),
            "event": "frozen" if self.goes_on is None else "goes_on",
            "since": clock.iso(self.since),
        }
        if self.goes_on is None:
            return {**said, "open": self.open, "spans": list(self.spans)}
        return {**said, "seconds": round(self._seconds(), 3)}

    def _seconds(self) -> float:
        return ((self.goes_on or self.since) - self.since) / _SECOND


class _Known:
    """What was seen of a process: its last sign, since when, and whether it is told."""

    __slots__ = ("is_told", "seen_at", "sign")

    def __init__(self, sign: int, seen_at: float) -> None:
        self.sign = sign
        self.seen_at = seen_at
        self.is_told = False


class Watch:
    """Watches the processes that have their files in *directory*.

    Args:
        directory: Where their journals are.
        after: Seconds without a sign after which a process stands still.
    """

    def __init__(self, directory: Path, after: float) -> None:
        self._directory = directory
        self._after = after
        self._known: dict[str, _Known] = {}

    def look(self) -> list[Notice]:
        """Return what is new: each standstill, and each end of one, is told once."""
        notices: list[Notice] = []
        alive: set[str] = set()
        locks = locks_in(self._directory)
        spools: dict[str, Files] = {}
        with contextlib.suppress(OSError):
            spools = by_instance(self._directory) if locks else {}
        for lock in locks:
            instance = lock.stem
            if _is_at_work(lock):
                alive.add(instance)
                notice = self._look_at(instance, spools.get(instance, ()))
                if notice is not None:
                    notices.append(notice)
        # What becomes of those that die is told by whoever recovers them.
        for gone in self._known.keys() - alive:
            del self._known[gone]
        return notices

    def _look_at(self, instance: str, spool: Files) -> Notice | None:
        now = time.time_ns()
        try:
            with read_journal(self._directory / (instance + SUFFIX)) as journal:
                sign = last_sign(journal, spool, now)
                slots = (slot for slot in journal if slot.state is State.OPEN)
                return self.judge(instance, sign, slots, time.monotonic(), now)
        except (OSError, JournalError):  # it is ending, or another version's
            return None

    def judge(
        self,
        instance: str,
        sign: int,
        slots: Iterable[Slot],
        seen_at: float,
        now: int,
    ) -> Notice | None:
        """Return what is new of one process.

        Args:
            instance: The name of its files.
            sign: When it last made a sign, nanoseconds since the epoch.
            slots: Its open spans; read only where it has made no sign since.
            seen_at: When that was seen (`time.monotonic`).
            now: The same, nanoseconds since the epoch.
        """
        known = self._known.get(instance)
        if known is None or sign != known.sign:
            self._known[instance] = _Known(sign, seen_at)
            if known is not None and known.is_told:
                return Notice(instance, known.sign, goes_on=sign)
            return None
        if (
            known.is_told
            or seen_at - known.seen_at < _SURE
            or now - sign < self._after * _SECOND
        ):
            return None
        open_spans = list(slots)
        if not open_spans:
            return None
        known.is_told = True
        return Notice(
            instance, sign, open=len(open_spans), spans=tuple(deepest(open_spans))
        )


def _is_at_work(lock: Path) -> bool:
    """Return whether the process that *lock* is named after holds it itself."""
    try:
        pid = holder(lock)
    except OSError:  # gone by now, or another user's
        return False
    # Whoever recovers a dead process holds its lock meanwhile: this guard, or another.
    return pid == 0 or (pid != os.getpid() and pid == pid_of(lock.stem))


def deepest(slots: Sequence[Slot]) -> list[str]:
    """Return the paths of some open spans that have no open span beneath them."""
    by_id = {slot.span_id: slot for slot in slots}
    parents = {slot.parent_id for slot in slots}
    paths: list[list[str]] = []
    for slot in slots:
        if slot.span_id not in parents:
            names: list[str] = []
            at: Slot | None = slot
            while at is not None and len(names) < _DEEPEST:
                names.append(at.name)
                at = by_id.get(at.parent_id)
            paths.append(names[::-1])
    paths.sort(key=len, reverse=True)
    return [" / ".join(path) for path in paths[:_MOST]]
