"""Directories of the dead, who recovers them, and what arrives, for these tests.

The dead are written by hand, byte by byte as the formats have it, so that they can be
in every state a process may be killed in, and in some it may not.  Who recovers is a
process of its own that can be killed at any crash point; what it sends is written to a
file, before it is settled, as a backend has it that answers.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import traceback
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.trace import SpanKind

from agenttrace import crashpoints
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.segments import Segments
from agenttrace.journal import Header, Slot, State
from agenttrace.journal.format import pack_header
from agenttrace.journal.resources import resource_bytes
from agenttrace.model import EndedBy, Outcome, ResourceData
from agenttrace.recovery import Recovered, Recovery
from tests.delivery.given import span_data
from tests.journal.given import slot_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.recovery.search import Settle

FIRST: Final = "7-0123456789ab0000"
SECOND: Final = "7-0123456789ab0001"
OTHER: Final = "8-ba98765432100000"
STARTED_AT: Final = 1_700_000_000_000_000_000
TICK: Final = STARTED_AT + 5_000_000_000
POINTS: Final = (
    "locks taken",
    "sign kept",
    "recoverer has looked",
    "recovered",
    "mid append",
    "recovered and appended",
    "sent",
    "recovered and settled",
    "journal removed",
)
"""Where who recovers may be killed."""
DEADLINE: Final = 60.0

Forms = dict[str, set[str]]
"""Every form in which a span has arrived, by its ids; both in hexadecimal digits."""


def slot(
    number: int,
    state: State = State.OPEN,
    outcome: Outcome | None = None,
    *,
    sampled: bool = True,
    parent: int = 0,
) -> Slot:
    """Return the slot of span *number*."""
    is_ended = state is State.ENDED
    return Slot(
        state,
        1,
        (outcome or Outcome.OK) if is_ended else None,
        EndedBy.RETURN if is_ended else None,
        "ValueError" if is_ended and outcome is Outcome.ERROR else None,
        STARTED_AT + 1,
        STARTED_AT + 9 if is_ended else 0,
        STARTED_AT,
        number.to_bytes(16, "big"),
        number.to_bytes(8, "big"),
        parent.to_bytes(8, "big") if parent else b"",
        False,  # noqa: FBT003 - a tuple's
        1,
        int(sampled),
        SpanKind.INTERNAL,
        None,
        None,
        f"step {number}",
        "chat",
        "support",
        "1.0",
        {},
    )


def journal_bytes(slots: Iterable[Slot], service: str = "support") -> bytes:
    """Return a journal of *slots*, of a process that is called *service*."""
    resource = resource_bytes(ResourceData({"service.name": service}))
    header = Header(7, bytes(16), STARTED_AT, TICK, resource)
    return pack_header(header) + b"".join(map(slot_bytes, slots))


def frame_of_spans(*numbers: int) -> Frame:
    """Return a frame of spans that say another thing than their slots."""
    return frame_of(
        [
            span_data(f"framed {number}")._replace(
                trace_id=number.to_bytes(16, "big"),
                span_id=number.to_bytes(8, "big"),
            )
            for number in numbers
        ]
    )


def bury(  # noqa: PLR0913, PLR0917 - the files of a process
    directory: Path,
    instance: str = FIRST,
    slots: Iterable[Slot] | None = (),
    frames: Iterable[Frame] = (),
    settled: Iterable[Frame] = (),
    service: str = "support",
) -> None:
    """Leave what a process leaves that is killed.

    Args:
        directory: Where.
        instance: What it called itself.
        slots: Those of its journal; None for no journal.
        frames: What it had on disk.
        settled: What it had on disk that was acknowledged, before the others.
        service: Its service.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / f"{instance}.lock").touch(0o600)
    if slots is not None:
        journal = directory / f"{instance}.journal"
        journal.write_bytes(journal_bytes(slots, service))
    segments = Segments(directory, instance)
    places = [segments.append(frame) for frame in settled]
    for frame in frames:
        segments.append(frame)
    for place in places:
        segments.settle(place)
    segments.abandon()


class Backend:
    """Takes frames and says so, in a file.

    Args:
        path: The file.

    Attributes:
        descriptor: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def send(self, frame: Frame, settle: Settle) -> bool:
        """Take *frame*, and only then settle it."""
        lines = "".join(f"{json.dumps(one)}\n" for one in forms_in(frame.payload))
        os.write(self.descriptor, lines.encode())
        crashpoints.crash_point("sent")
        settle()
        return True

    def close(self) -> None:
        """Take nothing more."""
        os.close(self.descriptor)

    def arrived(self) -> list[tuple[str, str]]:
        """Return ids and form of all that has arrived, in order."""
        lines = self._path.read_text().splitlines()
        return [(ids, form) for ids, form in map(json.loads, lines)]

    def forms(self) -> Forms:
        """Return all forms of every span that has arrived."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for ids, form in self.arrived():
            found[ids].add(form)
        return found


def forms_in(payload: bytes) -> list[tuple[str, str]]:
    """Return ids and form of every span: resource, scope and span, as bytes."""
    request = ExportTraceServiceRequest.FromString(payload)
    return [
        (
            (span.trace_id + span.span_id).hex(),
            b"|".join(
                part.SerializeToString(deterministic=True)
                for part in (of_resource.resource, of_scope.scope, span)
            ).hex(),
        )
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def framed(*numbers: int) -> Forms:
    """Return what arrives of `frame_of_spans`."""
    payload = frame_of_spans(*numbers).payload
    return {ids: {form} for ids, form in forms_in(payload)}


def recover(directory: Path, backend: Backend) -> Recovered:
    """Recover what is in *directory*, all of it."""
    recovery = Recovery(directory, backend.send)
    found = recovery.run()
    assert recovery.wait(DEADLINE)
    return found


def hold_up() -> tuple[list[tuple[Frame, Settle]], Callable[[Frame, Settle], bool]]:
    """Return what is sent and a way to send it that settles nothing by itself."""
    held: list[tuple[Frame, Settle]] = []

    def send(frame: Frame, settle: Settle) -> bool:
        held.append((frame, settle))
        return True

    return held, send


def die_at(point: str, times: int = 1) -> None:
    """Have this process killed when it comes to *point* so many times."""
    left = [times]

    def hook(name: str) -> None:
        left[0] -= name == point
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    crashpoints.hook = hook


class Child:
    """A process of its own that does *body*, and nothing else.

    Args:
        body: What it does.
    """

    def __init__(self, body: Callable[[], object]) -> None:
        self.pid = os.fork()
        if not self.pid:
            try:
                # A hang is a failure, too: nothing else of pytest is here to say so.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(DEADLINE))
                body()
            except BaseException:  # noqa: BLE001 - it must not come back to pytest
                traceback.print_exc()
                os._exit(1)
            os._exit(0)

    def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def names_in(directory: Path) -> list[str]:
    """Return the names of all files in *directory*."""
    return sorted(path.name for path in directory.iterdir())


def recover_in_child(
    directory: Path, log: Path, point: str | None = None, times: int = 1
) -> int:
    """Recover in a process of its own, which may be killed; return its exit code."""

    def body() -> None:
        if point is not None:
            die_at(point, times)
        recover(directory, Backend(log))

    return Child(body).wait()


def settle_on_threads(backend: Backend) -> Callable[[Frame, Settle], bool]:
    """Return a way to send that settles each frame on a thread of its own."""

    def send(frame: Frame, settle: Settle) -> bool:
        threading.Thread(target=backend.send, args=(frame, settle), daemon=True).start()
        return True

    return send
