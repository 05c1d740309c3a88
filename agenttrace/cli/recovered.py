"""What a recovery came to, in words and as JSON; `recover` and `guard` share it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.recovery import pid_of

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.recovery import Recovered
    from agenttrace.runtime.rescue import Progress


def left_of(found: Recovered, progress: Progress) -> int:
    """Return how many spans were found and are neither delivered nor refused."""
    return max(0, found.spans - progress.delivered - progress.refused)


def sentences(found: Recovered, progress: Progress, whereto: str) -> list[str]:
    """Return what was found, what is delivered, and what could not be."""
    processes = _count(found.processes, "process", "processes")
    said = [f"Found {processes} that had died: {_counts(found)}."]
    if found.spans:
        said.append(_of_delivery(found, progress, whereto))
    if progress.refused:
        said.append(f"{_spans(progress.refused)} refused for good{_why(progress)}.")
    if left := left_of(found, progress):
        said.append(
            f"{_spans(left)} not delivered{_why(progress)}: kept on disk, for the next "
            "recovery to send."
        )
    if found.unsampled:
        said.append(f"{_spans(found.unsampled)} not sampled, and not sent.")
    if found.damaged:
        said.append(
            f"{_count(found.damaged, 'record', 'records')} on disk could not be read, "
            "and passed over."
        )
    if found.failed:
        said.append(
            f"The files of {_count(found.failed, 'process', 'processes')} could not be "
            "taken over."
        )
    return said


def of_one(lock: Path, found: Recovered) -> str:
    """Return in one phrase what was found of the process whose lock is *lock*."""
    pid = pid_of(lock.stem)
    who = f"process {lock.stem if pid is None else pid}"
    if found.failed:
        return f"{who}: what it left cannot be taken over"
    said = f"{who} has died: {_counts(found)}"
    if found.damaged:
        said += f", {found.damaged} damaged"
    return said


def found_as_json(found: Recovered) -> dict[str, object]:
    """Return what was found in values that JSON knows."""
    return {
        "processes": found.processes,
        "lost": found.lost,
        "ended": found.ended,
        "resent": found.resent,
        "unsampled": found.unsampled,
        "damaged": found.damaged,
        "failed": found.failed,
    }


def _of_delivery(found: Recovered, progress: Progress, whereto: str) -> str:
    delivered = min(progress.delivered, found.spans)
    if delivered == found.spans:
        return f"Delivered to {whereto}: all of them."
    return f"Delivered to {whereto}: {delivered:,} of {found.spans:,}."


def _counts(found: Recovered) -> str:
    if not found.spans:
        return "no span was open or unsent"
    return f"{found.lost:,} open (lost), {found.ended:,} ended, {found.resent:,} resent"


def _spans(number: int) -> str:
    return "1 span was" if number == 1 else f"{number:,} spans were"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _why(progress: Progress) -> str:
    return f" ({progress.error})" if progress.error else ""
