"""Reads a journal, of a process that is dead or of one that is writing into it.

With `pread` alone: a mapping would turn a damaged disk into a SIGBUS.  What is damaged
is counted and left out, what is torn off is not there, and a file that grows meanwhile
is read as far as it is there.

Of a living process each slot is read as a whole or not at all (see `format`): its
commit word is read before the rest and after it, a piece of the file at a time.  Texts
and links are read twice: a link may take the room of a text while the span is open.

What a process was last known to do is read here, too, for whoever asks since when it
has been silent, or until when it lived.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Self

from agenttrace.journal.format import (
    ERROR_CELL,
    HEADER_START,
    LINK_COUNT,
    SLOT_SIZE,
    JournalError,
    header_length,
    pack_sign,
    read_header,
    sign_at,
)
from agenttrace.journal.slot import read_slot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from agenttrace.journal.slot import Slot

    Known = dict[int, tuple[int, int, Slot]]
    """Slots that were read before, by number: commit word of then, links, the slot."""

_PIECE: Final = 128
"""Slots that are read at a time."""
_WORDS: Final = SLOT_SIZE // 8
_COMMIT, _BEAT, _END, _START = 0, 1, 2, 3
"""Which words of a slot these are."""
_CHANGING: Final = slice(LINK_COUNT, ERROR_CELL)
"""What of a slot is written while its span is open: links, and texts beside them."""
_SIGNS: Final = (_BEAT, _END, _START)
_STATE: Final = 0xFF
_SEQUENCE_SHIFT: Final = 32
_ATTEMPTS: Final = 8
"""How often a slot is read that is another span's each time; then it is left out."""


class Reading:
    """A journal that is being read; made by `read_journal`.

    Iterating yields the slots that are taken, in the file's order.  Each iteration
    reads anew, whatever has changed.

    Attributes:
        path: The file.
        header: What it said when it was opened.
        damaged: How many slots the last iteration left out, so far, as damaged.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.damaged = 0
        self._descriptor = descriptor
        start = os.pread(descriptor, HEADER_START, 0)
        self._first = header_length(start)
        self.header = read_header(os.pread(descriptor, self._first, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def __iter__(self) -> Iterator[Slot]:
        """Iterate over the slots that are taken.

        Raises:
            OSError: The file cannot be read any further.
        """
        self.damaged = 0
        size = _PIECE * SLOT_SIZE
        first = 0
        while before := os.pread(self._descriptor, size, self._offset(first)):
            taken = [
                (at, word)
                for at, word in enumerate(_commit_words(before))
                if word & _STATE
            ]
            if taken:
                yield from self._slots(first, taken)
            if len(before) < size:
                break
            first += _PIECE

    def look(self, known: Known) -> Iterator[tuple[Slot, int]]:
        """Iterate over the slots that are taken, each with its heartbeat as of now.

        For whoever looks again and again: a slot is read as a whole only when another
        span has it, its state has changed, or a link was added.

        Args:
            known: What was read at the last look; brought up to date at the end of
                this one.

        Raises:
            OSError: The file cannot be read any further.
        """
        self.damaged = 0
        now: Known = {}
        size = _PIECE * SLOT_SIZE
        first = 0
        while data := os.pread(self._descriptor, size, self._offset(first)):
            beats = _words_at(_BEAT, data)
            links = data[LINK_COUNT::SLOT_SIZE]
            changed: list[tuple[int, int]] = []
            for at, word in enumerate(_commit_words(data)):
                if not word & _STATE:
                    continue
                entry = known.get(first + at)
                if entry is None or entry[:2] != (word, links[at]):
                    changed.append((at, word))
                    continue
                now[first + at] = entry
                yield entry[2], beats[at]
            if changed:
                words = dict(changed)
                for slot in self._slots(first, changed):
                    at = slot.number - first
                    now[slot.number] = words[at], links[at], slot
                    yield slot, slot.last_beat
            if len(data) < size:
                break
            first += _PIECE
        known.clear()
        known.update(now)

    def last_sign(self, now: int) -> int:
        """Return when the process last made any sign, nanoseconds since the epoch.

        That is its last tick, or the latest start, heartbeat or end of a span, be it
        told and its slot free by now: what stood there stays until the next span.

        Args:
            now: What is said to be later is no sign: clocks are set back, and disks
                make up numbers.

        Returns:
            0 where there is none.

        Raises:
            OSError: The file cannot be read.
            JournalError: The header is damaged by now.
        """
        size = _PIECE * SLOT_SIZE
        at = self._first
        found = 0
        while data := os.pread(self._descriptor, size, at):
            for which in _SIGNS:
                signs = _words_at(which, data)
                latest = max(signs, default=0)
                if latest > now:
                    latest = max((sign for sign in signs if sign <= now), default=0)
                # Who has started a span is alive when that has lasted some time.
                found = max(found, latest + 1 if latest and which == _START else latest)
            at += len(data)
        # Last, so that it is no older than what the slots say.
        tick = read_header(os.pread(self._descriptor, self._first, 0)).last_tick
        return max(found, tick) if tick <= now else found

    def keep_sign(self, sign: int) -> None:
        """Write down when the process last made a sign, for all who come later.

        Only for whoever holds the lock of a dead process, and has opened its journal
        `writable`.

        Raises:
            OSError: It cannot be written.
        """
        at = sign_at(self._first)
        if HEADER_START + len(self.header.resource) <= at:
            os.pwrite(self._descriptor, pack_sign(sign), at)

    def free(self, slot: Slot) -> None:
        """Mark *slot* as free: what it says is where it cannot be lost.

        Only for whoever holds the lock of a dead process, and has opened its journal
        `writable`.

        Raises:
            OSError: It cannot be written.
        """
        word = (slot.sequence << _SEQUENCE_SHIFT).to_bytes(8, "little")
        os.pwrite(self._descriptor, word, self._offset(slot.number))

    def close(self) -> None:
        """Close the file; a second time nothing happens."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _offset(self, number: int) -> int:
        return self._first + number * SLOT_SIZE

    def _slots(self, first: int, taken: list[tuple[int, int]]) -> Iterator[Slot]:
        size = (taken[-1][0] + 1) * SLOT_SIZE
        data = os.pread(self._descriptor, size, self._offset(first))
        after = os.pread(self._descriptor, size, self._offset(first))
        words = _commit_words(after)
        for at, word in taken:
            if at >= len(words):  # somebody truncates it
                return
            start = at * SLOT_SIZE
            slot = data[start : start + SLOT_SIZE]
            if _is_whole(word, slot, words[at], after[start : start + SLOT_SIZE]):
                # With the word of before: what it speaks of was there when the rest
                # was read.
                yield from self._read(word.to_bytes(8, "little") + slot[8:], first + at)
            else:
                yield from self._again(first + at)

    def _read(self, data: bytes, number: int) -> Iterator[Slot]:
        try:
            slot = read_slot(data, number)
        except JournalError:
            self.damaged += 1
        else:
            if slot is not None:
                yield slot

    def _again(self, number: int) -> Iterator[Slot]:
        """Read one slot that changed while it was read."""
        descriptor, offset = self._descriptor, self._offset(number)
        for _ in range(_ATTEMPTS):
            before = os.pread(descriptor, 8, offset)
            data = os.pread(descriptor, SLOT_SIZE, offset)
            after = os.pread(descriptor, SLOT_SIZE, offset)
            word = int.from_bytes(before, "little")
            if len(data) < SLOT_SIZE or not word & _STATE:
                return
            if _is_whole(word, data, int.from_bytes(after[:8], "little"), after):
                yield from self._read(before + data[8:], number)
                return


