"""With segments: what has ended outlives its process, and nobody waits for a disk."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agenttrace import crashpoints, safety
from agenttrace.delivery.otlp import frame_of
from agenttrace.delivery.retry import Retry
from agenttrace.delivery.segment_files import read
from agenttrace.delivery.segments import Segments
from agenttrace.delivery.senders import Delivered, Later, Refused
from agenttrace.delivery.senders.http import HttpSender
from agenttrace.delivery.spooler import Spooler
from tests.delivery.collector import Collector, Reply
from tests.delivery.given import Item, Script, ids_of, put, span_data, spooling

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.senders import Answer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

NEVER = Retry(first=3_600, longest=3_600, longest_asked=3_600)
LONG = 30.0


@pytest.fixture(autouse=True)
def _fresh_counters() -> Iterator[None]:
    safety.reset_for_tests()
    yield
    safety.reset_for_tests()


def on_disk(directory: Path) -> list[tuple[bytes, bytes]]:
    """Return the ids of the spans that the next process would find."""
    return [
        ids
        for found in read(directory, "me")
        for _, frame in found.frames
        for ids in frame.ids
    ]


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do.

    Raises:
        TimeoutError: It did not.
    """
    deadline = time.monotonic() + LONG
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.001)


@contextmanager
def stalled_disk() -> Generator[threading.Event]:
    """Have the disk take half of what is written and no more while this lasts.

    What is yielded is set once something waits for it.
    """
    waiting, goes_on = threading.Event(), threading.Event()

    def stall(at: str) -> None:
        if at == "mid append":
            waiting.set()
            goes_on.wait(LONG)

    crashpoints.hook = stall
    try:
        yield waiting
    finally:
        crashpoints.hook = None
        goes_on.set()


def test_every_span_arrives_and_no_file_is_left(tmp_path: Path) -> None:
    """The whole promise, on a good day."""
    script = Script()

    with spooling(script, segments=lambda: Segments(tmp_path, "me")) as running:
        items = put(running, 1_000)
        settled = running.shutdown(10)
        status = running.status()

    assert settled
    assert script.ids == ids_of(items)
    assert all(item.is_written for item in items)
    assert (status.acknowledged, status.dropped, status.left) == (1_000, 0, 0)
    assert status.spooled_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_a_span_is_freed_when_it_is_on_disk(tmp_path: Path) -> None:
    """Until then the journal has it, afterwards nothing else does."""
    seen: list[bool] = []

    class Looking(Item):
        def written(self) -> None:
            seen.append(ids_of([self])[0] in on_disk(tmp_path))

    with spooling(Script(), segments=lambda: Segments(tmp_path, "me")) as running:
        running.put(Looking())
        running.flush(30)

    assert seen == [True]


def test_what_waits_for_a_destination_is_on_disk(tmp_path: Path) -> None:
    """An outage is when processes are restarted."""
    down = [Later("HTTP 503")] * 2

    with spooling(
        Script(*down), batch=10, retry=NEVER, segments=lambda: Segments(tmp_path, "me")
    ) as running:
        items = put(running, 95)
        until(lambda: all(item.is_written for item in items))
        waiting = on_disk(tmp_path)
        size = running.status().spooled_bytes
        until(lambda: running.status().lanes[0].retries == 1)
        running.flush(0.2)
        until(lambda: running.status().lanes[0].retries == 2)  # the outage goes on
        settled = running.shutdown(10)  # and is over

    assert waiting == ids_of(items)
    assert size > 95 * 24
    assert settled
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("answer", [Refused("HTTP 400"), Delivered(rejected=1)])
def test_what_is_refused_is_not_sent_by_the_next_process(
    tmp_path: Path, answer: Answer
) -> None:
    """It would be refused again, in every process to come."""
    with spooling(Script(answer), segments=lambda: Segments(tmp_path, "me")) as running:
        put(running)
        running.flush(30)
        status = running.status()
        until(lambda: not on_disk(tmp_path))

    assert status.dropped == 1


