"""Whether spans are kept and delivered here: the checks of `agenttrace doctor`.

Each check looks at one thing and says what it found, how bad that is, and what to do.
Nothing is changed by them but a directory of a moment's life inside the state
directory, and no process loses its lock.

| module | looks at |
|---|---|
| `findings` | what a check says |
| `state_directory` | the directory: rights, room, locks, maps, its file system |
| `processes` | whose files are in it, and what waits there |
| `destinations` | whether spans arrive where the environment sends them |
| `installation` | versions, and distributions of our name |
| `applications` | what processes have noticed of the applications in them |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.diagnosis import (
    applications,
    destinations,
    installation,
    processes,
    state_directory,
)
from agenttrace.diagnosis.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Finding", "Level", "examine", "examine_process"]


def examine(state_dir: Path, *, timeout: float = 5.0) -> Iterator[Finding]:
    """Yield what each check finds, as it is found.

    Args:
        state_dir: The state directory.
        timeout: Longest wait for a destination in seconds.
    """
    yield from state_directory.checks(state_dir)
    yield from processes.checks(state_dir)
    yield from destinations.checks(state_dir, timeout)
    yield from installation.checks()
    yield from applications.checks(state_dir)


def examine_process(state_dir: Path, pid: int) -> Iterator[Finding]:
    """Yield what the process *pid* has noticed of the application in it."""
    yield from applications.checks(state_dir, pid)