def read_journal(path: Path, *, writable: bool = False) -> Reading:
    """Open the journal at *path*; close it, or use it as a context manager.

    Args:
        path: The file.
        writable: Whether slots are to be freed.

    Raises:
        OSError: It cannot be opened or read: it is gone, or another user's.
        JournalError: It is no journal of ours, of another version, torn or damaged.
    """
    if not hasattr(os, "pread"):
        raise OSError(errno.ENOTSUP, "no journals on this platform", str(path))
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    # Or opening a pipe of that name would wait for its writer.
    flags |= getattr(os, "O_NONBLOCK", 0)
    flags |= os.O_RDWR if writable else os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        return Reading(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _commit_words(data: bytes) -> list[int]:
    """Return the commit words of the slots that *data* has whole."""
    return _words_at(_COMMIT, data)


def _words_at(which: int, data: bytes) -> list[int]:
    """Return one word of each slot that *data* has whole."""
    whole = len(data) - len(data) % SLOT_SIZE
    return memoryview(data)[:whole].cast("Q")[which::_WORDS].tolist()


def _is_whole(before: int, data: bytes, after: int, again: bytes) -> bool:
    """Return whether *data* is of one span, and of one instant as far as it changes.

    Args:
        before: Its commit word when it was not read yet.
        data: The slot.
        after: Its commit word after that.
        again: The slot, read once more after *data*.
    """
    return (
        bool(before & _STATE and after & _STATE)
        and before >> _SEQUENCE_SHIFT == after >> _SEQUENCE_SHIFT
        # A text that gives way to a link ends first; what of the link was read in its
        # place is followed by a reading in which it has ended.
        and data[_CHANGING] == again[_CHANGING]
    )
