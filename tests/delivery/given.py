"""Spans and destinations as the tests of delivery need them."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agenttrace.delivery.otlp import frame_of, prepare
from agenttrace.delivery.retry import Retry
from agenttrace.delivery.senders import Answer, Delivered
from agenttrace.delivery.spooler import Spooler
from agenttrace.model import ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from agenttrace.delivery.encoder import Encode
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segments import Segments
    from agenttrace.delivery.senders import Sender

AT_ONCE = Retry(first=0.002, longest=0.01)
RESOURCE = ResourceData({"service.name": "support"})
SCOPE = ScopeData("agenttrace")
_numbers = itertools.count(1)


def span_data(name: str = "chat gpt-5", attribute: str = "value") -> SpanData:
    """Return a span that no other one has the id of."""
    number = next(_numbers)
    return SpanData(
        trace_id=number.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=name,
        start_time=1_000,
        end_time=2_000,
        attributes={"key": attribute},
        resource=RESOURCE,
        scope=SCOPE,
    )


def frame(*names: str, attribute: str = "value") -> Frame:
    """Return a frame of spans with *names*."""
    return frame_of([span_data(name, attribute) for name in names or ("chat",)])


class Item:
    """An ended span, as it is queued."""

    def __init__(self, name: str = "chat gpt-5", attribute: str = "value") -> None:
        self.span = span_data(name, attribute)
        self.is_written = False
        self.queued = False

    def data(self) -> SpanData:
        """Return what is sent of it."""
        return self.span

    def written(self) -> None:
        """Take note."""
        self.is_written = True


class Script:
    """A destination that answers what it is told to, one answer for each frame.

    Args:
        answers: In order; when they are used up, everything is delivered.
        gate: What each attempt waits for before it answers.
    """

    def __init__(
        self,
        *answers: Answer | Callable[[Frame], Answer],
        gate: threading.Event | None = None,
    ) -> None:
        self._answers = list(answers)
        self._gate = gate
        self.frames: list[Frame] = []
        self.started = threading.Semaphore(0)
        self.closed = threading.Event()

    def __repr__(self) -> str:
        return "Script"

    def send(self, frame: Frame, timeout: float) -> Answer:  # noqa: ARG002 - of the protocol
        """Answer as told."""
        self.frames.append(frame)
        self.started.release()
        if self._gate is not None:
            self._gate.wait(30)
        answer = self._answers.pop(0) if self._answers else Delivered()
        return answer(frame) if callable(answer) else answer

    def close(self) -> None:
        """Take note."""
        self.closed.set()

    @property
    def ids(self) -> list[tuple[bytes, bytes]]:
        """The ids of all spans of all attempts, in order."""
        return [ids for one in self.frames for ids in one.ids]


def ids_of(items: Sequence[Item]) -> list[tuple[bytes, bytes]]:
    """Return the ids of *items*, in order."""
    return [(item.span.trace_id, item.span.span_id) for item in items]


@contextmanager
def spooling(  # noqa: PLR0913 - those of a spooler
    *senders: Sender,
    encode: Encode = frame_of,
    prepare: Callable[[], object] = prepare,
    max_bytes: int = 64 * 2**20,
    batch: int = 128,
    linger: float = 0.005,
    timeout: float = 10.0,
    retry: Retry = AT_ONCE,
    max_queued: int = 200_000,
    segments: Callable[[], Segments | None] | None = None,
) -> Generator[Spooler]:
    """Yield a spooler with less patience than usual, and shut it down in the end."""
    spooler = Spooler(
        senders,
        encode=encode,
        prepare=prepare,
        max_bytes=max_bytes,
        batch=batch,
        linger=linger,
        timeout=timeout,
        retry=retry,
        max_queued=max_queued,
        segments=segments,
    )
    try:
        yield spooler
    finally:
        spooler.shutdown(1)


def put(spooler: Spooler, count: int = 1) -> list[Item]:
    """Put *count* spans and return them."""
    items = [Item(attribute=f"value {number % 100}") for number in range(count)]
    for item in items:
        spooler.put(item)
    return items
