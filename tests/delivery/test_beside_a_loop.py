"""Whatever is delivered or recovered meanwhile, an event loop is not late by it.

The interpreter is set to take a thread off the GIL after 200 ms and not after 5, so
that whoever does not give way by itself is seen.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.segments import Segments
from agenttrace.delivery.senders import Delivered
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.recovery import Recovery, orphan
from tests.delivery.given import Item, Script, put, span_data, spooling
from tests.recovery import given as dead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.model import SpanData
    from agenttrace.recovery.search import Settle

SWITCH: Final = 0.2
SPANS: Final = 20_000
"""So many that they take 50 ms and more, in one batch."""
TOLERABLE: Final = 0.02
TAKES: Final = 3
"""The least of them counts: whatever else a machine does only ever adds."""


@pytest.fixture(autouse=True)
def _switching_late() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    yield
    sys.setswitchinterval(usual)


def lateness_beside(work: Callable[[], object]) -> float:
    """Return how late this thread is while another one does *work*, seconds.

    Half of the time passes in such delays or longer ones, half in shorter ones.
    """
    late: list[float] = []
    failures: list[BaseException] = []

    def doing() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised where it is seen
            failures.append(error)

    thread = threading.Thread(target=doing)
    begun = time.perf_counter()
    thread.start()  # waits for its first sign
    late.append(time.perf_counter() - begun)
    while thread.is_alive():
        asked = time.perf_counter()
        time.sleep(0.001)
        late.append(time.perf_counter() - asked - 0.001)
    assert not failures
    left = sum(late) / 2
    for delay in sorted(late, reverse=True):
        left -= delay
        if left <= 0:
            return delay
    return 0.0


def test_one_that_does_not_give_way_is_seen() -> None:
    """What follows could not fail otherwise."""

    def hold() -> None:
        until = time.perf_counter() + 2 * SWITCH
        while time.perf_counter() < until:
            pass

    assert lateness_beside(hold) > 2 * TOLERABLE


@pytest.mark.parametrize("is_on_disk", [False, True], ids=["memory", "disk"])
def test_spans_are_encoded(tmp_path: Path, *, is_on_disk: bool) -> None:
    """All that end in an application that has just finished a lot of them."""

    def segments() -> Segments | None:
        return Segments(tmp_path, "me") if is_on_disk else None

    def late() -> float:
        all_ended = threading.Event()
        script = Script()

        def encode(spans: Iterable[SpanData]) -> Frame:
            all_ended.wait(30)
            return frame_of(spans)

        with spooling(script, encode=encode, segments=segments, batch=SPANS) as running:
            put(running, SPANS)

            def write() -> None:
                all_ended.set()
                running.flush(60)

            delay = lateness_beside(write)
        assert len(script.ids) == SPANS
        return delay

    assert min(late() for _ in range(TAKES)) < TOLERABLE


class Laborious(Item):
    """A span of which it takes ten microseconds to say what is sent of it."""

    def data(self) -> SpanData:
        """Take them."""
        for _ in range(300):
            pass
        return super().data()


def test_what_is_sent_of_them_is_put_together() -> None:
    """It is kept in pieces until then."""

    def late() -> float:
        script = Script()
        with spooling(script, batch=SPANS, linger=30) as running:
            items = [Laborious() for _ in range(SPANS)]
            for item in items:
                running.put(item)
            delay = lateness_beside(lambda: running.flush(60))
        assert len(script.ids) == SPANS
        return delay

    assert min(late() for _ in range(TAKES)) < TOLERABLE


def test_spans_are_stored(tmp_path: Path) -> None:
    """The default, where no endpoint is set."""
    sender = StoreSender(tmp_path / "traces.db")
    sender.send(frame_of([span_data()]), 10.0)  # imports SQLite and protobuf
    answers: list[object] = []

    def late() -> float:
        frame = frame_of([span_data() for _ in range(SPANS)])
        return lateness_beside(lambda: answers.append(sender.send(frame, 60.0)))

    assert min(late() for _ in range(TAKES)) < TOLERABLE
    sender.close()
    assert answers == [Delivered()] * TAKES


def test_the_dead_are_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts again serves, and tells of its predecessor meanwhile."""
    monkeypatch.setattr(orphan, "_BATCH", SPANS)

    def late() -> float:
        dead.bury(tmp_path, slots=[dead.slot(number) for number in range(1, SPANS + 1)])
        sent: list[Frame] = []

        def send(frame: Frame, settle: Settle) -> bool:
            sent.append(frame)
            settle()
            return True

        delay = lateness_beside(lambda: Recovery(tmp_path, send).run())
        assert [len(frame.ids) for frame in sent] == [SPANS]
        return delay

    assert min(late() for _ in range(TAKES)) < TOLERABLE
