"""The processes that have files in the state directory, and what waits there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.diagnosis.findings import Finding, ok, warning
from agenttrace.recovery import survey
from agenttrace.settings import INSTANCES, MEBIBYTE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agenttrace.recovery import Instance


def checks(directory: Path) -> Iterator[Finding]:
    """Yield what there is to say of the processes in *directory*."""
    try:
        found = survey(directory / INSTANCES)
    except OSError as error:
        yield warning(
            "processes",
            f"cannot be listed: {error.strerror}",
            f"look at the rights of {directory / INSTANCES}, and at its disk",
        )
        return
    alive = [each for each in found if each.is_alive]
    dead = [each for each in found if each.is_alive is False]
    unknown = [each for each in found if each.is_alive is None]
    yield ok("processes", f"{len(alive)} alive: {_waiting(alive)}")
    if dead:
        yield warning(
            "recovery",
            f"{len(dead)} have died and wait for recovery: {_waiting(dead)}",
            "agenttrace recover, or agenttrace guard for good",
        )
    else:
        yield ok("recovery", "nothing waits for it")
    if unknown:
        names = ", ".join(each.name for each in unknown[:3])
        yield warning(
            "left files",
            f"of {len(unknown)} it cannot be found out whether they live ({names})",
            "another user's are that user's to recover; others may be removed",
        )


def _waiting(instances: Sequence[Instance]) -> str:
    journals = sum(each.journal_bytes for each in instances)
    spools = sum(each.spool_bytes for each in instances)
    return f"{_size(journals)} of journals, {_size(spools)} of spool"


def _size(number: int) -> str:
    """Return *number* of bytes for people.

    >>> _size(2101248)
    '2.0 MiB'
    """
    if number < MEBIBYTE:
        return f"{number / 1024:.1f} KiB" if number else "0 bytes"
    return f"{number / MEBIBYTE:,.1f} MiB"
