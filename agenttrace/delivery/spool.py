"""Keeps frames until every destination has answered for them.

A spool is storage: it starts no thread, takes no lock and knows no time.  Its one
caller, the backlog, calls it under a lock.  `MemorySpool` forgets with its process; the
durable spool takes its place behind the same protocol.

Frames are numbered from 1 in the order in which they came.  Each destination, a *lane*,
reads all of them in that order and at its own pace.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.delivery.frames import Frame


class Kept(NamedTuple):
    """A frame and its number."""

    number: int
    frame: Frame


class Settled(NamedTuple):
    """What became of a frame that every lane has answered for.

    Args:
        delivered: Spans that every lane delivered.
        lost: Spans that one lane or more could not.
    """

    delivered: int
    lost: int


class Size(NamedTuple):
    """How much a spool holds."""

    frames: int = 0
    spans: int = 0
    bytes: int = 0


class Spool(Protocol):
    """Frames in order, read by several lanes."""

    @property
    def newest(self) -> int:
        """The number of the last frame that was appended, 0 before the first."""
        ...

    @property
    def oldest(self) -> int:
        """The number of the oldest frame still kept; beyond `newest` if none is."""
        ...

    @property
    def size(self) -> Size:
        """How much is kept."""
        ...

    def append(self, frame: Frame) -> int:
        """Keep *frame*; return how many spans had to be dropped for it."""
        ...

    def peek(self, lane: int, up_to: int, max_bytes: int) -> Sequence[Kept]:
        """Return the next frames of *lane*, which stay its next ones.

        Args:
            lane: Its index.
            up_to: The highest number that may be read.
            max_bytes: How large they may be together; one comes in any case.
        """
        ...

    def ack(self, lane: int, number: int, lost: int = 0) -> Settled | None:
        """Note that *lane* is done with *number*, which may have been dropped.

        Args:
            lane: Its index.
            number: The frame's number, as `peek` gave it.
            lost: How many of its spans this lane could not deliver.

        Returns:
            What became of the frame, if this was the last lane to answer.
        """
        ...

    def close(self) -> int:
        """Let go of everything; return how many spans are lost by that.

        What is appended afterwards is dropped.
        """
        ...


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

    def append(self, frame: Frame) -> int:
        """Keep *frame*; return how many spans had to be dropped for it."""
        self._newest += 1
        size = len(frame.payload)
        if size > self._max_bytes:
            return len(frame.ids)
        dropped = self._make_room(size)
        if self._bytes + size > self._max_bytes:  # all of it is being sent
            return dropped + len(frame.ids)
        entry = _Entry(frame, waiting=len(self._lanes))
        for entries in (self._entries, *self._lanes):
            entries[self._newest] = entry
        self._spans += len(frame.ids)
        self._bytes += size
        return dropped

    def peek(self, lane: int, up_to: int, max_bytes: int) -> Sequence[Kept]:
        """Return the next frames of *lane*, which stay its next ones."""
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
        """Note that *lane* is done with *number*."""
        entry = self._lanes[lane].pop(number, None)
        if entry is None:
            return None
        entry.lost = max(entry.lost, lost)
        entry.waiting -= 1
        if entry.waiting:
            return None
        self._forget(number)
        return Settled(len(entry.frame.ids) - entry.lost, entry.lost)

    def close(self) -> int:
        """Let go of everything; return how many spans are lost by that."""
        self._max_bytes = -1  # what is appended from here on is dropped
        lost = self._spans
        for number in list(self._entries):
            self._forget(number)
        return lost

    def _make_room(self, size: int) -> int:
        dropped = 0
        while self._bytes + size > self._max_bytes:
            number = next(
                (n for n, entry in self._entries.items() if not entry.in_flight), None
            )
            if number is None:
                break
            dropped += len(self._entries[number].frame.ids)
            self._forget(number)
        return dropped

    def _forget(self, number: int) -> None:
        entry = self._entries.pop(number)
        for entries in self._lanes:
            entries.pop(number, None)
        self._spans -= len(entry.frame.ids)
        self._bytes -= len(entry.frame.payload)


@dataclass(slots=True, eq=False)
class _Entry:
    """A frame on its way: how many lanes it waits for, and what they lost of it."""

    frame: Frame
    waiting: int
    lost: int = 0
    in_flight: bool = False
