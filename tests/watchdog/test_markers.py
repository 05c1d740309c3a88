"""A span that is open for long is seen in the backend, by a span of another id."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import agenttrace
from agenttrace import semconv
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.errors import SettingError
from agenttrace.registry import OpenSpans
from agenttrace.testing import ManualClock, capture_spans
from agenttrace.testing.runtimes import FreshRuntime, fresh_runtime
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.markers import Markers
from agenttrace.watchdog.watch import Watchdog
from tests.watchdog.given import Body, opened, ticking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from agenttrace.model import SpanData

AFTER = 10.0


def markers(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """Return the markers among *spans*, by name."""
    return {
        span.name: span
        for span in spans
        if (span.attributes or {}).get(semconv.MARKER) == semconv.MARKER_OPEN
    }


def names(fresh: FreshRuntime) -> list[str]:
    return [span.name for span in fresh.exported()]


def test_a_run_that_goes_on_is_told_with_its_open_steps() -> None:
    """A backend shows a run from the first ten seconds on, with a bar for each step."""
    with fresh_runtime(visible_after=AFTER) as fresh, ManualClock() as clock:
        began = clock.now
        with (
            agenttrace.span("triage") as run,
            agenttrace.span("search", attributes={"query": "shoes"}) as step,
        ):
            clock.advance(AFTER - 1)
            too_early = names(fresh)
            clock.advance(2)
            told = markers(fresh.exported())
        every = fresh.exported()

    assert too_early == []
    assert set(told) == {"agenttrace.open: triage", "agenttrace.open: search"}
    marker = told["agenttrace.open: search"]
    assert marker.attributes == {
        "agenttrace.marker": "open",
        "agenttrace.path": "triage / search",
    }
    assert marker.parent is not None
    assert marker.parent.span_id == step.get_span_context().span_id
    assert marker.context is not None
    assert marker.context.trace_id == run.get_span_context().trace_id
    assert marker.start_time == pytest.approx(began * 1e9, abs=1e6)
    assert marker.end_time is not None
    assert (marker.end_time - (marker.start_time or 0)) / 1e9 == pytest.approx(
        AFTER, abs=0.5
    )
    assert len({span.context.span_id for span in every if span.context}) == len(every)


def test_a_span_has_one_marker_however_long_it_is_open() -> None:
    """They stay in the trace for good, and the process itself can be asked for more."""
    with fresh_runtime(visible_after=AFTER) as fresh, ManualClock() as clock:
        with agenttrace.span("plan", heartbeat_timeout=math.inf):
            clock.advance(120)
        told = names(fresh)

    assert sorted(told) == ["agenttrace.open: plan", "plan"]


def test_a_span_has_one_marker_though_somebody_configures_again() -> None:
    """Frameworks call set-up code more often than one thinks."""
    with fresh_runtime(visible_after=AFTER) as fresh, ManualClock() as clock:
        again = InMemorySpanExporter()
        with agenttrace.span("triage"):
            clock.advance(AFTER + 1)
            agenttrace.configure(
                visible_after=AFTER,
                span_exporter=again,
                durable=False,
                loop_blocked_after=math.inf,
            )
            clock.advance(AFTER + 1)
            agenttrace.flush()
        told = (*fresh.exporter.get_finished_spans(), *again.get_finished_spans())

    assert len(markers(told)) == 1
    assert sum(each.name == "agenttrace.open: triage" for each in told) == 1


def test_what_is_over_by_then_has_no_marker() -> None:
    """Nearly everything is: markers are for what somebody may be waiting for."""
    with fresh_runtime(visible_after=AFTER) as fresh, ManualClock() as clock:
        with agenttrace.span("run"):
            with agenttrace.span("step"):
                clock.advance(AFTER - 1)
            clock.advance(5)
        told = names(fresh)

    assert sorted(told) == ["agenttrace.open: run", "run", "step"]


def test_what_was_judged_before_has_no_marker() -> None:
    """Its final form is there: it says more."""
    with (
        fresh_runtime(visible_after=AFTER) as fresh,
        ManualClock() as clock,
        agenttrace.span("search", heartbeat_timeout=5),
    ):
        clock.advance(20)
        told = names(fresh)

    assert told == ["search"]


@pytest.mark.parametrize("on_stuck", ["off", "observe"])
def test_markers_do_not_depend_on_what_happens_to_stuck_spans(on_stuck: str) -> None:
    """Who has limits of their own wants to see what is open all the same."""
    with (
        fresh_runtime(visible_after=AFTER, on_stuck=on_stuck) as fresh,
        ManualClock() as clock,
    ):
        with agenttrace.span("plan", heartbeat_timeout=5):
            clock.advance(20)
        told = {span.name: span for span in fresh.exported()}

    assert set(told) == {"agenttrace.open: plan", "plan"}
    assert (told["plan"].attributes or {})["agenttrace.outcome"] == "ok"


def test_infinity_is_no_marker_ever() -> None:
    """Backends that bill by the span are reason enough."""
    with fresh_runtime(visible_after=math.inf) as fresh, ManualClock() as clock:
        with agenttrace.span("plan", heartbeat_timeout=math.inf):
            clock.advance(3600)
        told = names(fresh)

    assert told == ["plan"]


def test_a_span_that_is_not_sampled_has_no_marker() -> None:
    """Its trace is not in the backend, so nothing of it may be."""
    with (
        fresh_runtime(visible_after=AFTER, sampler=ALWAYS_OFF) as fresh,
        ManualClock() as clock,
    ):
        with agenttrace.span("plan"):
            clock.advance(20)
        told = names(fresh)

    assert told == []


@pytest.mark.parametrize("value", [0, -1, math.nan, "soon"])
def test_a_time_that_cannot_be_meant_is_refused(value: Any) -> None:  # noqa: ANN401 - what somebody may write
    """Here and now, and not by markers for everything."""
    with (
        pytest.raises(SettingError, match="visible_after"),
        fresh_runtime(visible_after=value),
    ):
        pass


def test_beside_another_provider_its_own_spans_are_told_too() -> None:
    """Whoever has started it: an open step is an open step."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    theirs = provider.get_tracer("of another library")

    with (
        fresh_runtime(visible_after=AFTER, tracer_provider=provider),
        ManualClock() as clock,
    ):
        with (
            agenttrace.span("run"),
            theirs.start_as_current_span("GET /") as request,
        ):
            clock.advance(AFTER + 1)
            told = markers(exporter.get_finished_spans())
        afterwards = [span.name for span in exporter.get_finished_spans()]

    assert set(told) == {"agenttrace.open: run", "agenttrace.open: GET /"}
    marker = told["agenttrace.open: GET /"]
    assert marker.parent is not None
    assert marker.parent.span_id == request.get_span_context().span_id
    assert (marker.attributes or {})["agenttrace.path"] == "run / GET /"
    assert marker.resource == provider.resource
    assert sorted(afterwards) == ["GET /", *sorted(told), "run"]


