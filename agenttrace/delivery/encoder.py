"""The thread that makes frames of ended spans, and the queue that it reads.

It takes what is queued, a batch at a time, encodes it, appends the frame to the backlog
and only then lets the spans' slots go.  It alone waits for the disk on which frames are
kept, so it may be held up for as long as that stalls; what the queue holds meanwhile
has a limit.

Who may put, flush and shut down, and what is said of it, is the spooler's business.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from agenttrace.delivery.backlog import Backlog, Mark, Notice, Resumed
from agenttrace.delivery.bell import Bell
from agenttrace.delivery.frames import Frame
from agenttrace.model import SpanData
from agenttrace.pace import Pace
from agenttrace.safety import Count, log_once, note

Encode = Callable[[Iterable[SpanData]], Frame]
Observe = Callable[[Sequence[SpanData]], object]

_MAX_FRAME: Final = 1_000_000
"""Bytes of payload that a frame is meant to have at most: large spans, small batches.

A frame is taken or refused as a whole, so none should be larger than what destinations
take; but only what is larger than `_LARGEST_FRAME` is encoded twice to be smaller.
"""
_LARGEST_FRAME: Final = 4_000_000  # grpc servers take 4 MiB by default
_AGAIN: Final = 1.0
"""Seconds until it is tried again to import what encodes."""
_HANDFUL: Final = 8
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
        """Return what is sent of it.  Called once, on the encoder's thread."""
        ...

    def written(self) -> None:
        """Learn that it is in the spool, or cannot be put there.

        Called once, on the encoder's thread; where there is no room for it in the
        queue, on the thread that put it.
        """
        ...


