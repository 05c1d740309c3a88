"""The files of one dead process: what they say, what is made of it, and their end."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.crashpoints import crash_point
from agenttrace.delivery import otlp, segment_files
from agenttrace.delivery.segments import Segments
from agenttrace.journal import JournalError, State, UnknownVersionError, read_journal
from agenttrace.journal import lock as locks
from agenttrace.journal.file import SUFFIX as JOURNAL_SUFFIX
from agenttrace.journal.resources import resource_from
from agenttrace.recovery.forms import span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segment_files import Place
    from agenttrace.journal import InstanceLock, Reading, Slot
    from agenttrace.model import SpanData

    Settle = Callable[[], None]

_BATCH: Final = 128
_SAMPLED: Final = 0x01


@dataclass(slots=True)
class Recovered:
    """What was found and taken over.

    Attributes:
        processes: Dead processes that had left files.
        lost: Spans that were open when their process died.
        ended: Spans that had ended and were in no frame yet.
        resent: Spans that were in frames no backend had acknowledged.
        unsampled: Spans that were open or ended, and are not exported.
        damaged: Slots, journals and segments that could not be read.
        failed: Processes whose files could not be taken over, as another user's.
    """

    processes: int = 0
    lost: int = 0
    ended: int = 0
    resent: int = 0
    unsampled: int = 0
    damaged: int = 0
    failed: int = 0

    @property
    def spans(self) -> int:
        """Spans that were sent."""
        return self.lost + self.ended + self.resent

    def add(self, other: Recovered) -> None:
        """Add what *other* found."""
        for each in fields(self):
            name = each.name
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, before: Recovered) -> Recovered:
        """Return what was found since it was *before*."""
        names = [each.name for each in fields(self)]
        return Recovered(
            **{name: getattr(self, name) - getattr(before, name) for name in names}
        )


class Orphan:
    """The files of a dead process, whose lock is held here.

    Attributes:
        lock: Its lock.
        unsettled: Frames that are on their way.
        is_read: Whether all its frames have been sent.
        damaged: What could not be read.
    """

    def __init__(self, lock: InstanceLock) -> None:
        self.lock = lock
        self.unsettled = 0
        self.is_read = False
        self.damaged = 0
        self._directory = lock.path.parent
        self._instance = lock.path.name.removesuffix(locks.SUFFIX)
        self._journal = self._directory / (self._instance + JOURNAL_SUFFIX)
        self._is_unknown = False
        self._segments: Segments | None = None

    def frames(self) -> Iterator[tuple[Frame, Settle, Recovered]]:
        """Yield what is to be sent, what settles it, and what it is.

        Raises:
            OSError: The directory cannot be read.
        """
        self._segments = segments = Segments.adopt(self._directory, self._instance)
        told: set[tuple[bytes, bytes]] = set()
        for found in segment_files.read(self._directory, self._instance):
            self.damaged += found.problem is not None
            for place, frame in found.frames:
                told.update(frame.ids)
                settle = _settling(segments, place)
                yield frame, settle, Recovered(resent=len(frame.ids))
        try:
            with read_journal(self._journal, writable=True) as journal:
                yield from self._made(journal, segments, told)
                self.damaged += journal.damaged
        except FileNotFoundError:
            pass  # it had a spool and no journal, or died before it had one
        except UnknownVersionError:
            self._is_unknown = True  # of a newer agenttrace, which will read it
        except JournalError:
            self.damaged += 1

    def remove(self) -> None:
        """Remove the files, the lock last.

        Raises:
            OSError: One cannot be removed.
        """
        if self._segments is not None:
            self._segments.close()
        if self._is_unknown:
            self.release()
            return
        self._journal.unlink(missing_ok=True)
        self.lock.release(remove=True)

    def release(self) -> None:
        """Leave the files to the next one."""
        with contextlib.suppress(OSError):
            self.lock.release(remove=False)

    def _made(
        self, journal: Reading, segments: Segments, told: set[tuple[bytes, bytes]]
    ) -> Iterator[tuple[Frame, Settle, Recovered]]:
        """Yield frames of what stands in *journal* and is not *told* in a frame."""
        header = journal.header
        resource = resource_from(header.resource)
        untold = (
            slot
            for slot in journal
            if slot.state is not State.JUDGED
            and (slot.trace_id, slot.span_id) not in told
        )
        while slots := list(islice(untold, _BATCH)):
            found = Recovered()
            spans: list[SpanData] = []
            for slot in slots:
                if not slot.flags & _SAMPLED:
                    found.unsampled += 1
                    continue
                spans.append(span_of(slot, header, resource))
                if slot.state is State.OPEN:
                    found.lost += 1
                else:
                    found.ended += 1
            if not spans:
                continue
            frame = otlp.frame_of(spans)
            crash_point("recovered")
            try:
                settle = _settling(segments, segments.append(frame))
            except OSError:
                # From memory then; the slots say it again if that comes to nothing.
                settle = _freeing(journal.path, slots)
            else:
                crash_point("recovered and appended")
                for slot in slots:
                    journal.free(slot)
            yield frame, settle, found
        segments.rest()


def _settling(segments: Segments, place: Place) -> Settle:
    def settle() -> None:
        try:
            segments.settle(place)
        except OSError as error:
            tell_of(segments.directory, error)

    return settle


def _freeing(path: Path, slots: list[Slot]) -> Settle:
    def settle() -> None:
        with (
            contextlib.suppress(OSError, JournalError),
            read_journal(path, writable=True) as journal,
        ):
            for slot in slots:
                journal.free(slot)

    return settle


def tell_of(path: Path, error: OSError) -> None:
    """Log once that what stands at *path* cannot be recovered, and why."""
    safety.log_once(
        f"recovery: {error.errno}",
        logging.WARNING,
        "what a dead process has left cannot be recovered: %s: %s (told once)",
        path,
        error.strerror or type(error).__name__,
    )
