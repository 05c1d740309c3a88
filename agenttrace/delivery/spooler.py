"""The queue of ended spans and the threads that bring them to their destinations.

`put` is all that an application's thread ever does here: it appends to a queue.  One
thread encodes what is queued into frames and appends them to the spool, and only then
frees what they were kept in until then; a lane for each destination sends them.
So encoding goes on while a destination takes its time, and no thread wakes when there
is nothing to do.

Whether a frame outlives the process is the spool's business; when the spooler is made,
flushed and shut down is the runtime's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from agenttrace.delivery import otlp
from agenttrace.delivery.backlog import Backlog, Mark
from agenttrace.delivery.bell import Bell
from agenttrace.delivery.frames import Frame
from agenttrace.delivery.lane import Lane, LaneStatus, note
from agenttrace.delivery.retry import Retry
from agenttrace.delivery.spool import MemorySpool
from agenttrace.model import SpanData
from agenttrace.safety import Count, log_once

if TYPE_CHECKING:
    from agenttrace.delivery.senders import Sender

Encode = Callable[[Sequence[SpanData]], Frame]

_MAX_FRAME: Final = 1_000_000
"""Bytes of payload that a frame is meant to have at most: large spans, small batches.

A frame is taken or refused as a whole, so none should be larger than what destinations
take; but only what is larger than `_LARGEST_FRAME` is encoded twice to be smaller.
"""
_LARGEST_FRAME: Final = 4_000_000  # grpc servers take 4 MiB by default
_HANDFUL: Final = 4
"""Batches that are let go together while there is more to encode: a request takes as
long as a hundred spans, and a destination that answers at once would get many.
"""


class Ended(Protocol):
    """A span that has ended, as it is queued.

    Attributes:
        queued: Whether it was put, also where `put` was interrupted after that.
    """

    queued: bool

    def data(self) -> SpanData:
        """Return what is sent of it.  Called once, on the spooler's thread."""
        ...

    def written(self) -> None:
        """Learn that it is in the spool, or cannot be put there."""
        ...


class SpoolerStatus(NamedTuple):
    """How delivery is doing.

    Args:
        queued: Spans not yet encoded.
        buffered_frames: Frames not yet settled, of which the next two speak as well.
        buffered_spans: Spans in them.
        buffered_bytes: Bytes of payload in them.
        acknowledged: Spans that every destination took.
        dropped: Spans that some destination will never have.
        lanes: How each destination is doing, in the order of the senders.
    """

    queued: int
    buffered_frames: int
    buffered_spans: int
    buffered_bytes: int
    acknowledged: int
    dropped: int
    lanes: tuple[LaneStatus, ...]


