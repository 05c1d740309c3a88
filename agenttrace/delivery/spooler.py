"""The queue of ended spans and the threads that bring them to their destinations.

`put` is all that an application's thread ever does here: it appends to a queue.  One
thread encodes what is queued into frames and appends them to the spool, on disk where
there are segments, and only then frees what they were kept in until then; a lane for
each destination sends them.
So encoding goes on while a destination takes its time, no thread of the application
waits for a disk, and none wakes when there is nothing to do.

Which files a process has, and what becomes of those that a dead one has left, is not
decided here; nor is when the spooler is made, flushed and shut down.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agenttrace.delivery import otlp
from agenttrace.delivery.backlog import Backlog, Mark, Resumed
from agenttrace.delivery.encoder import Encoder
from agenttrace.delivery.lane import Lane, LaneStatus
from agenttrace.delivery.retry import Retry
from agenttrace.delivery.spool import MemorySpool
from agenttrace.delivery.write_ahead import WriteAhead
from agenttrace.records import NamedTuple
from agenttrace.safety import guarded, log_once

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from agenttrace.delivery.backlog import Notice
    from agenttrace.delivery.bell import Bell
    from agenttrace.delivery.encoder import Encode, Ended, Observe
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segments import Segments
    from agenttrace.delivery.senders import Sender
    from agenttrace.delivery.spool import Settle


class SpoolerStatus(NamedTuple):
    """How delivery is doing.

    Args:
        queued: Spans not yet encoded.
        buffered_frames: Frames not yet settled, of which the next two speak as well.
        buffered_spans: Spans in them.
        buffered_bytes: Bytes of payload in them.
        spooled_bytes: Bytes on disk, 0 without segments.
        acknowledged: Spans that every destination took.
        dropped: Spans that some destination will never have.
        left: Spans that a shutdown which ran out of time left to the next process.
        lanes: How each destination is doing, in the order of the senders.
    """

    queued: int
    buffered_frames: int
    buffered_spans: int
    buffered_bytes: int
    spooled_bytes: int
    acknowledged: int
    dropped: int
    left: int
    lanes: tuple[LaneStatus, ...]


class Spooler:
    """Delivers every span that is put to every one of *senders*.

    Args:
        senders: The destinations, at least one.
        encode: Makes a frame of spans.
        prepare: Imports what that needs; spans wait for as long as it fails.
        max_bytes: How many encoded bytes may wait; then the oldest are dropped.
        linger: Seconds that a span may wait for others to share its frame.
        batch: How many spans make a frame at most.  A frame is taken or refused as a
            whole, and each has its costs: 128 at a time cost a tenth more.
        timeout: Seconds that one attempt to send may take.
        retry: How long to wait between attempts.
        max_queued: How many spans may wait to be encoded while a disk stalls; then
            the newest are dropped.
        segments: Makes the files of this process, None for memory only.  Called here
            and once more in every forked child, whose files must be others: so it may
            not wait for a disk.  Who gives one keeps a journal of what has ended and
            is not in the files yet.
        name: What its threads are called.

    Raises:
        ValueError: There are no senders.
    """

    # What `_begin` makes, once in every process.
    _queue: deque[Ended | Notice]
    _bell: Bell
    _backlog: Backlog
    _lanes: tuple[Lane, ...]
    _encoder: Encoder
    _closed: bool

    def __init__(  # noqa: PLR0913 - each has a default that is right for most
        self,
        senders: Sequence[Sender],
        *,
        encode: Encode = otlp.frame_of,
        prepare: Callable[[], object] = otlp.prepare,
        max_bytes: int = 64 * 2**20,
        linger: float = 0.05,
        batch: int = 256,
        timeout: float = 10.0,
        retry: Retry | None = None,
        max_queued: int = 200_000,
        segments: Callable[[], Segments | None] | None = None,
        name: str = "agenttrace-spooler",
    ) -> None:
        if not senders:
            message = "a spooler needs a sender"
            raise ValueError(message)
        self._senders = tuple(senders)
        self._encode = encode
        self._prepare = prepare
        self._max_bytes = max_bytes
        self._linger = linger
        self._batch = batch
        self._timeout = timeout
        self._retry = retry or Retry()
        self._max_queued = max_queued
        self._segments = segments
        self._name = name
        self._observe: Observe | None = None
        self._begin()
        self._start()

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Its threads, for reports that leave ours out."""
        return (*(lane.thread for lane in self._lanes), self._encoder.thread)

    def show_to(self, observe: Observe | None) -> None:
        """Show *observe* what is written from now on, on the encoder's thread."""
        self._observe = self._encoder.observe = observe

    def put(self, item: Ended) -> None:
        """Queue *item*.  Takes no lock, never blocks, never raises."""
        append = self._queue.append
        # Signal handlers run when a call returns: none comes between the two.
        item.queued = True
        try:
            append(item)
        except (RecursionError, MemoryError):
            item.queued = False
            raise
        if self._bell.asleep:
            self._encoder.wake()

    def resume(self, frame: Frame, settle: Settle) -> bool:
        """Send *frame*, which an earlier process has left on disk.

        It is not written again.  If there is no time for it, or the spooler is shut
        down already, it stays where it is; if more waits than is allowed, it is
        dropped like others: whoever has many flushes in between.

        Args:
            frame: What was found.
            settle: Called, once and on one of the spooler's threads, when it needs no
                sending any more.  May wait for a disk, and must not raise.

        Returns:
            Whether it is taken: False once the spooler is shut down.
        """
        if self._closed:
            return False
        self._queue.append(Resumed(frame, settle))
        if self._bell.asleep:
            self._encoder.wake()
        return True

    def flush(self, timeout: float) -> bool:
        """Send what was put so far at once; return whether all of it is settled.

        Settled is what every destination has taken or refused for good.  Waits that
        failed attempts have brought about are cut short.

        Args:
            timeout: Seconds after which to give up waiting; nothing is lost by that.
        """
        if self._closed:
            return not self._queue
        if threading.current_thread() in self.threads:
            return False  # an exporter that flushes would wait for itself
        deadline = _deadline(timeout)
        mark = Mark()
        self._queue.append(mark)
        self._encoder.hurry()
        return self._backlog.wait_for(mark, _left(deadline))

    def shutdown(self, timeout: float) -> bool:
        """Flush, then stop; return whether all that was put is settled.

        A sender that hangs is left behind: its thread ends with the process.  What is
        not settled in time stays in the files, if there are any, and is dropped
        otherwise; if all of it is, no file is left.

        Args:
            timeout: Seconds that all of it may take.
        """
        if self._closed:
            return True
        deadline = _deadline(timeout)
        settled = self.flush(timeout)
        self._closed = True
        self._encoder.close()
        _join(self._encoder.thread, deadline)
        self._backlog.stop()
        for lane in self._lanes:
            _join(lane.thread, deadline)
        lost, kept = self._backlog.close()
        unread = self._encoder.finish()
        if self._backlog.is_durable:
            self._backlog.leave(unread)
            kept += unread
        else:
            self._backlog.drop(unread)
            lost += unread
        # Nobody can ask for the counters any more, where this is the exit.
        if lost:
            log_once(
                "delivery.shutdown",
                logging.WARNING,
                "%s not delivered before shutting down ran out of time: dropped",
                _spans_were(lost),
            )
        if kept:
            log_once(
                "delivery.left",
                logging.INFO,
                "%s not delivered before shutting down ran out of time: kept on disk, "
                "for the next process to send",
                _spans_were(kept),
            )
        # Also what came after the flush counts: who is told that all of it is settled
        # removes the lock, and nobody would find the files.
        return settled and not (unread or lost or kept)

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: what was queued is the parent's to send."""
        was_closed = self._closed
        self._backlog.abandon()
        self._begin()
        if was_closed:
            self._close()
        else:
            self._start()

    def status(self) -> SpoolerStatus:
        """Return how delivery is doing."""
        figures = self._backlog.figures()
        return SpoolerStatus(
            queued=len(self._queue),
            buffered_frames=figures.size.frames,
            buffered_spans=figures.size.spans,
            buffered_bytes=figures.size.bytes,
            spooled_bytes=figures.spooled_bytes,
            acknowledged=figures.acknowledged,
            dropped=figures.dropped,
            left=figures.left,
            lanes=tuple(lane.status() for lane in self._lanes),
        )

    def _begin(self) -> None:
        self._closed = False
        self._backlog = Backlog(
            MemorySpool(len(self._senders), self._max_bytes), self._log()
        )
        self._lanes = tuple(
            Lane(
                index,
                sender,
                self._backlog,
                timeout=self._timeout,
                retry=self._retry,
                name=f"{self._name}-lane-{index}",
            )
            for index, sender in enumerate(self._senders)
        )
        self._encoder = Encoder(
            self._backlog,
            encode=self._encode,
            linger=self._linger,
            batch=self._batch,
            max_queued=self._max_queued,
            prepare=self._prepare,
            name=self._name,
        )
        self._encoder.observe = self._observe
        self._queue = self._encoder.queue
        self._bell = self._encoder.bell

    def _log(self) -> WriteAhead | None:
        if self._segments is None:
            return None
        segments = guarded("delivery.segments", self._segments)
        return None if segments is None else WriteAhead(segments)

    def _start(self) -> None:
        # Not when the first span is put: at the exit of the interpreter it is too
        # late for a thread, and the first span may be one that never ended.
        try:
            for thread in self.threads:
                thread.start()
        except RuntimeError:
            self._close()
            log_once(
                "delivery.threads",
                logging.WARNING,
                "no thread could be started: spans are dropped",
            )

    def _close(self) -> None:
        self._closed = True
        self._backlog.stop()
        if spans := self._encoder.finish():
            self._backlog.drop(spans)


def _join(thread: threading.Thread, deadline: float) -> None:
    if thread is not threading.current_thread():  # an exporter may shut us down
        thread.join(_left(deadline))


def _deadline(timeout: float) -> float:
    # The longest wait of the threading module is finite; infinity is not.
    return time.monotonic() + min(max(timeout, 0.0), threading.TIMEOUT_MAX / 2)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)


def _spans_were(number: int) -> str:
    return "1 span was" if number == 1 else f"{number} spans were"
