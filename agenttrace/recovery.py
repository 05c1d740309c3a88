"""Takes over what dead processes have left: their open spans, and their spool.

Of every instance whose lock is free, and so whose process is dead, the frames that no
backend has acknowledged are sent as they are.  What stands in its journal and in no
frame is made into frames, appended to the dead process's own spool, and sent.  When all
of it is settled the files go, the lock last.

Whoever recovers may be killed at any instant, and the next one begins again: a frame is
on disk before its slots are freed, and what is made of a slot is a function of slot and
header alone, so that the same bytes come of it.

The bytes are the journal's and the spool's; when this runs, and where frames are sent
to, is the runtime's or a command's business.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import StatusCode

from agenttrace import safety, semconv
from agenttrace.crashpoints import crash_point
from agenttrace.delivery import otlp, segment_files
from agenttrace.delivery.segments import Segments
from agenttrace.journal import (
    JournalError,
    Reading,
    State,
    UnknownVersionError,
    read_journal,
    take_over,
)
from agenttrace.journal import lock as locks
from agenttrace.journal.file import SUFFIX as JOURNAL_SUFFIX
from agenttrace.model import (
    EndedBy,
    Ending,
    Outcome,
    ResourceData,
    ScopeData,
    SpanData,
    error_type_of,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segment_files import Place
    from agenttrace.journal import Header, InstanceLock, Slot

    Settle = Callable[[], None]
    Send = Callable[[Frame, Settle], bool]
    """Takes a frame to its destinations; False where nobody takes any more."""

_BATCH: Final = 128
_WINDOW: Final = 8 * 2**20
"""Bytes on their way at once: recovery must not fill the memory of who does it."""
_PATIENCE: Final = 1.0
"""Seconds after which a wait looks whether it is to stop."""
_SAMPLED: Final = 0x01
_LOST: Final = "its process died while it was open"


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


class Recovery:
    """Recovers the dead of one directory, again and again.

    Args:
        directory: Where instances keep their files.
        send: Where frames go.
        window: Bytes that may be on their way at once.
    """

    def __init__(self, directory: Path, send: Send, *, window: int = _WINDOW) -> None:
        self._directory = directory
        self._send = send
        self._window = window
        self._progress = threading.Condition()
        self._on_their_way = 0
        self._orphans: list[Orphan] = []
        self._stopped = False

    def run(self, tell: Callable[[Recovered], object] | None = None) -> Recovered:
        """Take over every dead process that is found; return what they had left.

        What was sent is not settled yet, see `wait`.  Never raises.

        Args:
            tell: Called with what was found so far, after each batch.
        """
        total = Recovered()
        for path in locks_in(self._directory):
            if self._stopped:
                break
            orphan = _taken_over(path, total)
            if orphan is None:
                continue
            self._orphans.append(orphan)
            total.processes += 1
            try:
                for frame, settle, found in orphan.frames():
                    total.add(found)
                    if tell is not None:
                        tell(total)
                    if not self._pass_on(orphan, frame, settle):
                        break
                else:
                    orphan.is_read = True
            except OSError as error:
                total.failed += 1
                _tell_of(path, error)
            total.damaged += orphan.damaged
            self._finish(orphan)
        safety.count(safety.Count.SPANS_RECOVERED, total.lost + total.ended)
        safety.count(safety.Count.SPANS_REDELIVERED, total.resent)
        return total

    def wait(self, timeout: float) -> bool:
        """Return whether all of it is settled, and the files gone, in time.

        Args:
            timeout: Longest wait in seconds.
        """
        with self._progress:
            return self._progress.wait_for(lambda: not self._orphans, timeout)

    def stop(self) -> None:
        """Take nothing more over, and leave to others what is not settled."""
        self._stopped = True
        with self._progress:
            self._progress.notify_all()

    def close(self) -> None:
        """Let go of what is not settled: the next one finds it."""
        self.stop()
        for orphan in self._orphans[:]:
            orphan.release()
        self._orphans.clear()

    def _pass_on(self, orphan: Orphan, frame: Frame, settle: Settle) -> bool:
        size = len(frame.payload)
        with self._progress:
            while self._on_their_way and self._on_their_way + size > self._window:
                if self._stopped:
                    return False
                self._progress.wait(_PATIENCE)
            self._on_their_way += size
            orphan.unsettled += 1

        def settled() -> None:
            settle()
            with self._progress:
                self._on_their_way -= size
                orphan.unsettled -= 1
                self._progress.notify_all()
            self._finish(orphan)

        return not self._stopped and self._send(frame, settled)

    def _finish(self, orphan: Orphan) -> None:
        with self._progress:
            if orphan.unsettled or not orphan.is_read or orphan not in self._orphans:
                return
            self._orphans.remove(orphan)
            self._progress.notify_all()
        try:
            orphan.remove()
        except OSError as error:
            _tell_of(orphan.lock.path, error)


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


def locks_in(directory: Path) -> list[Path]:
    """Return the lock files in *directory*, the oldest first; none if it is not there.

    >>> from pathlib import Path; locks_in(Path("/nowhere"))
    []
    """
    try:
        found = [(path.stat().st_mtime_ns, path) for path in directory.glob("*.lock")]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def span_of(slot: Slot, header: Header, resource: ResourceData) -> SpanData:
    """Return the final form of the span in *slot*, of the process with *header*.

    An open one is `lost` and ends when its process was last known to be alive; one that
    had ended keeps its own ending.  Nothing else goes into it, so it is the same
    whoever recovers it and whenever.
    """
    attributes: dict[str, object] = dict(slot.attributes)
    if slot.operation is not None:
        attributes[semconv.GEN_AI_OPERATION_NAME] = slot.operation
    outcome, ended_by = slot.outcome, slot.ended_by
    message = _LOST
    if slot.state is State.OPEN or outcome is None or ended_by is None:
        outcome, ended_by = Outcome.LOST, EndedBy.RECOVERY
        end_time = max(header.last_tick, slot.last_beat, slot.started_at)
        attributes[semconv.LAST_HEARTBEAT] = _instant(slot.last_beat)
    else:
        end_time = max(slot.end_time, slot.started_at)
        attributes[semconv.ATTRIBUTES_LOST] = True
        message = slot.error_type or outcome.value
    ending = Ending(outcome, ended_by, message=message)
    error_type = slot.error_type or error_type_of(ending)
    if error_type is not None:
        attributes[semconv.ERROR_TYPE] = error_type
    attributes[semconv.OUTCOME] = outcome.value
    attributes[semconv.ENDED_BY] = ended_by.value
    code, message = status_of(ending)
    return SpanData(
        trace_id=slot.trace_id,
        span_id=slot.span_id,
        parent_id=slot.parent_id,
        parent_is_remote=slot.parent_is_remote,
        trace_state="",
        name=slot.name,
        kind=slot.kind,
        start_time=slot.started_at,
        end_time=end_time,
        attributes=attributes,
        events=(),
        links=(),
        status=code,
        status_message=message if code is StatusCode.ERROR else "",
        dropped_attributes=0,
        dropped_events=0,
        dropped_links=0,
        resource=resource,
        scope=ScopeData(slot.scope_name, slot.scope_version),
    )


def resource_bytes(resource: ResourceData) -> bytes:
    """Return *resource* as a journal's header keeps it: JSON.

    >>> resource_from(resource_bytes(ResourceData({"service.name": "support"})))
    ResourceData(attributes={'service.name': 'support'}, schema_url='')
    """
    said = {"attributes": dict(resource.attributes), "schema_url": resource.schema_url}
    return json.dumps(said, default=str).encode()


def resource_from(data: bytes) -> ResourceData:
    """Return the resource that `resource_bytes` has written; an empty one if none."""
    try:
        said: Any = json.loads(data)
        attributes = {
            str(key): tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # of anything
            for key, value in said["attributes"].items()
        }
        return ResourceData(attributes, str(said["schema_url"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return ResourceData({})


def _taken_over(path: Path, total: Recovered) -> Orphan | None:
    try:
        lock = take_over(path)
    except OSError as error:
        total.failed += 1
        _tell_of(path, error)
        return None
    return None if lock is None else Orphan(lock)


def _settling(segments: Segments, place: Place) -> Settle:
    def settle() -> None:
        try:
            segments.settle(place)
        except OSError as error:
            _tell_of(segments.directory, error)

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


def _instant(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return moment.replace(microsecond=rest // 1000).isoformat(timespec="milliseconds")


_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""


def _tell_of(path: Path, error: OSError) -> None:
    safety.log_once(
        f"recovery: {error.errno}",
        logging.WARNING,
        "what a dead process has left cannot be recovered: %s: %s (told once)",
        path,
        error.strerror or type(error).__name__,
    )