class Encoder:
    """Brings what is queued to *backlog*.

    Args:
        backlog: Where frames go.
        encode: Makes a frame of spans.
        linger: Seconds that a span may wait for others to share its frame.
        batch: How many spans are encoded at once.
        max_queued: How many spans may wait while the encoder is held up.
        prepare: Imports what encodes, before the first batch is taken.  While it fails,
            spans wait: a process that has no descriptor left may have one later.
        name: Of the thread.
    """

    def __init__(  # noqa: PLR0913 - those of a spooler
        self,
        backlog: Backlog,
        *,
        encode: Encode,
        linger: float,
        batch: int,
        max_queued: int,
        prepare: Callable[[], object],
        name: str,
    ) -> None:
        self.queue: deque[Ended | Notice] = deque()
        """What has ended.  Whoever appends to it calls `wake` if the bell `asks`."""
        self.bell: Final = Bell()
        self._backlog = backlog
        self._encode = encode
        self._linger = linger
        self._batch = self._next_batch = batch
        self._max_queued = max_queued
        self._prepare = prepare
        self.observe: Observe | None = None
        """Shown the final form of every span, once its slot was freed."""
        self._is_prepared = False
        self._hurried = False
        self._closed = False
        self._is_over = False
        self._is_held_up = False
        self._is_short = False
        self._pace = Pace()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def hurry(self) -> None:
        """Encode what is queued without waiting for more."""
        self._hurried = True
        self._ring()

    def close(self) -> None:
        """Tell the thread to end when the queue is empty."""
        self._closed = True
        self._ring()

    def wake(self) -> None:
        """See to what was just queued: the bell asks for it.

        Asleep, the thread is woken; held up, it has the length of the queue looked
        after; when it is over, what is put is counted and dropped.
        """
        if self._is_over:
            if spans := self.empty():
                self._backlog.drop(spans)
        elif self._is_held_up:
            self._limit()
        else:
            self._ring()

    def finish(self) -> int:
        """Let every put come to `wake` from here on; return how many are queued."""
        self._is_over = True
        self.bell.asleep = True
        return self.empty()

    def empty(self) -> int:
        """Empty the queue; return how many spans that were."""
        spans = 0
        while self.queue:
            try:
                item = self.queue.popleft()
            except IndexError:  # another thread was faster
                break
            spans += not isinstance(item, Notice)
        return spans

    def _ring(self) -> None:
        self.bell.ring()
        # That says that nobody need call any more.  Said in vain, the next one rings.
        if self._is_held_up:
            self.bell.asleep = True

    def _limit(self) -> None:
        """Drop the newest where there are too many."""
        if len(self.queue) <= self._max_queued:
            return
        try:
            item = self.queue.pop()
        except IndexError:  # the thread was faster
            return
        if isinstance(item, Notice):
            self.queue.append(item)
            return
        self._is_short = True
        self._backlog.drop(1)
        _written([item])

    def _run(self) -> None:
        while True:
            try:
                # The ring of `close` may be what ended the wait below: it comes once.
                if not self._closed:
                    self.bell.sleep(self.queue, self._linger)
                if self._closed and not self.queue:
                    break
                is_due = self._hurried or self._closed
                if not is_due and len(self.queue) < self._batch:
                    self.bell.wait(self._linger)
                # Before draining: who hurries from here on has put a mark that this
                # round may not see, and finds the next one hurried.
                self._hurried = False
                if self._can_encode():
                    self._drain()
                elif self._closed:
                    break  # what is queued stays where it was kept until now
                else:
                    self.bell.wait(_AGAIN)
            except Exception as error:  # noqa: BLE001 - this thread is all there is
                note("delivery.encoder", error)
        if self._is_over:  # it was not waited for
            self.bell.asleep = True
            self.wake()
        self._backlog.seal()

    def _can_encode(self) -> bool:
        """Return whether what encodes could be imported; else the queue is minded."""
        if not self._is_prepared:
            try:
                self._prepare()
            except Exception as error:  # noqa: BLE001 - of an import, which runs whatever there is
                note("delivery.prepare", error)
                self._hold_up(is_held_up=True)
                return False
            self._is_prepared = True
            self._hold_up(is_held_up=False)
        return True

    def _drain(self) -> None:
        """Encode what is queued now, and of what comes meanwhile whole batches."""
        self._pace.begin()
        due = len(self.queue)
        batches = 0
        try:
            while self.queue and (
                due > 0 or len(self.queue) >= self._batch or self._hurried
            ):
                items, notice = self._next()
                due -= len(items) + (notice is not None)
                if items:
                    self._write(items)
                if isinstance(notice, Mark):
                    self._backlog.reach(notice)
                elif isinstance(notice, Resumed):
                    self._hold_up(is_held_up=True)
                    self._backlog.keep(notice.frame, notice.settle)
                batches += 1
                if batches % _HANDFUL == 0:
                    self._backlog.release()
        finally:
            self._backlog.release()
            self._hold_up(is_held_up=True)
            self._backlog.rest()
            self._hold_up(is_held_up=False)

    def _next(self) -> tuple[list[Ended], Notice | None]:
        items: list[Ended] = []
        while self.queue and len(items) < self._next_batch:
            item = self.queue.popleft()
            if isinstance(item, Notice):
                return items, item
            items.append(item)
        return items, None

    def _write(self, items: Sequence[Ended]) -> None:
        paced = self._pace.along(items)
        spans = [data for item in paced if (data := _data(item)) is not None]
        lost = len(items)
        dropped = 0
        frames = self._frames(spans)
        self._hold_up(is_held_up=True)
        for frame in frames:
            try:
                dropped += self._backlog.append(frame)
            except Exception as error:  # noqa: BLE001 - one frame must not cost the others
                note("delivery.spool", error)
                continue
            lost -= len(frame.ids)
            fitting = _MAX_FRAME * len(frame.ids) // max(len(frame.payload), 1)
            self._next_batch = min(max(fitting, 1), self._batch)
        # As long as much is queued: others may put faster than this thread encodes.
        self._hold_up(is_held_up=len(self.queue) > self._max_queued // 2)
        if lost:
            self._backlog.drop(lost)
        _written(items)
        if self.observe is not None:
            try:
                self.observe(spans)
            except Exception as error:  # noqa: BLE001 - nor must it cost the next batch
                note("delivery.observe", error)
        if dropped:
            log_once(
                "delivery.full",
                logging.WARNING,
                "more spans wait for their destination than the limit allows: the "
                "oldest are dropped (told once, counted in %s)",
                Count.SPANS_DROPPED.value,
            )
        if self._is_short:
            log_once(
                "delivery.queue",
                logging.WARNING,
                "spans ended faster than they could be written: of those that wait, "
                "the newest were dropped (told once, counted in %s)",
                Count.SPANS_DROPPED.value,
            )

    def _hold_up(self, *, is_held_up: bool) -> None:
        """Have whoever puts look at the length of the queue, or not any more.

        Nobody does otherwise: it would be paid for by every span.
        """
        # In this order: who hears the bell ask and finds the thread not held up rings,
        # for nothing if need be.
        self._is_held_up = is_held_up
        self.bell.asleep = is_held_up or self._is_over

    def _frames(self, spans: Sequence[SpanData]) -> list[Frame]:
        """Return *spans* as frames, without those that cannot be encoded."""
        frames: list[Frame] = []
        try:
            frames = [self._encode(self._pace.along(spans))] if spans else []
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


def _written(items: Iterable[Ended]) -> None:
    for item in items:
        try:
            item.written()
        except Exception as error:  # noqa: BLE001 - the others are written all the same
            note("delivery.written", error)
