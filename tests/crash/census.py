"""In which state a kill found a process, as its files tell.

Between the death of one worker and the start of the next, nobody else touches them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from agenttrace.delivery import segment_files
from agenttrace.journal import JournalError, State, read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path


class Found(StrEnum):
    """What a kill may find."""

    OPEN = "spans open"
    ENDED = "ended, no frame yet"
    ENDED_WITH_FRAME = "ended, frame on disk, slot not free"
    MID_APPEND = "half a frame on disk"
    NOT_ACKNOWLEDGED = "sent, not acknowledged"
    JUDGED = "judged, owner goes on"
    RECOVERER = "the recoverer itself"


class Census(NamedTuple):
    """What stands in the files.

    Args:
        found: The states that were found, `NOT_ACKNOWLEDGED` left out: the collector
            has to be asked for it.
        unsettled: Spans in frames that nobody has acknowledged, as far as known here.
    """

    found: set[Found]
    unsettled: Counter[str]


def take(directory: Path, pids: AbstractSet[int], *, was_recovering: bool) -> Census:
    """Return what the processes *pids*, now dead, left in *directory*.

    Args:
        directory: Where instances keep their files.
        pids: Whose files are looked at for their states; of all others the frames.
        was_recovering: Whether one had taken others over when it died.
    """
    found = {Found.RECOVERER} if was_recovering else set[Found]()
    unsettled: Counter[str] = Counter()
    framed: set[str] = set()
    for instance in sorted(segment_files.by_instance(directory)):
        for segment in segment_files.read(directory, instance):
            ids = {
                (trace_id + span_id).hex()
                for _, frame in segment.frames
                for trace_id, span_id in frame.ids
            }
            unsettled.update(ids)
            if _pid_of(instance) in pids:
                framed |= ids
                if segment.problem is not None:
                    found.add(Found.MID_APPEND)
    for path in directory.glob("*.journal"):
        if _pid_of(path.name) in pids:
            found.update(_states(path, framed))
    return Census(found, unsettled)


def is_recovering(directory: Path, pids: AbstractSet[int]) -> bool:
    """Return whether one of *pids*, which are stopped, has taken others over."""
    return any(
        _is_locked(path)
        for path in directory.glob("*.lock")
        if _pid_of(path.name) not in pids
    )


def left_in(directory: Path) -> list[str]:
    """Return the names of the files that are left."""
    return sorted(path.name for path in directory.iterdir())


def _pid_of(name: str) -> int:
    return int(name.partition("-")[0])


def _states(path: Path, framed: set[str]) -> Iterator[Found]:
    try:
        with read_journal(path) as journal:
            for slot in journal:
                match slot.state:
                    case State.OPEN:
                        yield Found.OPEN
                    case State.JUDGED:
                        yield Found.JUDGED
                    case State.ENDED if (slot.trace_id + slot.span_id).hex() in framed:
                        yield Found.ENDED_WITH_FRAME
                    case _:
                        yield Found.ENDED
    except (OSError, JournalError):
        return  # it died while it made it


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False
