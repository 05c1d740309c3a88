"""Reads a journal, of a process that is dead or of one that is writing into it.

With `pread` alone: a mapping would turn a damaged disk into a SIGBUS.  What is damaged
is counted and left out, what is torn off is not there, and a file that grows meanwhile
is read as far as it is there.

Of a living process each slot is read as a whole or not at all (see `format`): its
commit word is read before the rest and after it, a piece of the file at a time.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Self

from agenttrace.journal.format import (
    HEADER_START,
    LINK_COUNT,
    SLOT_SIZE,
    JournalError,
    header_length,
    read_header,
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
_COMMIT, _BEAT = 0, 1
"""Which words of a slot these are."""
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

    def last_tick(self) -> int:
        """Return when the process was last known to be alive, as of now.

        Raises:
            OSError: The file cannot be read.
            JournalError: The header is damaged by now.
        """
        return read_header(os.pread(self._descriptor, self._first, 0)).last_tick

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
        after = _commit_words(os.pread(self._descriptor, size, self._offset(first)))
        for at, word in taken:
            if at >= len(after):  # somebody truncates it
                return
            start = at * SLOT_SIZE
            if _is_same_span(word, after[at]):
                # With the word of before: what it speaks of was there when the rest
                # was read.
                rest = data[start + 8 : start + SLOT_SIZE]
                yield from self._read(word.to_bytes(8, "little") + rest, first + at)
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
            after = os.pread(descriptor, 8, offset)
            word = int.from_bytes(before, "little")
            if len(data) < SLOT_SIZE or not word & _STATE:
                return
            if _is_same_span(word, int.from_bytes(after, "little")):
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


def _is_same_span(before: int, after: int) -> bool:
    """Return whether a slot was taken, by one span, before and after."""
    is_taken = bool(before & _STATE and after & _STATE)
    return is_taken and before >> _SEQUENCE_SHIFT == after >> _SEQUENCE_SHIFT