def test_a_marker_is_no_span_of_the_application() -> None:
    """It is not listed as open, is no leak, and no test that captures spans sees it."""
    with (
        fresh_runtime(visible_after=AFTER) as fresh,
        capture_spans() as spans,
        ManualClock() as clock,
    ):
        started = fresh.runtime.status().started
        with agenttrace.span("plan", heartbeat_timeout=math.inf):
            clock.advance(60)
            is_open = [span.name for span in agenttrace.open_spans()]
        status = fresh.runtime.status()

    assert is_open == ["plan"]
    assert status.started == started + 1
    assert [span.name for span in spans] == ["plan"]
    spans.assert_all_closed()


def test_the_store_keeps_no_markers(tmp_path: Path) -> None:
    """What is open stands in the journals beside it, and `tree` shows spans."""
    with (
        fresh_runtime(
            visible_after=AFTER,
            span_exporter=None,
            state_dir=str(tmp_path),
        ) as fresh,
        ManualClock() as clock,
    ):
        with agenttrace.span("run"):
            clock.advance(20)
        assert fresh.runtime.flush(30)
        status = fresh.runtime.status()
        reader = Reader(tmp_path / FILE_NAME)
        (run,) = reader.runs(5)

    assert [span.name for span in reader.spans(run.trace_id)] == ["run"]
    assert run.spans == 1
    assert status.delivery is not None
    assert status.delivery.dropped == 0


def test_many_markers_come_one_after_the_other() -> None:
    """Thousands at once would keep the interpreter from the application."""
    told: list[SpanData] = []
    registry, body = OpenSpans(), Body()
    dog = Watchdog(registry, Limits(), markers=Markers(AFTER, told.append))

    with ticking(dog) as clock:
        kept = [opened(registry, body, f"step {number}") for number in range(250)]
        clock.pass_(AFTER - 0.4)
        before = len(told)
        counts: list[int] = []
        for _ in range(6):
            clock.tick()
            counts.append(len(told))

    assert before == 0
    assert counts[-1] == len(kept)
    assert all(later - sooner <= 100 for sooner, later in pairwise(counts))
    assert dog.looks == 0


def test_the_path_of_a_very_deep_step_is_cut_at_its_beginning() -> None:
    """Each of ten thousand steps beneath each other has one."""
    told: list[SpanData] = []
    registry, body = OpenSpans(), Body()
    dog = Watchdog(registry, Limits(), markers=Markers(AFTER, told.append))

    with ticking(dog) as clock:
        span = opened(registry, body, "0")
        chain = [span]
        for number in range(1, 90):
            span = opened(registry, body, str(number), parent=span)
            chain.append(span)
        clock.pass_(AFTER + 1)

    path = str(
        {each.name: each for each in told}["agenttrace.open: 89"].attributes[
            "agenttrace.path"
        ]
    )
    assert path.startswith("... / 58 / 59 / ")
    assert path.endswith(" / 88 / 89")


def test_a_clock_that_was_set_back_makes_no_marker_without_duration() -> None:
    """Jaeger warns of a span that takes no time, and has nothing to show."""
    told: list[SpanData] = []
    registry, body = OpenSpans(), Body()
    dog = Watchdog(registry, Limits(), markers=Markers(AFTER, told.append))

    with ticking(dog) as clock:
        span = opened(registry, body)
        clock.tick()
        clock.tick(wall=-3600 * 10**9, steady=10**8)
        for _ in range(60):
            clock.tick()

    (marker,) = told
    assert marker.start_time == span.started_at
    assert marker.end_time > marker.start_time


def test_the_api_without_a_span_is_left_alone() -> None:
    """Where nothing is open, nothing is told."""
    with fresh_runtime(visible_after=AFTER) as fresh, ManualClock() as clock:
        clock.advance(60)
        told = names(fresh)

    assert told == []
    assert not trace.get_current_span().get_span_context().is_valid
