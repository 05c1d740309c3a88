"""Where the heartbeats of open spans are kept."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace.registry.records import SINK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.model import Ending, LinkData
    from agenttrace.registry.records import OpenSpan


class Slots(Protocol):
    """Where open spans are written down: memory here, or a journal."""

    def take(self, span: OpenSpan) -> None:
        """Give *span* a slot: set its `slot`, `words` and `word`."""
        ...

    def ended(self, span: OpenSpan, end_time: int, ending: Ending) -> None:
        """Write down that *span* has ended and is not yet spooled."""
        ...

    def judged(self, span: OpenSpan, ending: Ending) -> None:
        """Write down that the end of *span* is told, though its owner has it still."""
        ...

    def linked(self, span: OpenSpan, links: Sequence[LinkData]) -> None:
        """Write down what *span*, which has a slot, is linked to."""
        ...

    def free(self, span: OpenSpan) -> None:
        """Let the slot go: the span's final form is where it cannot be lost."""
        ...

    def tick(self) -> None:
        """Write down that the process is alive."""
        ...


class MemorySlots:
    """Slots that live and die with the process: one word a span, for its heartbeat."""

    _SEGMENT: Final = 1024

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._free: deque[tuple[int, memoryview[int], int]] = deque()

    def take(self, span: OpenSpan) -> None:
        """Give *span* a word, in a new segment where all are taken."""
        try:
            slot, words, word = self._free.popleft()
        except IndexError:
            slot, words, word = self._grow()
        words[word] = span.started_at
        span.slot = slot
        span.words = words
        span.word = word

    def ended(self, span: OpenSpan, end_time: int, ending: Ending) -> None:
        """Memory forgets with the process, so there is nothing to write down."""

    def judged(self, span: OpenSpan, ending: Ending) -> None:
        """Do nothing, for the same reason."""

    def linked(self, span: OpenSpan, links: Sequence[LinkData]) -> None:
        """Do nothing, for the same reason."""

    def tick(self) -> None:
        """Do nothing, for the same reason."""

    def free(self, span: OpenSpan) -> None:
        """Put the slot back and send later heartbeats of *span* nowhere."""
        slot, span.slot = span.slot, -1
        if slot >= 0:
            words, word = span.words, span.word
            span.words, span.word = SINK, 0
            self._free.append((slot, words, word))

    def _grow(self) -> tuple[int, memoryview[int], int]:
        # Without a lock: a signal handler or a finalizer that starts a span may run in
        # the middle of this, on the same thread.
        words = memoryview(bytearray(8 * self._SEGMENT)).cast("Q")
        first = next(self._numbers) * self._SEGMENT
        self._free.extend(
            (first + word, words, word) for word in range(1, self._SEGMENT)
        )
        return first, words, 0
