"""Time passes when a test says so, and limits with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import Outcome, semconv
from agenttrace.clock import COARSE, iso
from agenttrace.registry import OpenSpan
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import ManualClock, capture_spans, fresh_runtime
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.killing import run_in_fork

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace.testing import Hang


def test_silence_is_judged_when_its_time_has_passed_and_not_before() -> None:
    """Property T, without a test that sleeps for half a minute."""
    with capture_spans() as spans, ManualClock() as clock:
        with agenttrace.span("slow", heartbeat_timeout=30):
            clock.advance(29)
            assert spans.open
            clock.advance(2)
        assert spans.span("slow").outcome == Outcome.STUCK


def test_a_heartbeat_starts_the_silence_anew() -> None:
    """Otherwise every long step would look stuck under this clock."""
    with (
        capture_spans() as spans,
        ManualClock() as clock,
        agenttrace.span("long", heartbeat_timeout=30),
    ):
        for page in range(10):
            clock.advance(20)
            agenttrace.heartbeat(f"page {page}")

    assert spans.span("long").outcome == Outcome.OK
    assert spans.span("long").duration == 200


def test_a_span_is_as_long_as_the_test_says() -> None:
    """Durations can be asserted by value, on the slowest machine."""
    with capture_spans() as spans, ManualClock() as clock, agenttrace.span("outer"):
        clock.advance(1.5)
        with agenttrace.span("inner"):
            clock.advance(60)

    spans.assert_tree("""
        outer: duration=61.5
          inner: duration=60.0
    """)


def test_the_longest_total_time_passes_whatever_the_progress() -> None:
    """`max_duration` is the other limit there is."""
    with (
        capture_spans() as spans,
        ManualClock() as clock,
        agenttrace.span("run", max_duration=100),
    ):
        for _ in range(11):
            clock.advance(10)
            agenttrace.heartbeat()

    judged = spans.span("run")
    assert (judged.outcome, judged.ended_by) == ("timed_out", "watchdog")


def test_a_hold_is_no_part_of_either_limit() -> None:
    """A human may take an hour: the test does not."""
    with (
        capture_spans() as spans,
        ManualClock() as clock,
        agenttrace.span("ask", heartbeat_timeout=30, max_duration=60),
    ):
        clock.advance(20)
        with agenttrace.hold("approval"):
            clock.advance(3600)
        clock.advance(20)

    assert spans.span("ask").outcome == Outcome.OK


def test_a_task_is_cancelled_when_the_runtime_says_so() -> None:
    """The last step of the watchdog's, driven on the loop that it is about."""

    async def main(clock: ManualClock) -> None:
        @agenttrace.tool(heartbeat_timeout=30)
        async def wait() -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        clock.advance(31)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    with (
        fresh_runtime(on_stuck="cancel"),
        capture_spans() as spans,
        ManualClock() as clock,
    ):
        asyncio.run(main(clock))

    assert spans.find("execute_tool wait", outcome="stuck")


def test_spans_that_were_told_another_time_are_judged_by_this_one() -> None:
    """A library that gives its own start has asked the real clock."""
    with capture_spans() as spans, ManualClock() as clock:
        clock.advance(3600)
        span = trace.get_tracer("other").start_span("theirs", start_time=1)
        clock.advance(10)
        assert [each.name for each in spans.open] == ["theirs"]
        span.end()


def test_time_goes_on_afterwards() -> None:
    """What the next test measures has to be true again."""
    with ManualClock() as clock:
        clock.advance(1_000)
    with capture_spans() as spans, agenttrace.span("later"):
        pass

    assert COARSE.renew() < clock.now * 1e9
    assert 0 <= spans.span("later").duration < 900


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_time_goes_neither_back_nor_on_for_ever(seconds: float) -> None:
    """A slip that would hang the test is refused."""
    with ManualClock() as clock, pytest.raises(ValueError, match="finite number"):
        clock.advance(seconds)


def test_time_has_one_master() -> None:
    """The second would be right, and the first wrong without a word."""
    with (
        ManualClock() as clock,
        pytest.raises(RuntimeError, match="one master"),
        ManualClock(),
    ):
        pass
    with pytest.raises(RuntimeError, match="for the block"):
        clock.advance(1)


def test_a_runtime_that_is_configured_in_the_block_judges() -> None:
    """An application factory under test configures as it does in production."""
    with fresh_runtime(), ManualClock() as clock:
        agenttrace.configure(span_exporter=InMemorySpanExporter(), durable=False)
        with (
            capture_spans() as spans,
            agenttrace.span("slow", heartbeat_timeout=30),
        ):
            clock.advance(31)

    assert spans.span("slow").outcome == Outcome.STUCK


def test_a_clock_that_somebody_else_has_stopped_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tools that freeze `time` put another function in place of the clock's."""
    before = COARSE.read
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)

    with ManualClock() as clock:
        clock.advance(1)
        assert clock.now == 1_700_000_001

    assert COARSE.read is before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_process_that_is_forked_in_the_block_time_goes_on() -> None:
    """Nobody is there to move it, and no limit would ever pass."""

    def look() -> int:
        is_held = COARSE.read is not before or PROCESS.ticker.is_paused
        return 1 if is_held else 0

    before = COARSE.read
    with ManualClock() as clock:
        code = run_in_fork(look, 30)
        clock.advance(1)  # not so in the parent

    assert code == 0


def test_what_is_dropped_is_found_at_the_time_of_the_clock() -> None:
    """Otherwise it would end long before the test says that it was found."""

    @agenttrace.agent
    def words() -> Generator[str]:
        yield "sunny"

    with capture_spans() as spans, ManualClock() as clock:
        stream = words()
        next(stream)
        clock.advance(100)
        found_at = clock.now
        del stream
        collect_garbage()

    dropped = spans.span("invoke_agent words")
    assert dropped.attributes[semconv.DISCOVERED_AT] == iso(round(found_at * 1e9))
    assert dropped.duration == 0


def test_a_call_that_hangs_keeps_no_other_from_being_made(
    agenttrace_hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ticker leaves it behind, but it does not tick under this clock."""
    monkeypatch.setattr(PROCESS.errands, "_patience", 0.01)
    made = threading.Event()

    with ManualClock() as clock:
        PROCESS.errands.ask("a processor", agenttrace_hang.block)
        agenttrace_hang.wait()
        PROCESS.errands.ask("another", made.set)
        clock.advance(0.2)

    assert made.is_set()


def test_the_ticker_leaves_the_watchdog_alone_also_when_it_goes_to_sleep() -> None:
    """Two threads would change one list, and a limit pass unseen."""

    def records() -> int:
        found: list[object] = gc.get_objects()
        return sum(type(each) is OpenSpan and each.name == "brief" for each in found)

    with fresh_runtime() as fresh:
        with ManualClock() as clock:
            with agenttrace.span("brief"):
                clock.advance(0.2)
            fresh.runtime.flush()
            fresh.runtime.rest()
            gc.collect()
            inside = records()
        fresh.runtime.rest()
        gc.collect()
        outside = records()

    assert (inside, outside) == (1, 0)


def test_the_fixture_is_the_clock(agenttrace_clock: ManualClock) -> None:
    """In a suite nobody writes the block."""
    before = agenttrace_clock.now

    agenttrace_clock.advance(0.5)

    assert agenttrace_clock.now == pytest.approx(before + 0.5, abs=1e-3)
