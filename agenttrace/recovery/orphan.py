"""The files of one dead journal: what they say, what is made of it, and their end.

Two threads meet here: one reads and appends, and the lanes settle what they have
delivered.  Whatever either writes, it writes while the lock of the instance is held,
and never after: by then the files are somebody else's.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from agenttrace.crashpoints import crash_point
from agenttrace.delivery import otlp, segment_files
from agenttrace.delivery.frames import SegmentError, SegmentVersionError
from agenttrace.delivery.segments import Segments
from agenttrace.journal import JournalError, State, UnknownVersionError, read_journal
from agenttrace.journal import lock as locks
from agenttrace.journal.file import SUFFIX as JOURNAL_SUFFIX
from agenttrace.journal.process import of_process
from agenttrace.journal.resources import resource_from
from agenttrace.pace import Pace
from agenttrace.recovery import signs
from agenttrace.recovery.forms import span_of
from agenttrace.recovery.found import Recovered, reason_of, tell_of
from agenttrace.settings import DUMP_SUFFIX, NOTICED_SUFFIX
from agenttrace.watchdog import questions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segment_files import Files, Place
    from agenttrace.journal import InstanceLock, Reading, Slot
    from agenttrace.model import SpanData

    Settle = Callable[[], None]
    Part = tuple[Frame, Settle, Recovered]

_BATCH: Final = 128
_SAMPLED: Final = 0x01
_NEWER: Final = "another version of agenttrace has written it, and can recover it"
_NO_JOURNAL: Final = (errno.ELOOP, errno.EISDIR, errno.ESPIPE, errno.ENXIO)
"""What opening or reading says of a link, a directory or a pipe in its place."""


class Orphan:
    """What a dead process has left, whose lock is held here.

    Args:
        lock: Its lock.
        files: Its segments, as listed since then.

    Attributes:
        lock: Its lock.
        unsettled: Frames that are on their way.
        is_read: Whether all its frames have been sent.
        is_finished: Whether it is being removed, or let go of.
        problem: Why it is left alone; None where it is not.
        damaged: What could not be read.
    """

    def __init__(self, lock: InstanceLock, files: Files) -> None:
        self.lock = lock
        self.unsettled = 0
        self.is_read = False
        self.is_finished = False
        self.problem: str | None = None
        self.damaged = 0
        self._files = files
        self._directory = lock.path.parent
        self._instance = lock.path.name.removesuffix(locks.SUFFIX)
        self._journal = self._directory / (self._instance + JOURNAL_SUFFIX)
        self._beside = [
            self._directory / (self._instance + suffix)
            for suffix in (DUMP_SUFFIX, NOTICED_SUFFIX)
        ]
        self._unreadable: list[Path] = []
        self._told: set[bytes] = set()
        self._last_sign = 0
        self._segments: Segments | None = None
        # Of what is written, and of the lock of the instance.
        self._writing = threading.Lock()

    @property
    def has_frames(self) -> bool:
        """Whether it has a spool."""
        return bool(self._files)

    def ids_in_journal(self) -> Iterator[bytes]:
        """Yield the ids of the spans in its journal that somebody may have told."""
        with self._reading() as journal:
            if journal is None:
                return
            try:
                yield from (_id(s) for s in journal if s.state is not State.JUDGED)
            except OSError as error:
                self.problem = reason_of(error)

    def ids_in_frames(self) -> Iterator[bytes]:
        """Yield the ids of the spans in its frames, settled ones included."""
        for _, path in self._files:
            try:
                contents = segment_files.contents_at(path)
            except FileNotFoundError:
                continue
            except SegmentVersionError:
                self.problem = _NEWER
            except SegmentError:
                self._unreadable.append(path)
            except OSError as error:
                self.problem = reason_of(error)
            else:
                for record in contents.records:
                    yield from map(b"".join, record.frame.ids)

    def last_sign(self, now: int) -> tuple[int, int]:
        """Return when its process last made a sign, as was written down and as is seen.

        Args:
            now: Nanoseconds since the epoch; what is said to be later is no sign.

        Returns:
            0 for what nobody has written down yet, or is not to be seen.
        """
        with self._reading() as journal:
            if journal is None:
                return 0, 0
            try:
                found = signs.last_sign(journal, self._files, now)
            except (OSError, JournalError) as error:
                self.problem = reason_of(error)
                return 0, 0
            kept = journal.header.last_sign
            return kept if kept <= now else 0, found

    def keep_sign(self, sign: int) -> None:
        """Have its open spans end at *sign*, whoever recovers it.

        Before anything is taken out of its files, which tell it.
        """
        self._last_sign = sign
        if self.problem is None:
            with self._reading() as journal, contextlib.suppress(OSError):
                if journal is not None and journal.header.last_sign != sign:
                    journal.keep_sign(sign)

    def skip(self, told: set[bytes]) -> None:
        """Take out of its journal what is *told* in a frame, be it another journal's.

        Before any frame is sent: who sends one may remove it, and be killed.
        """
        self._told = told
        if not told or self.problem is not None:
            return
        with self._reading() as journal, contextlib.suppress(OSError):
            for slot in journal or ():
                if _id(slot) in told:
                    self._free(journal, [slot])

    def frames(self) -> Iterator[Part]:
        """Yield what is to be sent, what settles it, and what it is.

        Raises:
            OSError: The directory cannot be read.
        """
        directory, instance, files = self._directory, self._instance, self._files
        with self._writing:
            if not self.lock.is_held:
                return
            # Removes at once what has nothing unsettled to say.
            self._segments = segments = Segments.adopt(directory, instance, files=files)
        for found in segment_files.read(directory, instance, files):
            self.damaged += found.problem is not None
            for place, frame in found.frames:
                settle = self._settling(segments, place)
                yield frame, settle, Recovered(resent=len(frame.ids))
        with self._reading() as journal:
            if journal is not None:
                yield from self._made(journal, segments)
                self.damaged += journal.damaged
        with self._writing, contextlib.suppress(OSError):
            # What is settled by now goes, and the rest once it is.
            segments.close()

    def remove(self) -> None:
        """Remove the files, the lock last; what stays, stays with its lock.

        Raises:
            OSError: One cannot be removed.
        """
        with self._writing:
            if not self.lock.is_held:
                return
            try:
                for path in (self._journal, *self._beside, *self._unreadable):
                    path.unlink(missing_ok=True)
                questions.forget(self._directory, of_process(self._instance))
                crash_point("journal removed")
            except BaseException:
                self.lock.release(remove=False)
                raise
            self.lock.release(remove=True)

    def release(self, patience: float = 0.0) -> bool:
        """Leave the files to the next one; nothing is written to them from here on.

        A disk that hangs must not hang the exit: the lock goes with the process then.

        Args:
            patience: Seconds to wait for who is writing to them.

        Returns:
            Whether they are let go of.
        """
        is_mine = self._writing.acquire(timeout=patience)
        if is_mine:
            try:
                if self._segments is not None:
                    self._segments.abandon()
                with contextlib.suppress(OSError):
                    self.lock.release(remove=False)
            finally:
                self._writing.release()
        return is_mine

    def forget(self) -> None:
        """Let go, in a forked child, of what is its parent's.  Nothing is written."""
        if self._segments is not None:
            self._segments.abandon()

    def _made(self, journal: Reading, segments: Segments) -> Iterator[Part]:
        """Yield frames of what stands in *journal* and is told in none."""
        resource = resource_from(journal.header.resource)
        told = self._told
        paced = Pace().along
        untold = (
            slot
            for slot in journal
            if slot.state is not State.JUDGED and _id(slot) not in told
        )
        while slots := list(islice(untold, _BATCH)):
            found = Recovered()
            spans: list[SpanData] = []
            for slot in paced(slots):
                if not slot.flags & _SAMPLED:
                    found.unsampled += 1
                    continue
                spans.append(span_of(slot, self._last_sign, resource))
                if slot.state is State.OPEN:
                    found.lost += 1
                else:
                    found.ended += 1
            if not spans:
                continue
            frame = otlp.frame_of(paced(spans))
            crash_point("recovered")
            with self._writing:
                if not self.lock.is_held:
                    return
                settle = self._kept(frame, slots, journal, segments)
            yield frame, settle, found

    def _kept(
        self, frame: Frame, slots: Sequence[Slot], journal: Reading, segments: Segments
    ) -> Settle:
        """Append *frame* and free its *slots*; return what settles it."""
        try:
            place = segments.append(frame)
        except OSError:
            # From memory then; the slots say it again if that comes to nothing.
            return self._freeing(slots)
        crash_point("recovered and appended")
        with contextlib.suppress(OSError):  # its frame says that it is told
            self._free(journal, slots)
        return self._settling(segments, place)

    @staticmethod
    def _free(journal: Reading | None, slots: Iterable[Slot]) -> None:
        if journal is not None:
            for slot in slots:
                journal.free(slot)

    def _settling(self, segments: Segments, place: Place) -> Settle:
        def settle() -> None:
            with self._writing:
                if self.lock.is_held:
                    try:
                        segments.settle(place)
                    except OSError as error:
                        tell_of(self._directory, reason_of(error))
                    crash_point("recovered and settled")

        return settle

    def _freeing(self, slots: Sequence[Slot]) -> Settle:
        def settle() -> None:
            with self._writing:
                if self.lock.is_held:
                    with self._reading() as journal, contextlib.suppress(OSError):
                        self._free(journal, slots)

        return settle

    @contextlib.contextmanager
    def _reading(self) -> Generator[Reading | None]:
        """Open the journal; None where there is none that can be read."""
        try:
            journal = read_journal(self._journal, writable=True)
        except FileNotFoundError:
            # It had a spool and no journal, or died before it had one.
            journal = None
        except UnknownVersionError:
            journal = None
            self.problem = _NEWER
        except JournalError:
            journal = None
            self._damage()
        except OSError as error:
            journal = None
            if error.errno in _NO_JOURNAL:
                self._damage()
            else:
                self.problem = reason_of(error)
        if journal is None:
            yield None
            return
        with journal:
            yield journal

    def _damage(self) -> None:
        if self._journal not in self._unreadable:
            self._unreadable.append(self._journal)
            self.damaged += 1


def look_through(orphans: Sequence[Orphan]) -> None:
    """Find out what *orphans*, of one process, say together, and write it down.

    When it last made a sign, and what is told in a frame of any of them.
    """
    now = time.time_ns()
    found = [orphan.last_sign(now) for orphan in orphans]
    told: set[bytes] = set()
    if any(orphan.has_frames for orphan in orphans):
        told = _told_of(orphans)
    crash_point("recoverer has looked")
    # What was written down stands: spans may have been told with it.
    kept = max((kept for kept, _ in found), default=0)
    sign = kept or max((seen for _, seen in found), default=0) or 1
    for orphan in orphans:
        orphan.keep_sign(sign)
    crash_point("sign kept")
    for orphan in orphans:
        orphan.skip(told)


def _told_of(orphans: Sequence[Orphan]) -> set[bytes]:
    """Return the ids of what stands in a journal and in a frame of *orphans*."""
    open_or_ended = {span for orphan in orphans for span in orphan.ids_in_journal()}
    return {
        span
        for orphan in orphans
        for span in orphan.ids_in_frames()
        if span in open_or_ended
    }


def _id(slot: Slot) -> bytes:
    return slot.trace_id + slot.span_id
