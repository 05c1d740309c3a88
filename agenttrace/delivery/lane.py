"""One destination's way out of the backlog: a thread that sends, and is patient.

A lane owns when to send, when to try again and what to say of it.  It knows nothing of
how frames are made, nor of other lanes: a slow destination holds back nobody else.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from agenttrace._otel import suppress_instrumentation
from agenttrace.crashpoints import crash_point
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.senders import Answer, Delivered, Later, Refused, Sender
from agenttrace.records import NamedTuple
from agenttrace.safety import Count, count, logger, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.delivery.backlog import Backlog
    from agenttrace.delivery.retry import Retry
    from agenttrace.delivery.spool import Kept

MAX_REQUEST: Final = 1_000_000
"""Bytes of payload that frames are joined up to: what is free of limits everywhere.

Joined, because a destination 300 ms away takes three requests a second, however small.
"""
_PAUSE: Final = 0.2
"""Seconds between two requests while nobody waits and there is no full one to send.

What comes one by one would cost a request each, which is a hundred times what a span
costs.  The first after a silence goes at once.
"""
_TELL_AGAIN: Final = 600.0
_MAX_KINDS: Final = 32


class LaneStatus(NamedTuple):
    """How one destination is doing.

    Args:
        destination: What it calls itself.
        acknowledged: Spans it took.
        refused: Spans it will never take.
        retries: Attempts that were put off, not counting those that refused.
        last_error: What went wrong last, None while nothing did.  May quote the
            destination, so not for logs.
    """

    destination: str
    acknowledged: int
    refused: int
    retries: int
    last_error: str | None


class Lane:
    """Brings the frames of *backlog* to *sender*, in order.

    Args:
        index: Which of the spool's readers it is.
        sender: The destination.
        backlog: Where the frames are.
        timeout: Seconds that one attempt may take.
        retry: How long to wait between attempts.
        name: Of the thread.
    """

    def __init__(  # noqa: PLR0913 - the parts of one thread
        self,
        index: int,
        sender: Sender,
        backlog: Backlog,
        *,
        timeout: float,
        retry: Retry,
        name: str,
    ) -> None:
        self._index = index
        self._sender = sender
        self._backlog = backlog
        self._timeout = timeout
        self._retry = retry
        self._failures = 0
        self._acknowledged = 0
        self._refused = 0
        self._retries = 0
        self._last_error: str | None = None
        self._voice = _Voice(repr(sender))
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def status(self) -> LaneStatus:
        """Return how the destination is doing."""
        return LaneStatus(
            repr(self._sender),
            self._acknowledged,
            self._refused,
            self._retries,
            self._last_error,
        )

    def _run(self) -> None:
        # For all senders, on all that this thread does: one that was traced would
        # make a span for every span it sends.
        with suppress_instrumentation():
            while not self._backlog.stopping:
                try:
                    while kept := self._backlog.take(self._index, MAX_REQUEST):
                        if self._deliver(kept):
                            self._backlog.gather(_PAUSE, MAX_REQUEST)
                except Exception as error:  # noqa: BLE001 - this thread is all that a destination has
                    note("delivery.lane", error)
                    self._backlog.pause(self._retry.longest, self._backlog.urgency)
            try:
                self._sender.close()
            except Exception as error:  # noqa: BLE001 - an exporter may raise anything
                note("delivery.close", error)

    def _deliver(self, kept: Sequence[Kept]) -> bool:
        """Send *kept*; return False if that has to be done again."""
        urgency = self._backlog.urgency
        match self._send(_joined(kept)):
            case Delivered(rejected, reason):
                crash_point("sent")
                self._delivered(kept, rejected, reason)
            case Refused(reason):
                if len(kept) > 1:
                    # One frame that cannot be taken must not cost the others.
                    return all(self._deliver([one]) for one in kept)
                self._refuse(kept[0], reason)
            case Later(reason, after):
                self._put_off(reason, after, urgency)
                return False
        return True

    def _send(self, frame: Frame) -> Answer:
        try:
            return self._sender.send(frame, self._timeout)
        # SystemExit too: an exporter that raises it would end this thread in silence.
        except BaseException as error:  # noqa: BLE001 - see above
            return Later(f"{type(self._sender).__name__} raised {type(error).__name__}")

    def _delivered(self, kept: Sequence[Kept], rejected: int, reason: str) -> None:
        self._failures = 0
        for one in kept:
            lost = min(rejected, len(one.frame.ids))
            rejected -= lost
            self._acknowledged += len(one.frame.ids) - lost
            self._refused += lost
            self._backlog.ack(self._index, one.number, lost)
            if lost:
                self._note("rejected some spans", reason)
                # Without its reason, which may quote what the spans say.
                self._say("rejected some of the spans it was sent: they are dropped")
        if not self._backlog.stopping:
            self._voice.recovered()

    def _refuse(self, one: Kept, reason: str) -> None:
        self._failures = 0
        self._refused += len(one.frame.ids)
        self._backlog.ack(self._index, one.number, len(one.frame.ids))
        self._note(reason)
        self._say(f"refused spans for good: they are dropped ({reason})")

    def _put_off(self, reason: str, after: float | None, urgency: int) -> None:
        self._failures += 1
        self._retries += 1
        count(Count.EXPORT_RETRIES)
        self._note(reason)
        self._say(
            f"takes no spans now: they are kept and sent again ({reason})",
            is_outage=True,
        )
        if self._backlog.pause(self._retry.wait(self._failures, after), urgency):
            # Somebody waits for this: from here on with the short waits again.
            self._failures = 0

    def _note(self, *reason: str) -> None:
        count(Count.EXPORT_FAILURES)
        self._last_error = ": ".join(filter(None, reason))

    def _say(self, sentence: str, *, is_outage: bool = False) -> None:
        # After the end nobody may write: a daemon thread that holds the lock of
        # stderr when the interpreter goes makes it abort.
        if not self._backlog.stopping:
            self._voice.warn(sentence, is_outage=is_outage)


class _Voice:
    """Says of a destination what is new, and once: an outage is no reason for a storm.

    A sentence is said again when the destination has recovered since and ten minutes
    have passed.  That it has recovered is said after an outage that was.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._told: dict[str, float] = {}
        self._is_down = False

    def warn(self, sentence: str, *, is_outage: bool = False) -> None:
        """Log *sentence* unless it was."""
        if sentence in self._told or len(self._told) >= _MAX_KINDS:
            return
        self._told[sentence] = time.monotonic()
        self._is_down |= is_outage
        self._log(logging.WARNING, sentence)

    def recovered(self) -> None:
        """Log that the destination takes spans again, if it was said not to."""
        if not self._is_down:
            return
        self._is_down = False
        before = time.monotonic() - _TELL_AGAIN
        self._told = {kind: at for kind, at in self._told.items() if at > before}
        self._log(logging.INFO, "takes spans again")

    def _log(self, level: int, sentence: str) -> None:
        try:
            logger.log(level, "%s %s", self._destination, sentence)
        except Exception as error:  # noqa: BLE001 - the handlers are the application's
            note("delivery.log", error)


def _joined(kept: Sequence[Kept]) -> Frame:
    if len(kept) == 1:
        return kept[0].frame
    return Frame(
        ids=tuple(ids for one in kept for ids in one.frame.ids),
        payload=b"".join(one.frame.payload for one in kept),
    )