class Spooler:
    """Delivers every span that is put to every one of *senders*.

    Args:
        senders: The destinations, at least one.
        encode: Makes a frame of spans.
        max_bytes: How many encoded bytes may wait; then the oldest are dropped.
        linger: Seconds that a span may wait for others to share its frame.
        batch: How many spans are encoded at once.  It bounds how long the
            application waits for the interpreter: 128 take about a millisecond.
        timeout: Seconds that one attempt to send may take.
        retry: How long to wait between attempts.
        name: What its threads are called.

    Raises:
        ValueError: There are no senders.
    """

    # What `_begin` makes, once in every process.
    _queue: deque[Ended | Mark]
    _bell: Bell
    _backlog: Backlog
    _lanes: tuple[Lane, ...]
    _encoder: threading.Thread
    _hurried: bool
    _closed: bool
    _next_batch: int

    def __init__(  # noqa: PLR0913 - each has a default that is right for most
        self,
        senders: Sequence[Sender],
        *,
        encode: Encode = otlp.frame_of,
        max_bytes: int = 64 * 2**20,
        linger: float = 0.05,
        batch: int = 128,
        timeout: float = 10.0,
        retry: Retry | None = None,
        name: str = "agenttrace-spooler",
    ) -> None:
        if not senders:
            message = "a spooler needs a sender"
            raise ValueError(message)
        self._senders = tuple(senders)
        self._encode = encode
        self._max_bytes = max_bytes
        self._linger = linger
        self._batch = batch
        self._timeout = timeout
        self._retry = retry or Retry()
        self._name = name
        self._begin()
        self._start()

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Its threads, for reports that leave ours out."""
        return (*(lane.thread for lane in self._lanes), self._encoder)

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
            self._wake()

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
        self._hurried = True
        self._bell.ring()
        return self._backlog.wait_for(mark, _left(deadline))

    def shutdown(self, timeout: float) -> bool:
        """Flush, then stop; return whether all that was put is settled.

        A sender that hangs is left behind: its thread ends with the process.

        Args:
            timeout: Seconds that all of it may take.
        """
        if self._closed:
            return True
        deadline = _deadline(timeout)
        settled = self.flush(timeout)
        self._closed = True
        self._bell.ring()
        _join(self._encoder, deadline)
        self._backlog.stop()
        for lane in self._lanes:
            _join(lane.thread, deadline)
        lost = self._backlog.close()
        self._close()
        unread = self._discard()
        if missing := lost + unread:
            # Nobody can ask for the counters any more, where this is the exit.
            log_once(
                "delivery.shutdown",
                logging.WARNING,
                "%s not delivered before shutting down ran out of time: dropped",
                "1 span was" if missing == 1 else f"{missing} spans were",
            )
        return not unread and settled

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: what was queued is the parent's to send."""
        was_closed = self._closed
        self._begin()
        if was_closed:
            self._close()
        else:
            self._start()

    def status(self) -> SpoolerStatus:
        """Return how delivery is doing."""
        size, acknowledged, dropped = self._backlog.figures()
        return SpoolerStatus(
            queued=len(self._queue),
            buffered_frames=size.frames,
            buffered_spans=size.spans,
            buffered_bytes=size.bytes,
            acknowledged=acknowledged,
            dropped=dropped,
            lanes=tuple(lane.status() for lane in self._lanes),
        )

    def _begin(self) -> None:
        self._queue = deque()
        self._bell = Bell()
        self._hurried = False
        self._closed = False
        self._next_batch = self._batch
        self._backlog = Backlog(MemorySpool(len(self._senders), self._max_bytes))
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
        self._encoder = threading.Thread(target=self._run, name=self._name, daemon=True)

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
        # From here on, every put comes to `_wake` and is counted there.
        self._bell.asleep = True

    def _wake(self) -> None:
        if self._closed:
            self._discard()
        else:
            self._bell.ring()

    def _discard(self) -> int:
        """Count what is queued as dropped; return how many spans that were."""
        spans = 0
        while self._queue:
            try:
                item = self._queue.popleft()
            except IndexError:  # another thread was faster
                break
            spans += not isinstance(item, Mark)
        if spans:
            self._backlog.drop(spans)
        return spans

    def _run(self) -> None:
        while True:
            try:
                self._bell.sleep(self._queue, self._linger)
                if self._closed and not self._queue:
                    return
                if not (self._hurried or len(self._queue) >= self._batch):
                    self._bell.wait(self._linger)
                # Before draining: who hurries from here on has put a mark that this
                # round may not see, and finds the next one hurried.
                self._hurried = False
                self._drain()
            except Exception as error:  # noqa: BLE001 - this thread is all there is
                note("delivery.spooler", error)

    def _drain(self) -> None:
        batches = 0
        try:
            while self._queue:
                items, mark = self._next()
                if items:
                    self._write(items)
                if mark is not None:
                    self._backlog.reach(mark)
                batches += 1
                if batches % _HANDFUL == 0:
                    self._backlog.release()
                # Whoever waits for the interpreter gets it now: it would not be
                # handed over before the switch interval of 5 ms is over.
                time.sleep(0)
        finally:
            self._backlog.release()

    def _next(self) -> tuple[list[Ended], Mark | None]:
        items: list[Ended] = []
        while self._queue and len(items) < self._next_batch:
            item = self._queue.popleft()
            if isinstance(item, Mark):
                return items, item
            items.append(item)
        return items, None

    def _write(self, items: Sequence[Ended]) -> None:
        spans = [data for item in items if (data := _data(item)) is not None]
        lost = len(items)
        dropped = 0
        for frame in self._frames(spans):
            try:
                dropped += self._backlog.append(frame)
            except Exception as error:  # noqa: BLE001 - a spool has disks that fail
                note("delivery.spool", error)
                continue
            lost -= len(frame.ids)
            fitting = _MAX_FRAME * len(frame.ids) // max(len(frame.payload), 1)
            self._next_batch = min(max(fitting, 1), self._batch)
        if lost:
            self._backlog.drop(lost)
        for item in items:
            try:
                item.written()
            except Exception as error:  # noqa: BLE001 - the others are written all the same
                note("delivery.written", error)
        if dropped:
            log_once(
                "delivery.full",
                logging.WARNING,
                "more spans wait for their destination than the limit allows: the "
                "oldest are dropped (told once, counted in %s)",
                Count.SPANS_DROPPED.value,
            )

    def _frames(self, spans: Sequence[SpanData]) -> list[Frame]:
        """Return *spans* as frames, without those that cannot be encoded."""
        frames: list[Frame] = []
        try:
            frames = [self._encode(spans)] if spans else []
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the others
            note("delivery.encode", error)
        if len(spans) <= 1 or (frames and len(frames[0].payload) <= _LARGEST_FRAME):
            return frames
        middle = len(spans) // 2
        return self._frames(spans[:middle]) + self._frames(spans[middle:])


def _data(item: Ended) -> SpanData | None:
    try:
        return item.data()
    except Exception as error:  # noqa: BLE001 - it must not cost the others of its batch
        note("delivery.data", error)
        return None


def _join(thread: threading.Thread, deadline: float) -> None:
    if thread is not threading.current_thread():  # an exporter may shut us down
        thread.join(_left(deadline))


def _deadline(timeout: float) -> float:
    # The longest wait of the threading module is finite; infinity is not.
    return time.monotonic() + min(max(timeout, 0.0), threading.TIMEOUT_MAX / 2)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)
