"""Where frames go: the contract that every destination fulfils.

A sender never retries and never keeps: it tries once, within a time limit, and says
what came of it.  Patience, order and accounting are the spooler's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame


class Delivered(NamedTuple):
    """The destination has the frame.

    Args:
        rejected: How many of its spans the destination refused for good
            (OTLP's partial success); they are counted as dropped.
        reason: What it said about those.
    """

    rejected: int = 0
    reason: str = ""


class Later(NamedTuple):
    """The destination may take the same frame later.

    Args:
        reason: What went wrong, for the log.
        after: Seconds the destination asked us to wait (`Retry-After`), if it did.
    """

    reason: str
    after: float | None = None


class Refused(NamedTuple):
    """The destination will never take this frame (400, 401, 413, ...)."""

    reason: str


Answer = Delivered | Later | Refused


class Sender(Protocol):
    """One destination.  Called by one thread at a time, never by the application's."""

    def send(self, frame: Frame, timeout: float) -> Answer:
        """Try to deliver *frame* once within *timeout* seconds.

        Never raises for anything the destination or the network does.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files.  The sender is not used again."""
        ...
