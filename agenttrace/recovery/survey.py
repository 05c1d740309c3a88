"""Looks at the instances of a directory, and takes nothing over.

For whoever tells people what there is: the living, the dead that wait for recovery, and
how much of each stands on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace.delivery.segment_files import by_instance
from agenttrace.journal import is_alive
from agenttrace.journal.file import SUFFIX as JOURNAL_SUFFIX
from agenttrace.journal.lock import SUFFIX as LOCK_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agenttrace.delivery.segment_files import Files

_SUFFIXES: Final = (LOCK_SUFFIX, JOURNAL_SUFFIX)


class Instance(NamedTuple):
    """One process that has files in the directory.

    Args:
        name: `<pid>-<16 hexadecimal digits>`.
        is_alive: Whether its lock is held; None where that cannot be found out, as of
            another user's, or where there is no lock file.
        journal_bytes: Size of its journal on disk.
        spool_bytes: Bytes of its spool.
    """

    name: str
    is_alive: bool | None
    journal_bytes: int
    spool_bytes: int

    @property
    def pid(self) -> int | None:
        """The process id, None where the name has none."""
        return pid_of(self.name)


def survey(directory: Path) -> list[Instance]:
    """Return the instances in *directory* by name; none where it is not there.

    Raises:
        OSError: It cannot be listed.
    """
    try:
        names = {
            path.name.removesuffix(suffix)
            for path in directory.iterdir()
            for suffix in _SUFFIXES
            if path.name.endswith(suffix)
        }
        spools = by_instance(directory)
    except FileNotFoundError:
        return []
    names |= spools.keys()
    return [_instance(directory, name, spools.get(name, ())) for name in sorted(names)]


def pid_of(name: str) -> int | None:
    """Return the process id in the name of an instance, None where there is none.

    >>> pid_of("4711-0123456789abcdef")
    4711
    """
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _instance(directory: Path, name: str, spool: Files) -> Instance:
    try:
        alive = is_alive(directory / (name + LOCK_SUFFIX))
    except OSError:
        alive = None
    return Instance(
        name,
        alive,
        _size([directory / (name + JOURNAL_SUFFIX)]),
        _size(path for _, path in spool),
    )


def _size(paths: Iterable[Path]) -> int:
    size = 0
    for path in paths:
        try:
            size += path.stat().st_size
        except OSError:  # gone by now: its process has ended well
            continue
    return size
