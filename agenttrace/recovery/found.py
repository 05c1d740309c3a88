"""What a recovery has found: numbers, and one line of the log for what it cannot do."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from agenttrace import safety

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Recovered:
    """What was found and taken over.

    Attributes:
        processes: Dead processes that had left files; one that was configured again
            counts once for each journal.
        lost: Spans that were open when their process died.
        ended: Spans that had ended and were in no frame yet.
        resent: Spans that were in frames no backend had acknowledged.
        unsampled: Spans that were open or ended, and are not exported.
        damaged: Slots, journals and segments that could not be read.
        failed: Processes whose files were left alone: another user's, those of a newer
            agenttrace, or what the disk did not let go of.
    """

    processes: int = 0
    lost: int = 0
    ended: int = 0
    resent: int = 0
    unsampled: int = 0
    damaged: int = 0
    failed: int = 0

    @property
    def spans(self) -> int:
        """Spans that were sent."""
        return self.lost + self.ended + self.resent

    def add(self, other: Recovered) -> None:
        """Add what *other* found."""
        for each in fields(self):
            name = each.name
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, before: Recovered) -> Recovered:
        """Return what was found since it was *before*."""
        names = [each.name for each in fields(self)]
        return Recovered(
            **{name: getattr(self, name) - getattr(before, name) for name in names}
        )


def tell_of(path: Path, reason: str) -> None:
    """Log once that what stands at *path* cannot be recovered, and why."""
    safety.log_once(
        f"recovery: {reason}",
        logging.WARNING,
        "what a dead process has left cannot be recovered: %s: %s (told once)",
        path,
        reason,
    )


def reason_of(error: Exception) -> str:
    """Return why, in words that quote nothing of what was traced."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or type(error).__name__
