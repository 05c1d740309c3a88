"""Keeps frames until every destination has answered for them.

A spool is storage: it starts no thread, takes no lock and knows no time.  Its one
caller, the backlog, calls it under a lock.  `MemorySpool` forgets with its process.
What outlives it stands in the write-ahead log; of that a spool knows only what has to
be called, by the backlog, once a frame needs no sending any more.

Frames are numbered from 1 in the order in which they came.  Each destination, a *lane*,
reads all of them in that order and at its own pace.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.delivery.frames import Frame


Settle = Callable[[], None]
"""Makes a frame on disk one that needs no sending any more.  May wait for the disk."""


class Kept(NamedTuple):
    """A frame and its number."""

    number: int
    frame: Frame


class Settled(NamedTuple):
    """What became of a frame that every lane has answered for.

    Args:
        delivered: Spans that every lane delivered.
        lost: Spans that one lane or more could not.
        settle: What tells the disk, None where it has not got the frame.
    """

    delivered: int
    lost: int
    settle: Settle | None


class Dropped(NamedTuple):
    """What had to go for want of room.

    Args:
        spans: How many.
        settles: What tells the disk, for every frame that it has.
    """

    spans: int
    settles: tuple[Settle, ...]


class Left(NamedTuple):
    """What was not settled when a spool was closed.

    Args:
        lost: Spans that were in memory only.
        kept: Spans that are on disk.
    """

    lost: int
    kept: int


class Size(NamedTuple):
    """How much a spool holds."""

    frames: int = 0
    spans: int = 0
    bytes: int = 0


class MemorySpool:
    """A spool in memory.  Full, it drops what is oldest and not just being sent.

    Args:
        lanes: How many destinations read it.
        max_bytes: How many bytes of payload it holds.
    """

    def __init__(self, lanes: int, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # Ordered, and not plain, dictionaries: what leaves is mostly at the front,
        # and finding the first key of a plain one takes as long as it has holes.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lanes = tuple(OrderedDict[int, _Entry]() for _ in range(lanes))
        self._newest = 0
        self._spans = 0
        self._bytes = 0

    @property
    def newest(self) -> int:
        """The number of the last frame that was appended, 0 before the first."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The number of the oldest frame still kept; beyond `newest` if none is."""
        return next(iter(self._entries), self._newest + 1)

    @property
    def size(self) -> Size:
        """How much is kept."""
        return Size(len(self._entries), self._spans, self._bytes)

    def append(self, frame: Frame, settle: Settle | None = None) -> Dropped:
        """Keep *frame*; return what had to be dropped for it, itself perhaps.

        Args:
            frame: The newest one.
            settle: What tells the disk that it is settled, None if it is not there.
        """
        self._newest += 1
        size = len(frame.payload)
        entry = _Entry(frame, settle, waiting=len(self._lanes))
        if size > self._max_bytes:
            return _dropped([entry])
        dropped = self._make_room(size)
        if self._bytes + size > self._max_bytes:  # all of it is being sent
            return _dropped([*dropped, entry])
        for entries in (self._entries, *self._lanes):
            entries[self._newest] = entry
        self._spans += len(frame.ids)
        self._bytes += size
        return _dropped(dropped)

    def peek(self, lane: int, up_to: int, max_bytes: int) -> Sequence[Kept]:
        """Return the next frames of *lane*, which stay its next ones.

        Args:
            lane: Its index.
            up_to: The highest number that may be read.
            max_bytes: How large they may be together; one comes in any case.
        """
        found: list[Kept] = []
        total = 0
        for number, entry in self._lanes[lane].items():
            total += len(entry.frame.payload)
            if number > up_to or (found and total > max_bytes):
                break
            entry.in_flight = True
            found.append(Kept(number, entry.frame))
        return found

    def ack(self, lane: int, number: int, lost: int = 0) -> Settled | None:
        """Note that *lane* is done with *number*, which may have been dropped.

        Args:
            lane: Its index.
            number: The frame's number, as `peek` gave it.
            lost: How many of its spans this lane could not deliver.

        Returns:
            What became of the frame, if this was the last lane to answer.
        """
        entry = self._lanes[lane].pop(number, None)
        if entry is None:
            return None
        entry.lost = max(entry.lost, lost)
        entry.waiting -= 1
        if entry.waiting:
            return None
        if number in self._entries:
            self._forget(number)
        delivered = len(entry.frame.ids) - entry.lost
        return Settled(delivered, entry.lost, entry.settle)

    def close(self) -> Left:
        """Let go of everything; return how many spans that leaves behind.

        What is appended afterwards is dropped.  Of what is on disk, late answers are
        heard all the same.
        """
        self._max_bytes = -1  # what is appended from here on is dropped
        lost = kept = 0
        for number, entry in list(self._entries.items()):
            if entry.settle is None:
                lost += len(entry.frame.ids)
                self._forget(number)
            else:
                kept += len(entry.frame.ids)
                self._forget(number, ())  # a lane may be about to answer for it
        return Left(lost, kept)

    def _make_room(self, size: int) -> list[_Entry]:
        dropped: list[_Entry] = []
        while self._bytes + size > self._max_bytes:
            number = next(
                (n for n, entry in self._entries.items() if not entry.in_flight), None
            )
            if number is None:
                break
            dropped.append(self._forget(number))
        return dropped

    def _forget(
        self, number: int, lanes: Sequence[OrderedDict[int, _Entry]] | None = None
    ) -> _Entry:
        entry = self._entries.pop(number)
        for entries in self._lanes if lanes is None else lanes:
            entries.pop(number, None)
        self._spans -= len(entry.frame.ids)
        self._bytes -= len(entry.frame.payload)
        return entry


class _Entry:
    """A frame on its way: how many lanes it waits for, and what they lost of it."""

    __slots__ = ("frame", "in_flight", "lost", "settle", "waiting")

    def __init__(self, frame: Frame, settle: Settle | None, waiting: int) -> None:
        self.frame = frame
        self.settle = settle
        self.waiting = waiting
        self.lost = 0
        self.in_flight = False


def _dropped(entries: Sequence[_Entry]) -> Dropped:
    return Dropped(
        sum(len(entry.frame.ids) for entry in entries),
        tuple(entry.settle for entry in entries if entry.settle is not None),
    )
