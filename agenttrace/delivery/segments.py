"""Segment files: where frames stand on disk until they are settled.

Owns the files of one instance: when one is begun, what is written where, and when one
goes.  What they are called and how they are read is `segment_files`' business, what the
bytes mean is `frames`', what happens when the disk refuses is `write_ahead`'s, and
which instance is dead is recovery's.

What is written survives the process, not a loss of power: nothing here waits for the
disk itself (no fsync), because what it would add to every frame, milliseconds, is more
than such a frame is worth.  The format finds out what a disk has lost.

There is no file until the first frame comes, and none once every frame is settled.
POSIX only: on Windows this module can be imported, and that is all.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from agenttrace import crashpoints
from agenttrace.delivery.frames import (
    ACKNOWLEDGED_AT,
    HEADER_SIZE,
    SegmentError,
    acknowledged_word,
    header,
    record_of,
)
from agenttrace.delivery.segment_files import (
    Place,
    contents_at,
    files_of,
    path_of,
)

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segment_files import Files

SEGMENT_BYTES: Final = 4 * 2**20
"""Bytes after which a segment is full: so much stays on disk for one frame in it."""

# No descriptor is for a program that is executed, none follows a planted link.
_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Segments:
    """The segments of one instance, to append to and to settle.

    One thread appends, rests and closes; any thread settles.  All of it may take as
    long as the disk does, the lock too, which is held while an acknowledgement is
    written: so none of it is for a thread of the application.

    Args:
        directory: Made with the first frame if it is not there, for this user alone.
        instance: What the process calls itself.  Part of the names of the files.
        segment_bytes: After how many bytes the next segment is begun.

    Raises:
        ValueError: *instance* cannot be part of a file's name.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        instance: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        if not instance or "\0" in instance or Path(instance).name != instance:
            message = f"an instance is part of a file's name, {instance!r} cannot be"
            raise ValueError(message)
        self.directory: Final = Path(directory)
        self.instance: Final = instance
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._live: dict[int, _Segment] = {}
        self._current: _Segment | None = None
        self._is_appending = False
        self._is_closed = False
        self._next_number = 1
        self._size = 0

    @classmethod
    def adopt(
        cls,
        directory: str | os.PathLike[str],
        instance: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        files: Files | None = None,
    ) -> Self:
        """Return the segments that a dead process has left, to settle and append to.

        Places are those that `read` gives.  New frames go into segments of their own,
        behind the others.  Of the files found those that have nothing unsettled to say
        are removed at once; those that cannot be read are left alone for good.

        The caller holds the lock of the instance.

        Args:
            directory: Where they are.
            instance: Whose they are.
            segment_bytes: After how many bytes the next segment is begun.
            files: They, where they have been listed.

        Raises:
            OSError: *directory* cannot be listed.
        """
        adopted = cls(directory, instance, segment_bytes=segment_bytes)
        if files is None:
            files = files_of(directory, instance)
        for number, path in files:
            adopted._next_number = number + 1
            try:
                contents = contents_at(path)
            except (SegmentError, OSError):
                continue
            segment = _Segment(number, path, None, contents.end, contents.acknowledged)
            adopted._live[number] = segment
            adopted._size += segment.end
            if segment.is_settled:
                # It says so itself: who cannot remove it may settle the others.
                with suppress(OSError):
                    adopted._remove(segment)
        return adopted

    @property
    def size(self) -> int:
        """Bytes on disk.  Takes no lock."""
        return self._size

    def append(self, frame: Frame) -> Place:
        """Write *frame* behind the others and return its place.

        What was written of it when the disk refuses is cut off again, and the next one
        goes into another segment.  The last segment stays until `rest` or `close`, even
        if all of it is settled before.

        Raises:
            OSError: The disk does not take it.
            ValueError: It cannot be a record, or these segments are closed.
        """
        record = record_of(frame)
        with self._lock:
            if self._is_closed:
                message = "these segments are closed"
                raise ValueError(message)
            has_rested = not self._is_appending
            self._is_appending = True
            segment = self._current
        try:
            if (
                segment is None
                or not self._has_room(segment, len(record))
                or (has_rested and _is_gone(segment))
            ):
                segment = self._begin()
            _write(segment, record)
            return Place(segment.number, segment.end - len(record), segment.end)
        finally:
            with self._lock:
                if segment is not None and segment.fd is None:
                    self._retire(segment)
                self._size = sum(one.end for one in self._live.values())

    def settle(self, place: Place) -> None:
        """Note on disk that the frame at *place* needs no sending any more.

        Frames may be settled in any order; noted is the offset up to which all are.

        Raises:
            OSError: The disk does not take it: the frame may be sent once more, by
                the next process.
        """
        with self._lock:
            segment = self._live.get(place.segment)
            if segment is None or not segment.settle(place):
                return
            if not segment.is_settled:
                self._acknowledge(segment)
            elif segment is not self._current:
                self._remove(segment)
            elif not self._is_appending:
                self._retire(segment)
            else:
                self._acknowledge(segment)

    def rest(self) -> None:
        """Append nothing for a while: the last segment goes once it is settled.

        A file for every few frames would cost more than the frames.  One that could
        not be removed when it was settled is tried again.

        Raises:
            OSError: One is settled, and cannot be removed.
        """
        with self._lock:
            self._is_appending = False
            if self._current is not None and self._current.is_settled:
                self._retire(self._current)
            self._remove_settled()

    def close(self, *, remove: bool = False) -> None:
        """Append no more; what is settled is removed, now and later.

        Args:
            remove: Remove what is not settled as well.

        Raises:
            OSError: A file cannot be removed.
        """
        with self._lock:
            self._is_closed = True
            if self._current is not None:
                self._retire(self._current)
            self._remove_settled()
            for segment in list(self._live.values()) if remove else ():
                self._remove(segment)

    def abandon(self) -> None:
        """Let go of the files of the parent, in a forked child; touch none."""
        self._is_closed = True
        for segment in list(self._live.values()):  # the lock may be held for ever
            segment.let_go()

    def _has_room(self, segment: _Segment, size: int) -> bool:
        # One that is larger than a segment gets one of its own.
        return segment.end + size <= self._segment_bytes or segment.end == HEADER_SIZE

    def _begin(self) -> _Segment:
        """Make the next segment the one that is appended to."""
        with self._lock:
            if self._current is not None:
                self._retire(self._current)
        try:
            segment = self._create()
        except FileNotFoundError:
            self.directory.mkdir(0o700, parents=True, exist_ok=True)
            segment = self._create()
        except FileExistsError:  # an earlier one of the same instance left it
            numbers = [number for number, _ in files_of(self.directory, self.instance)]
            self._next_number = max(numbers, default=0) + 1
            segment = self._create()
        with self._lock:
            self._live[segment.number] = self._current = segment
        return segment

    def _create(self) -> _Segment:
        number = self._next_number
        path = path_of(self.directory, self.instance, number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        self._next_number += 1
        segment = _Segment(number, path, fd, 0, HEADER_SIZE)
        try:
            _write(segment, header())
        except OSError:
            segment.let_go()
            with suppress(OSError):
                path.unlink()
            raise
        return segment

    def _retire(self, segment: _Segment) -> None:
        """Write no more to *segment*; remove it if all of it is settled."""
        if segment is self._current:
            self._current = None
        if segment.is_settled:
            self._remove(segment)
        else:
            segment.let_go()

    def _remove(self, segment: _Segment) -> None:
        if segment.number not in self._live:
            return
        try:
            segment.path.unlink(missing_ok=True)
        except OSError:
            # It stays among the others: a disk that is read-only now may not be later.
            self._acknowledge(segment)
            raise
        else:
            del self._live[segment.number]
            self._size -= segment.end
        finally:
            segment.let_go()

    def _remove_settled(self) -> None:
        """Remove what could not be removed when it was settled, up to the first."""
        settled = [one for one in self._live.values() if one.is_settled]
        for segment in settled:
            if segment is not self._current:
                self._remove(segment)

    @staticmethod
    def _acknowledge(segment: _Segment) -> None:
        word = acknowledged_word(segment.acknowledged)
        if segment.fd is not None:
            os.pwrite(segment.fd, word, ACKNOWLEDGED_AT)
            return
        # Of the full ones none is kept open: the limit on them is the application's.
        with suppress(FileNotFoundError):
            fd = os.open(segment.path, os.O_WRONLY | _FLAGS)
            try:
                os.pwrite(fd, word, ACKNOWLEDGED_AT)
            finally:
                os.close(fd)


class _Segment:
    """A file and what is known of it.

    Args:
        number: Its number.
        path: Where it is.
        fd: Open while it is appended to.
        end: Offset behind its last record.
        acknowledged: Offset before which all is settled.
    """

    __slots__ = ("_ahead", "acknowledged", "end", "fd", "number", "path")

    def __init__(
        self, number: int, path: Path, fd: int | None, end: int, acknowledged: int
    ) -> None:
        self.number = number
        self.path = path
        self.fd = fd
        self.end = end
        self.acknowledged = acknowledged
        # Ends by starts of what is settled though something before it is not.
        self._ahead: dict[int, int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether every record in it is."""
        return self.acknowledged >= self.end

    def settle(self, place: Place) -> bool:
        """Note that *place* is settled; return whether there is more to acknowledge."""
        if place.start < self.acknowledged:
            return False
        self._ahead[place.start] = place.end
        before = self.acknowledged
        while (end := self._ahead.pop(self.acknowledged, None)) is not None:
            self.acknowledged = end
        return self.acknowledged > before

    def let_go(self) -> None:
        """Close it."""
        # Forgotten first: a child forked in between must not close another's file.
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


def _is_gone(segment: _Segment) -> bool:
    """Return whether somebody has removed it: it takes what is written, and loses it.

    For now and then: a call that lets go of the interpreter waits for it again.
    """
    return segment.fd is None or not os.fstat(segment.fd).st_nlink


def _write(segment: _Segment, data: bytes) -> None:
    """Write *data* behind what is there, all of it or nothing."""
    fd = segment.fd
    if fd is None:  # pragma: no cover - only an open one is written to
        return
    written = 0
    try:
        if crashpoints.hook is not None:
            written = os.pwrite(fd, data[: len(data) // 2], segment.end)
            crashpoints.crash_point("mid append")
        while written < len(data):
            written += os.pwrite(fd, data[written:], segment.end + written)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, segment.end)
        # The next one goes into a new file: behind half a record nobody would find
        # it, and it may be the size of this file that was the trouble.
        segment.let_go()
        raise
    segment.end += len(data)
