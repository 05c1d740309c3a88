"""What the delivery threads share: the spool, and who waits for what.

One thread appends frames, a lane per destination takes and acknowledges them, and
anybody may wait until what was put so far is settled.  All of them meet in one lock,
which an application's thread takes only when it flushes or asks for a status.

A frame is in the write-ahead log before it is here, and is settled there after it is
here, by the same thread.  Both may wait for a disk, so both happen without the lock.
Sending, patience and encoding happen elsewhere, and never under it either.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agenttrace.records import NamedTuple
from agenttrace.safety import Count, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.spool import Kept, Left, MemorySpool, Settle, Size
    from agenttrace.delivery.write_ahead import WriteAhead


class Notice:
    """What may stand in the queue between spans."""

    __slots__ = ()


class Mark(Notice):
    """A place in the order of things: all that was put before it comes before it."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: int | None = None
        """The last frame before it, once the encoder has come by."""


class Resumed(Notice):
    """A frame that an earlier process has left on disk.

    Args:
        frame: What it holds.
        settle: What tells that disk that it needs no sending any more.
    """

    __slots__ = ("frame", "settle")

    def __init__(self, frame: Frame, settle: Settle) -> None:
        self.frame = frame
        self.settle = settle


class Figures(NamedTuple):
    """How much waits, and how many spans do not any more.

    Args:
        size: What waits.
        spooled_bytes: Bytes on disk.
        acknowledged: Spans that every destination took.
        dropped: Spans that some destination will never have.
        left: Spans that the next process will find on disk.
    """

    size: Size
    spooled_bytes: int
    acknowledged: int
    dropped: int
    left: int


