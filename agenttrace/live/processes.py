"""Reads the journals of one state directory, again and again.

Only what has changed is read anew, so that thousands of open steps can be looked at
several times a second.  No lock is taken; that of a live process is asked about, and a
process's own is not even opened (see `journal.lock`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from agenttrace.journal import (
    JournalError,
    State,
    UnknownVersionError,
    is_alive,
    read_journal,
)
from agenttrace.journal.file import SUFFIX as JOURNAL_SUFFIX
from agenttrace.journal.process import of_process
from agenttrace.journal.resources import resource_from
from agenttrace.live.limits import USUAL, limits_of
from agenttrace.live.steps import SECOND, Forest, forest
from agenttrace.records import NamedTuple
from agenttrace.recovery import list_locks, pid_of
from agenttrace.recovery.found import reason_of
from agenttrace.semconv import SERVICE_NAME
from agenttrace.settings import INSTANCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agenttrace.journal import Slot
    from agenttrace.journal.reader import Known
    from agenttrace.live.steps import Rank

FROZEN: Final = 3.0
"""Seconds without a tick, several of which a process makes in one that has a step open.

It is stopped then, or one of its threads keeps the interpreter to itself.
"""


class Process(NamedTuple):
    """A process that lives.

    Args:
        pid: Its id, as it was told it itself: in a container that is the container's.
        instances: The names of its journals.
        service: `service.name`, None where it has none.
        last_tick: When it was last known to be alive, nanoseconds since the epoch.
        silence: Seconds since then.
        forest: Its open steps.
        is_frozen: Whether it has a step open and has not ticked for `FROZEN` seconds.
    """

    pid: int
    instances: tuple[str, ...]
    service: str | None
    last_tick: int
    silence: float
    forest: Forest
    is_frozen: bool

    @property
    def rank(self) -> Rank:
        """How urgent it is: nobody watches over the steps of one that is frozen."""
        rank = self.forest.rank
        return (0, rank[1]) if self.is_frozen else rank

    def stuck_only(self) -> Process:
        """Return it without the runs that are well; as it is where it is frozen."""
        return self if self.is_frozen else self._replace(forest=self.forest.stuck())


class Dead(NamedTuple):
    """A process that died with open steps, which nobody has recovered yet.

    Args:
        pid: Its id.
        instance: The name of its journal.
        service: `service.name`, None where it has none.
        last_tick: When it was last known to be alive, nanoseconds since the epoch.
        open: How many steps were open.
    """

    pid: int
    instance: str
    service: str | None
    last_tick: int
    open: int


class Unreadable(NamedTuple):
    """A process of which nothing can be told.

    Args:
        pid: Its id, None where the name of its journal has none.
        instance: The name of its journal; the directory, if that cannot be listed.
        reason: Why it is so.
    """

    pid: int | None
    instance: str
    reason: str


class Picture(NamedTuple):
    """What there was to see at one instant.

    Args:
        now: The instant, nanoseconds since the epoch.
        processes: Those that live, the most urgent first.
        dead: Those that died with open steps.
        unreadable: Those of which nothing can be told.
    """

    now: int
    processes: Sequence[Process]
    dead: Sequence[Dead]
    unreadable: Sequence[Unreadable]


class _Journal:
    """What is known of one journal of a live process."""

    __slots__ = ("known", "last_tick", "limits", "pid", "service", "slots")

    def __init__(self) -> None:
        self.known: Known = {}
        self.slots: list[tuple[Slot, int]] = []
        self.pid = 0
        self.last_tick = 0
        self.service: str | None = None
        self.limits = USUAL


class Live:
    """The processes that have journals in *state_dir*.

    Args:
        state_dir: The state directory; it need not be there.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / INSTANCES
        self._journals: dict[str, _Journal] = {}
        self._dead: dict[str, tuple[tuple[int, int], Dead | None]] = {}

    def look(self) -> Picture:
        """Return what there is to see now.  What cannot be read is told in it."""
        unreadable: list[Unreadable] = []
        journals: dict[str, _Journal] = {}
        dead: dict[str, tuple[tuple[int, int], Dead | None]] = {}
        locks: list[Path] = []
        try:
            locks = list_locks(self._directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            unreadable.append(Unreadable(None, str(self._directory), reason_of(error)))
        for lock in locks:
            name = lock.stem
            path = lock.with_suffix(JOURNAL_SUFFIX)
            try:
                if is_alive(lock):
                    journals[name] = self._read(path, self._journals.get(name))
                else:
                    dead[name] = self._read_dead(path, self._dead.get(name))
            except FileNotFoundError:
                continue  # it has just ended well, or has no journal yet
            except UnknownVersionError:
                reason = "another version of agenttrace has written its journal"
                unreadable.append(Unreadable(pid_of(name), name, reason))
            except JournalError:
                unreadable.append(Unreadable(pid_of(name), name, "damaged journal"))
            except OSError as error:
                unreadable.append(Unreadable(pid_of(name), name, reason_of(error)))
        self._journals, self._dead = journals, dead
        now = time.time_ns()
        processes = [
            _process(names, [journals[name] for name in names], now)
            for names in _by_process(journals)
        ]
        processes.sort(key=lambda each: (each.rank, not each.forest.steps, each.pid))
        return Picture(
            now, processes, [each for _, each in dead.values() if each], unreadable
        )

    @staticmethod
    def _read(path: Path, before: _Journal | None) -> _Journal:
        with read_journal(path) as reading:
            header = reading.header
            if before is None:
                before = _Journal()
                before.pid = header.pid
                before.service = _service_of(header.resource)
                before.limits = limits_of(header.resource)
            before.last_tick = header.last_tick
            before.slots = list(reading.look(before.known))
        return before

    @staticmethod
    def _read_dead(
        path: Path, before: tuple[tuple[int, int], Dead | None] | None
    ) -> tuple[tuple[int, int], Dead | None]:
        """Read the journal of a dead process, unless it is as it was *before*."""
        facts = path.stat()
        version = facts.st_mtime_ns, facts.st_size
        if before is not None and before[0] == version:
            return before
        with read_journal(path) as reading:
            header = reading.header
            left = sum(slot.state is State.OPEN for slot in reading)
        if not left:
            return version, None
        service = _service_of(header.resource)
        found = Dead(header.pid, path.stem, service, header.last_tick, left)
        return version, found


def _by_process(names: Iterable[str]) -> list[list[str]]:
    """Return *names* by process: one that was configured again has several."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[of_process(name)].append(name)
    return [sorted(group) for group in found.values()]


def _process(names: list[str], journals: list[_Journal], now: int) -> Process:
    slots = [found for journal in journals for found in journal.slots]
    last_tick = max(journal.last_tick for journal in journals)
    is_open = False
    alive_at = last_tick
    for slot, beat in slots:
        if slot.state is State.OPEN:
            is_open = True
            # The first one that opens after an hour of rest comes before its tick.
            # What is said to be later is no sign: the clock was set back since.
            signs = (sign for sign in (slot.started_at, beat) if sign <= now)
            alive_at = max(alive_at, max(signs, default=0))
    silence = max(0, now - alive_at) / SECOND
    return Process(
        journals[-1].pid,
        tuple(names),
        journals[-1].service,
        last_tick,
        silence,
        # Of one that was configured again the last ones hold for all.
        forest(slots, now, journals[-1].limits),
        is_open and silence > FROZEN,
    )


def _service_of(resource: bytes) -> str | None:
    service = resource_from(resource).attributes.get(SERVICE_NAME)
    return None if service is None else str(service)