def test_a_frame_is_on_disk_until_the_last_destination_has_it(tmp_path: Path) -> None:
    """The next process sends it to all of them: the others merge what they have."""
    gate = threading.Event()
    slow, quick = Script(gate=gate), Script()

    with spooling(slow, quick, segments=lambda: Segments(tmp_path, "me")) as running:
        items = put(running)
        until(lambda: running.status().lanes[1].acknowledged == 1)
        between = on_disk(tmp_path)
        gate.set()
        running.shutdown(10)

    assert between == ids_of(items)
    assert on_disk(tmp_path) == []


def test_what_is_dropped_for_want_of_room_is_off_the_disk_too(tmp_path: Path) -> None:
    """It is told as dropped, and the disk has a limit as well."""
    gate = threading.Event()
    script = Script(gate=gate)

    with spooling(
        script,
        max_bytes=len(frame_of([span_data()]).payload) * 20,
        batch=1,
        segments=lambda: Segments(tmp_path, "me", segment_bytes=1_000),
    ) as running:
        items = put(running)
        script.started.acquire(timeout=LONG)  # this one is just being sent
        items += put(running, 99)
        until(lambda: all(item.is_written for item in items))
        status = running.status()
        kept = on_disk(tmp_path)
        gate.set()

    assert status.buffered_spans + status.dropped == 100
    assert kept[0] == ids_of(items)[0]
    # Of one segment the settled rest may still be there.
    assert status.buffered_spans <= len(kept) <= status.buffered_spans + 10
    assert set(kept) >= set(ids_of(items)[1 - status.buffered_spans :])


def test_a_shutdown_that_runs_out_of_time_leaves_it_to_the_next_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, so nothing is told as lost."""
    caplog.set_level(logging.INFO, "agenttrace")
    gate = threading.Event()
    script = Script(gate=gate)
    running = Spooler([script], linger=0.005, segments=lambda: Segments(tmp_path, "me"))
    items = put(running, 3)
    script.started.acquire(timeout=LONG)
    until(lambda: all(item.is_written for item in items))

    settled = running.shutdown(0.2)

    assert not settled
    assert on_disk(tmp_path) == ids_of(items)
    assert (running.status().dropped, running.status().left) == (0, 3)
    assert safety.counts()["spans_dropped"] == 0
    assert safety.counts()["spans_left"] == 3
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert "3 spans were not delivered" in record.message
    assert "kept on disk" in record.message
    gate.set()
    script.closed.wait(LONG)  # the answer comes after all, and is heard
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_did_not_take_is_told_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last word of a process must be true in every case."""
    gate = threading.Event()
    in_the_way = tmp_path / "file"
    in_the_way.touch()

    with spooling(
        Script(gate=gate), segments=lambda: Segments(in_the_way, "me")
    ) as running:
        items = put(running, 2)
        until(lambda: all(item.is_written for item in items))
        running.shutdown(0.2)
    gate.set()

    assert running.status().dropped == 2
    assert running.status().left == 0
    assert "2 spans were not delivered before shutting down" in caplog.text


def test_a_spooler_may_find_that_there_are_to_be_no_files() -> None:
    """Windows, or a state directory that is not to be used."""
    script = Script()

    with spooling(script, segments=lambda: None) as running:
        items = put(running)
        running.flush(30)

    assert script.ids == ids_of(items)