class Backlog:
    """Frames that wait for their destinations.

    Args:
        spool: Where they are kept.
        log: Where they are kept on disk as well; None for nowhere.
    """

    def __init__(self, spool: MemorySpool, log: WriteAhead | None = None) -> None:
        # Re-entrant, because a signal handler that flushes may interrupt a flush.
        lock = threading.RLock()
        self._lock = lock
        self._arrived = threading.Condition(lock)
        self._urged = threading.Condition(lock)
        self._waiters: list[tuple[Mark, threading.Lock]] = []
        self._spool = spool
        self._log = log
        self._sendable = 0
        self._urgency = 0
        self._stopping = False
        self._is_closed = False
        self._acknowledged = 0
        self._dropped = 0
        self._left = 0

    @property
    def is_durable(self) -> bool:
        """Whether what is left behind is for the next process to find."""
        return self._log is not None

    @property
    def stopping(self) -> bool:
        """Whether the lanes were told to stop."""
        return self._stopping

    @property
    def urgency(self) -> int:
        """How often somebody asked for everything to be sent at once."""
        return self._urgency

    def append(self, frame: Frame) -> int:
        """Keep *frame*; return how many spans had to be dropped for it.

        Nobody sends it before `release`.
        """
        settle = None if self._log is None else self._log.append(frame)
        return self.keep(frame, settle)

    def keep(self, frame: Frame, settle: Settle | None) -> int:
        """Keep *frame* as `append` does, but write it nowhere.

        Args:
            frame: The newest one.
            settle: What tells the disk that it is settled, None if it is not there.
        """
        with self._lock:
            is_left = self._is_closed and settle is not None
            spans, settles = (0, ()) if is_left else self._spool.append(frame, settle)
        if is_left:
            self.leave(len(frame.ids))
        for one in settles:
            one()
        if spans:
            self.drop(spans)
        return spans

    def release(self) -> None:
        """Let the lanes have everything that was appended."""
        with self._lock:
            self._sendable = self._spool.newest
            self._arrived.notify_all()
            self._urged.notify_all()  # there may be enough to `gather` no longer
            self._tell_waiters()  # what was dropped is settled

    def reach(self, mark: Mark) -> None:
        """Note that all that was put before *mark* has been appended."""
        with self._lock:
            mark.number = self._spool.newest
            self._tell_waiters()

    def take(self, lane: int, max_bytes: int) -> Sequence[Kept]:
        """Wait for the next frames of *lane* and return them; none means to stop."""
        with self._lock:
            while not self._stopping:
                if kept := self._spool.peek(lane, self._sendable, max_bytes):
                    return kept
                self._arrived.wait()
        return ()

    def ack(self, lane: int, number: int, lost: int) -> None:
        """Note that *lane* is done with *number* and could not deliver *lost* spans."""
        with self._lock:
            settled = self._spool.ack(lane, number, lost)
            if settled is None:
                return
            # All of it before anybody is told: who has flushed asks for the figures.
            self._acknowledged += settled.delivered
            self._dropped += settled.lost
            count(Count.SPANS_ACKNOWLEDGED, settled.delivered)
            count(Count.SPANS_DROPPED, settled.lost)
            self._tell_waiters()
        if settled.settle is not None:
            settled.settle()

    def drop(self, spans: int) -> None:
        """Count *spans* that no destination, or not every one, will have."""
        with self._lock:
            self._dropped += spans
        count(Count.SPANS_DROPPED, spans)

    def leave(self, spans: int) -> None:
        """Count *spans* that the next process will find on disk."""
        with self._lock:
            self._left += spans
        count(Count.SPANS_LEFT, spans)

    def pause(self, seconds: float, urgency: int) -> bool:
        """Wait before a repetition; return whether it was cut short.

        Args:
            seconds: How long, unless somebody urges or the lanes have to stop.
            urgency: `urgency` before the attempt that failed: whoever urged while it
                was under way has not been obeyed yet.
        """
        with self._lock:
            return self._urged.wait_for(
                lambda: self._stopping or self._urgency != urgency, seconds
            )

    def gather(self, seconds: float, enough: int) -> None:
        """Wait a little between two requests, so that fewer have more in them.

        Args:
            seconds: How long, unless somebody waits for what is here, or it has to go.
            enough: Bytes that are waited for at most.
        """
        with self._lock:
            self._urged.wait_for(
                lambda: (
                    self._stopping
                    or bool(self._waiters)
                    or self._spool.size.bytes >= enough
                ),
                seconds,
            )

    def wait_for(self, mark: Mark, timeout: float) -> bool:
        """Urge; return whether all before *mark* is settled in *timeout* seconds."""
        # A lock of its own and no condition: this is the application's thread, and a
        # signal handler that raises leaves the lock of a condition in disorder.
        silence = threading.Lock()
        silence.acquire()
        waiter = (mark, silence)
        try:
            with self._lock:
                self._waiters.append(waiter)
                self._urgency += 1
                self._urged.notify_all()
                self._tell_waiters()
            silence.acquire(timeout=timeout)
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                settled = self._is_settled(mark)
        return settled

    def stop(self) -> None:
        """Tell the lanes to stop after what they are sending."""
        with self._lock:
            self._stopping = True
            self._arrived.notify_all()
            self._urged.notify_all()

    def rest(self) -> None:
        """Let the log know that there is nothing to append just now.

        By the thread that appends: it waits for the disk.
        """
        if self._log is not None:
            self._log.rest()

    def seal(self) -> None:
        """Let the log have no more, once nothing is going to be appended.

        By the thread that appends: it waits for the disk.
        """
        if self._log is not None:
            self._log.close()

    def close(self) -> Left:
        """Let go of what is there; return how many spans that leaves behind."""
        with self._lock:
            left = self._spool.close()
            self._is_closed = True
            self._tell_waiters()
        if left.lost:
            self.drop(left.lost)
        if left.kept:
            self.leave(left.kept)
        return left

    def abandon(self) -> None:
        """Leave the files to the parent, in a forked child."""
        if self._log is not None:
            self._log.abandon()

    def figures(self) -> Figures:
        """Return how much waits, and what became of the rest so far."""
        with self._lock:
            return Figures(
                self._spool.size,
                0 if self._log is None else self._log.size,
                self._acknowledged,
                self._dropped,
                self._left,
            )

    def _tell_waiters(self) -> None:
        for mark, silence in self._waiters[:]:
            if self._is_settled(mark) and silence.locked():
                silence.release()

    def _is_settled(self, mark: Mark) -> bool:
        return mark.number is not None and self._spool.oldest > mark.number
