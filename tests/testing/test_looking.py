"""Spans are found by what they are, compared by rule, and told the same every time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace

import agenttrace
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import CapturedSpans, ManualClock, capture_spans


def run(name: str = "plan") -> None:
    with (
        agenttrace.span(name, attributes={"tenant": "gold", "seat": 7}),
        pytest.raises(KeyError),
        agenttrace.span("look up"),
    ):
        raise KeyError(name)


def test_spans_are_found_by_all_that_can_be_said_of_them() -> None:
    """A test names what it is about, and not where it stands in a list."""
    with capture_spans() as spans:
        run()

    assert spans.find(error_type="Key*") == spans.find(ended_by="exception")
    assert [span.name for span in spans.find(error_type="Key*")] == ["look up"]
    assert [span.name for span in spans.find(attributes={"tenant": "gold"})] == ["plan"]
    assert spans.find(attributes={"tenant": "gold", "seat": 8}) == []
    assert spans.find(attributes={"missing": None}) == []
    assert spans.find(where=lambda span: span.children) == spans.find("plan")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"outcome": "eror"}, "outcome='eror': must be ok, error, "),
        ({"ended_by": "gargbage"}, "ended_by='gargbage': must be return, exception, "),
    ],
)
def test_a_word_that_no_span_can_have_is_refused(
    said: dict[str, str], message: str
) -> None:
    """`not spans.find(outcome="eror")` would hold for ever."""
    with capture_spans() as spans:
        run()

    with pytest.raises(ValueError, match=message):
        spans.find(**said)  # type: ignore[arg-type]  # the mistake this is about


def test_times_and_numbers_are_compared_by_rule() -> None:
    """A value of a time is right on one machine, once."""
    with capture_spans() as spans, ManualClock() as clock, agenttrace.span("plan"):
        clock.advance(3)

    spans.assert_tree("plan: duration<5 links=0")
    spans.assert_tree("plan: duration>=3")
    with pytest.raises(AssertionError) as told:
        spans.assert_tree("plan: duration<3")
    assert "-plan: duration<3\n+ plan: ok duration=3.0" in str(told.value).replace(
        "- p", "-p"
    )
    with pytest.raises(ValueError, match="'soon' is no number"):
        spans.assert_tree("plan: duration<soon")


def test_what_a_link_leads_to_is_there() -> None:
    """Property R: work that was handed on is linked to who did it."""
    tracer = trace.get_tracer("of the test")
    with capture_spans() as spans:
        with tracer.start_as_current_span("first") as first:
            pass
        link = trace.Link(first.get_span_context())
        with tracer.start_as_current_span("second", links=[link]):
            pass

    assert spans.span("second").linked == [spans.span("first")]
    spans.assert_tree("""
        first: links=0
        second: links=1
    """)


def test_a_snapshot_is_the_same_in_every_run() -> None:
    """It is kept in a file, and compared with another day's."""

    def taken() -> object:
        with capture_spans() as spans:
            run()
        return spans.snapshot(attributes=["ten*"], ids=True)

    assert taken() == [
        {
            "name": "plan",
            "trace": 1,
            "id": 1,
            "outcome": "ok",
            "attributes": {"tenant": "gold"},
            "children": [
                {
                    "name": "look up",
                    "trace": 1,
                    "id": 2,
                    "outcome": "error",
                    "error_type": "KeyError",
                }
            ],
        }
    ]
    assert taken() == taken()


def test_captures_of_threads_do_not_see_each_others_spans() -> None:
    """Tests that run in one process at once are each about their own agent."""
    together = threading.Barrier(4)

    def one(number: int) -> CapturedSpans:
        with capture_spans() as spans:
            together.wait(60)
            run(f"plan {number}")
            together.wait(60)
        spans.assert_all_closed()
        return spans

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))

    assert [spans.names for spans in found] == [
        [f"plan {number}", "look up"] for number in range(4)
    ]


def test_captures_of_tasks_see_the_tasks_that_these_begin() -> None:
    """What a test starts is its own, wherever it runs."""

    async def one(number: int, together: asyncio.Barrier) -> CapturedSpans:
        with capture_spans() as spans:
            await together.wait()
            await asyncio.create_task(asyncio.to_thread(run, f"plan {number}"))
            await together.wait()
        return spans

    async def main() -> list[CapturedSpans]:
        together = asyncio.Barrier(3)
        return await asyncio.gather(*(one(number, together) for number in range(3)))

    found = asyncio.run(main())

    assert [spans.names for spans in found] == [
        [f"plan {number}", "look up"] for number in range(3)
    ]


def test_a_worker_of_one_test_that_serves_another_is_seen_by_that_one() -> None:
    """Whose a span is, its parent says first: the worker's context is anybody's."""
    asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def work() -> None:
        with agenttrace.continue_trace(await asked.get()):
            run("served")
        asked.task_done()

    async def begin(over: asyncio.Event) -> CapturedSpans:
        with capture_spans() as spans:
            worker = asyncio.create_task(work())
            await over.wait()
        await worker
        return spans

    async def ask(over: asyncio.Event) -> CapturedSpans:
        with capture_spans() as spans, agenttrace.span("ask"):
            asked.put_nowait(dict(agenttrace.carrier()))
            await asked.join()
        over.set()
        return spans

    async def main() -> list[CapturedSpans]:
        over = asyncio.Event()
        return [*await asyncio.gather(begin(over), ask(over))]

    begun, served = asyncio.run(asyncio.wait_for(main(), 60))

    assert served.names == ["ask", "served", "look up"]
    assert begun.names == []


def test_a_capture_within_another_is_seen_by_both() -> None:
    """A fixture captures, and so does a helper that the test calls."""
    with (
        capture_spans() as outer,
        agenttrace.span("around"),
        capture_spans() as inner,
    ):
        run()

    assert inner.names == ["plan", "look up"]
    assert outer.names == ["around", "plan", "look up"]


def test_a_thread_of_no_context_is_seen_by_all() -> None:
    """Nobody can say whose it is, and none is to miss its own."""
    with capture_spans() as outer, capture_spans() as inner:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    assert outer.names == inner.names == ["plan", "look up"]


def test_captures_that_begin_and_end_at_once_leave_nothing_behind() -> None:
    """A listener that gets lost is one that the next test misses."""

    def often(name: str) -> set[tuple[str, ...]]:
        seen: set[tuple[str, ...]] = set()
        for _ in range(10):
            with capture_spans() as spans, agenttrace.span(name):
                pass
            seen.add(tuple(spans.names))
        return seen

    names = ["a", "b", "c", "d"]
    before = PROCESS.spans.listeners, PROCESS.spans.taps
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(often, names))

    assert found == [{(name,)} for name in names]
    assert (PROCESS.spans.listeners, PROCESS.spans.taps) == before