def test_a_disk_that_stalls_holds_up_no_thread_of_the_application(
    tmp_path: Path,
) -> None:
    """Network file systems do that for minutes, and deliver everything afterwards."""
    script = Script()
    with spooling(script, segments=lambda: Segments(tmp_path, "me")) as running:
        with stalled_disk() as waiting:
            items = put(running)
            assert waiting.wait(LONG)
            durations: list[float] = []
            for _ in range(5_000):
                item = Item()
                begun = time.perf_counter()
                running.put(item)
                durations.append(time.perf_counter() - begun)
                items.append(item)
            begun = time.monotonic()
            flushed = running.flush(0.2)
            status = running.status()
            took = time.monotonic() - begun
        settled = running.flush(LONG)

    assert not flushed
    assert 0.2 <= took < LONG / 2
    assert status.queued >= 5_000
    assert sorted(durations)[len(durations) // 2] < 20e-6
    assert settled
    assert script.ids == ids_of(items)
    assert running.status().dropped == 0


def test_a_shutdown_during_a_stall_leaves_the_rest_to_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its slots are not freed, so recovery tells of them."""
    caplog.set_level(logging.INFO, "agenttrace")
    script = Script()
    running = Spooler(
        [script], linger=0.005, batch=1, segments=lambda: Segments(tmp_path, "me")
    )
    with stalled_disk() as waiting:
        items = put(running)
        assert waiting.wait(LONG)
        items += put(running, 7)
        begun = time.monotonic()
        settled = running.shutdown(0.2)
        took = time.monotonic() - begun
        status = running.status()
        put(running, 2)  # nobody has a use for these any more

    assert not settled
    assert took < LONG / 2
    assert (status.left, status.dropped) == (7, 0)
    assert "7 spans were not delivered" in caplog.text
    assert not any(item.is_written for item in items[1:])
    # The one that the disk had in its hands is found there.
    until(lambda: items[0].is_written)
    assert on_disk(tmp_path) == ids_of(items[:1])
    assert running.status().left == 8
    assert running.status().dropped == 2


def test_the_queue_does_not_grow_without_end_while_a_disk_stalls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is the application's; what is dropped is counted, and its slot freed."""
    script = Script()
    with spooling(
        script, batch=10, max_queued=100, segments=lambda: Segments(tmp_path, "me")
    ) as running:
        with stalled_disk() as waiting:
            items = put(running, 10)
            assert waiting.wait(LONG)
            flushing = threading.Thread(target=running.flush, args=[LONG])
            flushing.start()
            until(lambda: running.status().queued > 0)
            queued = running.status().queued
            items += put(running, 500)
            longest = running.status().queued
        flushing.join()
        settled = running.flush(LONG)
        status = running.status()

    assert longest <= 101
    assert settled
    assert status.dropped == 510 - status.acknowledged >= 500 - 100
    assert script.ids == ids_of(items)[: status.acknowledged]
    assert all(item.is_written for item in items)
    assert queued <= 10
    assert "the newest were dropped" in caplog.text


def test_a_slow_disk_wakes_the_thread_as_often_as_needed(tmp_path: Path) -> None:
    """While it writes nobody rings; what was put meanwhile must not be forgotten."""
    script = Script()
    crashpoints.hook = lambda at: time.sleep(0.0005) if at == "mid append" else None
    try:
        with spooling(
            script, batch=4, linger=0.0, segments=lambda: Segments(tmp_path, "me")
        ) as running:
            all_items: list[list[Item]] = [[] for _ in range(4)]

            def work(items: list[Item]) -> None:
                for _ in range(200):
                    items += put(running)
                    time.sleep(0)

            threads = [threading.Thread(target=work, args=[each]) for each in all_items]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Nobody flushes: the thread has to find everything by itself.
            until(lambda: running.status().acknowledged == 800)
    finally:
        crashpoints.hook = None

    assert sorted(script.ids) == sorted(
        ids for items in all_items for ids in ids_of(items)
    )


def test_a_burst_of_fifty_thousand_spans_with_a_collector_far_away_loses_nothing(
    tmp_path: Path,
) -> None:
    """A fan-out of agents does that, and its trace is looked at."""
    with (
        Collector(usual=Reply(delay=0.3)) as collector,
        spooling(
            HttpSender(collector.endpoint), segments=lambda: Segments(tmp_path, "me")
        ) as running,
    ):
        items = put(running, 50_000)
        settled = running.shutdown(60)
        status = running.status()
        bodies = [request.body for request in collector.requests]
        spans = {span.span_id for span in collector.spans()}

    assert settled
    assert (status.acknowledged, status.dropped, status.left) == (50_000, 0, 0)
    assert len(spans) == len(items)
    assert len(bodies) < 100
    assert list(tmp_path.iterdir()) == []


def test_a_long_outage_costs_nothing_but_disk(tmp_path: Path) -> None:
    """Hundreds of frames in many segments, and all of it arrives in order."""
    down = threading.Event()
    down.set()

    def answer(_: Frame) -> Answer:
        return Later("HTTP 503") if down.is_set() else Delivered()

    script = Script(*[answer] * 100_000)
    with spooling(
        script,
        batch=16,
        segments=lambda: Segments(tmp_path, "me", segment_bytes=20_000),
    ) as running:
        items = put(running, 6_400)
        until(lambda: all(item.is_written for item in items))
        files = len(list(tmp_path.iterdir()))
        waiting = on_disk(tmp_path)
        script.frames.clear()
        down.clear()
        settled = running.shutdown(LONG)

    assert files > 20
    assert waiting == ids_of(items)
    assert settled
    assert script.ids[-len(items) :] == ids_of(items)
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_has_left_is_sent_and_then_gone(tmp_path: Path) -> None:
    """It is all that recovery does with frames."""
    with spooling(
        Script(*[Later("HTTP 503")] * 9),
        batch=4,
        retry=NEVER,
        segments=lambda: Segments(tmp_path, "me"),
    ) as dying:
        items = put(dying, 40)
        until(lambda: all(item.is_written for item in items))
        dying.shutdown(0.2)
    script = Script()

    adopted = Segments.adopt(tmp_path, "me")
    with spooling(script) as running:
        for found in read(tmp_path, "me"):
            for place, frame in found.frames:
                running.resume(frame, partial(adopted.settle, place))
        settled = running.shutdown(10)
        status = running.status()
    adopted.close()

    assert settled
    assert script.ids == ids_of(items)
    assert status.acknowledged == 40
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_and_is_in_vain_again_is_left_again(tmp_path: Path) -> None:
    """The outage may last longer than two processes."""
    dead = Segments(tmp_path, "me")
    one = frame_of([span_data()])
    dead.append(one)
    dead.close()
    adopted = Segments.adopt(tmp_path, "me")
    with spooling(Script(*[Later("HTTP 503")] * 9), retry=NEVER) as running:
        [found] = read(tmp_path, "me")
        [(place, frame)] = found.frames

        running.resume(frame, partial(adopted.settle, place))
        until(lambda: running.status().buffered_spans == 1)
        running.shutdown(0.2)
        running.resume(frame, partial(adopted.settle, place))

    adopted.close()
    assert (running.status().left, running.status().dropped) == (1, 0)
    assert on_disk(tmp_path) == list(one.ids)


class Busy(Spooler):
    """One whose application ends a span while it is being shut down."""

    def flush(self, timeout: float) -> bool:
        settled = super().flush(timeout)
        self.put(Item("last"))
        return settled


def test_what_comes_after_the_flush_of_a_shutdown_is_said_to_be_left(
    tmp_path: Path,
) -> None:
    """Who hears that all of it is settled removes the lock: nobody would find it.

    Nor does it take longer than it has to: the thread hears that it is to end.
    """
    script = Script(Delivered(), Later("down"), Later("down"))
    spooler = Busy([script], segments=lambda: Segments(tmp_path, "me"), retry=NEVER)
    put(spooler, 1)

    begun = time.monotonic()
    settled = spooler.shutdown(LONG)

    assert not settled
    assert len(on_disk(tmp_path)) == 1
    assert time.monotonic() - begun < LONG / 2
