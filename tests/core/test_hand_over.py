"""What the dead have left reaches another provider's processors, and is settled then.

The provider is the SDK's.  What its processors say when they are flushed is all that
can be known of what becomes of it.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    SpanProcessor,
    TracerProvider,
)

from agenttrace import safety
from agenttrace.delivery.frames import Frame
from agenttrace.recovery import Recovery
from agenttrace.registry import OpenSpans
from agenttrace.runtime.attached import HandOver
from agenttrace.spans.attached import Attachment
from tests.recovery.given import DEADLINE, bury, frame_of_spans, names_in, slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks there")

NAMES = ["step 1", "step 2"]
YES, NO = True, False
SILENCE = None
"""What processors of others say, whose authors take it for a yes."""


class Processor(SpanProcessor):
    """Notes what it is handed, and says of a flush what it is told to say."""

    def __init__(self, *says: bool | None) -> None:
        self.names: list[str] = []
        self.flushed = 0
        self.on_flush: Callable[[int], object] | None = None
        self.says = list(says)

    def on_end(self, span: ReadableSpan) -> None:
        self.names.append(span.name)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        del timeout_millis
        self.flushed += 1
        if self.on_flush is not None:
            self.on_flush(self.flushed)
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        return cast("bool", said)


def hand_over_to(
    *processors: SpanProcessor, concurrent: bool = False
) -> tuple[HandOver, OpenSpans]:
    """Return the way to *processors*, and the registry of who is attached."""
    composite = ConcurrentMultiSpanProcessor() if concurrent else None
    provider = TracerProvider(active_span_processor=composite, shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    registry = OpenSpans()
    return HandOver(Attachment(provider, registry), provider, provider), registry


@pytest.mark.parametrize("concurrent", [False, True])
def test_what_is_flushed_is_settled_and_its_files_go(
    tmp_path: Path, *, concurrent: bool
) -> None:
    """That is all that can be known: what was flushed is theirs to deliver."""
    processor = Processor(YES)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, _ = hand_over_to(processor, concurrent=concurrent)

    recovery = Recovery(tmp_path, hand_over.take)
    found = recovery.run()

    assert (found.lost, recovery.wait(DEADLINE)) == (2, True)
    assert processor.names == NAMES
    assert names_in(tmp_path) == []


def test_a_processor_that_says_nothing_has_flushed(tmp_path: Path) -> None:
    """The SDK's composite takes None for a no, and would have it told for ever."""
    silent, other = Processor(SILENCE), Processor(YES)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, _ = hand_over_to(silent, other)

    Recovery(tmp_path, hand_over.take).run()

    assert silent.names == other.names == NAMES
    assert other.flushed >= 2
    assert names_in(tmp_path) == []


def test_who_does_not_flush_is_given_nothing(tmp_path: Path) -> None:
    """It would be told once more by whoever comes next."""
    processor = Processor(NO)
    bury(tmp_path, slots=[slot(1)])
    hand_over, _ = hand_over_to(processor)

    recovery = Recovery(tmp_path, hand_over.take)
    recovery.run()

    assert recovery.is_refused
    assert processor.names == []
    recovery.close()
    taken, _ = hand_over_to(Processor(YES))
    assert Recovery(tmp_path, taken.take).run().resent == 1
    assert names_in(tmp_path) == []


def test_a_flush_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A backend that restarts must not have it told twice."""
    # Each no is asked for twice: of the provider, and of the processor.
    processor = Processor(YES, NO, NO, YES)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, _ = hand_over_to(processor)

    recovery = Recovery(tmp_path, hand_over.take)
    recovery.run()

    assert not recovery.is_refused
    assert processor.names == NAMES
    assert names_in(tmp_path) == []


def test_whoever_stops_does_not_wait_for_who_does_not_flush(tmp_path: Path) -> None:
    """What was handed over and not flushed is told once more, by the next."""
    processor = Processor(YES, NO)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, _ = hand_over_to(processor)

    def on_flush(times: int) -> None:
        if times == 2:
            hand_over.stop()

    processor.on_flush = on_flush

    recovery = Recovery(tmp_path, hand_over.take)
    recovery.run()
    recovery.close()

    assert processor.names == NAMES
    assert len(names_in(tmp_path)) > 1


def test_a_flush_of_the_application_settles_what_was_handed_over(
    tmp_path: Path,
) -> None:
    """At exit the last flush is the main thread's, and nothing is told once more."""
    processor = Processor(YES, NO)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, _ = hand_over_to(processor)
    is_handed, go_on = threading.Event(), threading.Event()

    def on_flush(times: int) -> None:
        if times == 2:
            is_handed.set()
            assert go_on.wait(DEADLINE)

    processor.on_flush = on_flush
    recovery = Recovery(tmp_path, hand_over.take)
    thread = threading.Thread(target=recovery.run)
    thread.start()
    assert is_handed.wait(DEADLINE)
    hand_over.stop()
    processor.on_flush = None
    processor.says[:] = [YES]

    assert hand_over.flush(1.0)

    go_on.set()
    thread.join(DEADLINE)
    assert recovery.wait(DEADLINE)
    assert names_in(tmp_path) == []


def test_a_flush_without_a_limit_is_one() -> None:
    """`flush_timeout=math.inf` is allowed, and no provider can be told that."""
    processor = Processor(YES)
    hand_over, _ = hand_over_to(processor)

    assert hand_over.flush(math.inf)
    assert processor.flushed == 1


def test_what_cannot_be_read_is_counted_and_holds_nobody_up() -> None:
    """A frame that nobody can decode would come back for ever."""
    processor = Processor(YES)
    hand_over, _ = hand_over_to(processor)
    settled: list[int] = []
    safety.reset_for_tests()

    frame = Frame(frame_of_spans(1).ids, b"no request")
    is_taken = hand_over.take(frame, lambda: settled.append(1))

    assert (is_taken, settled, processor.names) == (True, [1], [])
    assert safety.counts()[safety.Count.SPANS_DROPPED] == 1
    assert safety.guard_hits() == {"handover": 1}
    safety.reset_for_tests()


def test_spans_of_the_dead_are_not_captured_as_ours(tmp_path: Path) -> None:
    """A test that asserts its own spans has nothing to do with them."""
    processor = Processor(YES)
    bury(tmp_path, slots=[slot(1), slot(2)])
    hand_over, registry = hand_over_to(processor)
    captured: list[object] = []
    registry.taps = (captured.append,)

    Recovery(tmp_path, hand_over.take).run()

    assert (processor.names, captured) == (NAMES, [])
