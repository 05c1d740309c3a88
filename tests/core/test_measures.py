"""What open spans, ends, runs, verdicts and calls of models are as metrics."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import openai
import pytest
from opentelemetry.metrics import (
    NoOpCounter,
    NoOpHistogram,
    NoOpMeter,
    NoOpMeterProvider,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace import semconv
from agenttrace.metrics.bounded import MOST, Bounded
from agenttrace.metrics.finals import Finals
from agenttrace.registry import OpenSpans
from agenttrace.semconv import metrics
from agenttrace.testing import ManualClock, fresh_runtime
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.model_server import ModelServer
from tests.core.conftest import Meters, no_thread, series_of
from tests.delivery.given import span_data
from tests.watchdog.given import until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from opentelemetry.metrics import Counter, Histogram, Meter

    from agenttrace.model import SpanData
    from agenttrace.testing import FreshRuntime

OPERATION, AGENT = semconv.GEN_AI_OPERATION_NAME, semconv.GEN_AI_AGENT_NAME
OUTCOME, ENDED_BY = semconv.OUTCOME, semconv.ENDED_BY
HANG = 300.0
"""Seconds, of which a manual clock makes none."""


@pytest.fixture
def fresh(meters: Meters) -> Iterator[FreshRuntime]:
    """Give a runtime that reports to the meters."""
    with fresh_runtime(meter_provider=meters.provider) as made:
        yield made


@agenttrace.tool
def search() -> None:
    """Find nothing."""


@agenttrace.agent
def triage() -> None:
    """Ask another agent, and a tool."""
    billing()
    search()


@agenttrace.agent
def billing() -> None:
    """Do nothing."""


@agenttrace.agent
def stream() -> Generator[int]:
    """Yield for as long as somebody reads."""
    yield 1
    yield 2


def test_ends_are_counted_by_operation_agent_and_outcome(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """The panel that shows how steps end, and by what."""
    triage()
    search()
    with pytest.raises(LookupError), agenttrace.span("plan"):
        raise LookupError
    fresh.runtime.flush()

    ended = [each for each in meters.of(metrics.SPANS_ENDED) if each[1]]

    tool = {OPERATION: "execute_tool", OUTCOME: "ok", ENDED_BY: "return"}
    plan = {OPERATION: "_OTHER", OUTCOME: "error", ENDED_BY: "exception"}
    agent = {OPERATION: "invoke_agent", OUTCOME: "ok", ENDED_BY: "return"}
    assert (tool, 2) in ended
    assert (plan, 1) in ended
    assert ({AGENT: "triage", **agent}, 1) in ended
    assert ({AGENT: "billing", **agent}, 1) in ended
    assert len(ended) == 4


def test_a_run_is_an_agent_with_no_agent_above(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """The rate of runs that hang must not change with how many agents a run has."""
    with agenttrace.span("request"):
        triage()
    fresh.runtime.flush()
    with agenttrace.span("another step"):
        billing()
    fresh.runtime.flush()

    went_well = {OUTCOME: "ok", metrics.HUNG: False}
    runs = meters.of(metrics.RUNS)
    assert sorted((each for each in runs if each[1]), key=str) == [
        ({AGENT: "billing", **went_well}, 1),
        ({AGENT: "triage", **went_well}, 1),
    ]


@pytest.mark.parametrize("outcome", list(agenttrace.Outcome))
def test_the_first_run_that_hangs_is_an_increase_however_it_ends(
    fresh: FreshRuntime, meters: Meters, outcome: agenttrace.Outcome
) -> None:
    """A rate cannot see the first value of a series: the hang would be none."""
    triage()
    fresh.runtime.flush()

    hung = {AGENT: "triage", OUTCOME: outcome.value, metrics.HUNG: True}

    assert (hung, 0) in meters.of(metrics.RUNS)


def test_an_agent_that_outlives_a_batch_is_still_one_run(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """Inner agents are sent long before the outer one ends."""
    with agenttrace.span("invoke_workflow w", operation="invoke_workflow"):
        triage()
        fresh.runtime.flush()
        assert sum(value for _, value in meters.of(metrics.RUNS)) == 0
    fresh.runtime.flush()

    assert sum(value for _, value in meters.of(metrics.RUNS)) == 1


def test_what_was_leaked_is_told_by_how_it_ended(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """Spans that only the garbage collector ends are a leak somebody has to find."""
    leaked = stream()
    next(leaked)
    del leaked
    collect_garbage()
    fresh.runtime.flush()

    ((attributes, value),) = meters.of(metrics.SPANS_ENDED)
    assert (attributes[OUTCOME], attributes[ENDED_BY], value) == ("abandoned", "gc", 1)


def test_the_longest_silence_is_told_with_its_limit(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """An alert compares the two, and needs no number of its own for each step."""
    step = {OPERATION: "execute_tool", AGENT: "triage"}
    agent = {OPERATION: "invoke_agent", AGENT: "triage"}
    with ManualClock() as clock:
        with (
            agenttrace.span("invoke_agent triage", operation="invoke_agent"),
            agenttrace.span(
                "execute_tool a", operation="execute_tool", heartbeat_timeout=90
            ),
        ):
            clock.advance(60)
            opened = meters.of(metrics.SPANS_OPEN)
            idle = meters.of(metrics.SPANS_IDLE)
            limits = meters.of(metrics.SPANS_IDLE_LIMIT)
            with agenttrace.hold("a human"):
                clock.advance(10)
                held = meters.of(metrics.SPANS_IDLE)
        after = meters.of(metrics.SPANS_OPEN)

    assert (step, 1) in opened
    assert (agent, 1) in opened
    assert dict(_by(idle))["execute_tool"] == pytest.approx(60, abs=1)
    assert dict(_by(idle))["invoke_agent"] == 0  # it waits for the tool
    assert (step, 90) in limits
    assert dict(_by(held))["execute_tool"] == 0
    assert sorted(value for _, value in after) == [0, 0]  # and they are still told
    assert fresh.runtime.status().open == 0


def test_a_stall_leads_to_its_trace_and_its_run_is_not_hang_free(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """From the alert to where it hangs is one click, by the exemplar."""
    with (
        ManualClock() as clock,
        agenttrace.span("invoke_agent triage", operation="invoke_agent") as run,
    ):
        with agenttrace.span("execute_tool a", operation="execute_tool") as tool:
            clock.advance(HANG + 1)
            seen = meters.read()
        over = meters.of(metrics.SPANS_STUCK)
        clock.advance(1)
    fresh.runtime.flush()

    told = {OPERATION: "execute_tool", AGENT: "triage"}
    assert (told, 1) in series_of(seen, metrics.SPANS_STUCK)
    assert (told, 0) in over
    ((attributes, value),) = series_of(seen, metrics.STALLS)
    assert value == 1
    assert attributes.items() >= {**told, semconv.HANG_RULE: "silence"}.items()
    assert semconv.HANG_CAUSE in attributes
    ((_, histogram),) = series_of(seen, metrics.STALL_DURATION)
    assert histogram.sum == pytest.approx(HANG, abs=2)
    (exemplar,) = histogram.exemplars
    context = tool.get_span_context()
    assert (exemplar.trace_id, exemplar.span_id) == (context.trace_id, context.span_id)
    assert exemplar.trace_id == run.get_span_context().trace_id
    (attributes,) = [each for each, value in meters.of(metrics.RUNS) if value]
    assert attributes == {AGENT: "triage", OUTCOME: "ok", metrics.HUNG: True}


def test_calls_of_models_are_told_by_the_conventions(meters: Meters) -> None:
    """Dashboards of others show them without knowing agenttrace."""
    agenttrace.instrument("openai")
    try:
        with (
            ModelServer() as server,
            fresh_runtime(meter_provider=meters.provider) as fresh,
        ):
            client: Any = openai.OpenAI(base_url=server.base_url, api_key="none")
            asked: Any = {"messages": [{"role": "user", "content": "hi"}]}
            answer = client.chat.completions.create(model="whole", **asked)
            list(client.chat.completions.create(model="parts", stream=True, **asked))
            fresh.runtime.flush()
            port = server.port
            calls = meters.of(metrics.CALL_DURATION)
            tokens = meters.of(metrics.TOKEN_USAGE)
            firsts = meters.of(metrics.TIME_TO_FIRST_CHUNK)
    finally:
        agenttrace.uninstrument()

    ((attributes, call),) = [
        each for each in calls if each[0]["gen_ai.request.model"] == "whole"
    ]
    assert attributes == {
        OPERATION: "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "whole",
        "gen_ai.response.model": "whole",
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert call.count == 1
    assert call.explicit_bounds == tuple(0.01 * 2**power for power in range(14))
    used = {
        each["gen_ai.token.type"]: point.sum
        for each, point in tokens
        if each["gen_ai.request.model"] == "whole"
    }
    assert answer.usage is not None
    assert used == {
        "input": answer.usage.prompt_tokens,
        "output": answer.usage.completion_tokens,
    }
    assert tokens[0][1].explicit_bounds[-1] == 4**13
    assert [point.count for _, point in firsts] == [1]  # of the stream alone


def test_an_attached_runtime_counts_what_its_provider_is_handed(
    meters: Meters,
) -> None:
    """Whoever has a tracer provider has the same questions."""
    provider = TracerProvider(shutdown_on_exit=False)
    with fresh_runtime(
        meter_provider=meters.provider, tracer_provider=provider, span_exporter=None
    ):
        triage()
        ended = meters.of(metrics.SPANS_ENDED)
        runs = meters.of(metrics.RUNS)

    assert sum(value for _, value in ended) == 3
    assert sum(value for _, value in runs) == 1


def test_a_value_too_many_is_told_as_other() -> None:
    """An agent's name that is made up for every call must not make series for ever."""
    bounded = Bounded()

    told = [bounded.value(AGENT, f"agent {number}") for number in range(1_000)]

    assert told[0] == "agent 0"
    assert told[-1] == "_OTHER"
    assert len(set(told)) <= 101
    assert bounded.value(AGENT, "agent 0") == "agent 0"
    assert len(str(bounded.value(OPERATION, "x" * 10_000))) <= 128


def test_many_agents_add_up(fresh: FreshRuntime, meters: Meters) -> None:
    """What has no series of its own is still counted."""
    for number in range(300):
        with agenttrace.span(
            "invoke_agent", operation="invoke_agent", attributes={AGENT: str(number)}
        ):
            pass
    fresh.runtime.flush()

    runs = meters.of(metrics.RUNS)

    assert sum(value for _, value in runs) == 300
    assert len({values[AGENT] for values, _ in runs}) <= 101


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_the_parent_has_counted_is_not_counted_in_a_child(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """Over all processes it adds up."""
    search()
    fresh.runtime.flush()
    assert fresh.runtime.measuring is not None

    fresh.runtime.measuring.after_fork()

    assert meters.of(metrics.SPANS_ENDED) == []


def test_a_second_provider_takes_over(meters: Meters) -> None:
    """An application that is configured again is reported once."""
    other = InMemoryMetricReader()
    provider = MeterProvider([other], shutdown_on_exit=False)
    with fresh_runtime(meter_provider=meters.provider) as fresh:
        search()
        fresh.runtime.flush()
        agenttrace.configure(
            meter_provider=provider, durable=False, loop_blocked_after=math.inf
        )
        before = meters.of(metrics.SPANS_ENDED)
    provider.shutdown()

    assert before == []


def test_a_meter_provider_that_waits_keeps_nobody_else() -> None:
    """Metrics are the least that may be lost: delivery and the watchdog go on."""
    is_free = threading.Event()

    class Waits(NoOpMeterProvider):
        def get_meter(self, *_args: object, **_kwargs: object) -> Meter:
            return WaitsMeter("waits")

    class WaitsMeter(NoOpMeter):
        def create_counter(self, *_args: object, **_kwargs: object) -> Counter:
            return WaitsCounter("waits")

    class WaitsCounter(NoOpCounter):
        def add(self, *_args: object, **_kwargs: object) -> None:
            is_free.wait(60)

    try:
        with (
            fresh_runtime(meter_provider=Waits(), flush_timeout=0.1) as fresh,
            ManualClock() as clock,
        ):
            for name in ("first", "second"):
                with agenttrace.span(name):
                    clock.advance(HANG + 1)
            assert fresh.runtime.flush()
            told = {span.name: span for span in fresh.exported()}
            assert fresh.runtime.status().counts["spans_stuck"] >= 2
            measuring = fresh.runtime.measuring
            assert measuring is not None
            assert measuring.instruments is not None
            counted = tuple(measuring.instruments.finals.ended())
    finally:
        is_free.set()

    for name in ("first", "second"):
        assert (told[name].attributes or {})[OUTCOME] == "stuck"
    # To count asks nothing of the provider.
    assert [value for value, how in counted if how[OUTCOME] == "stuck"] == [2]


class Tells(NoOpMeterProvider):
    """A provider that tells when a stall is counted, and when anything is recorded."""

    def __init__(self) -> None:
        self.stalled, self.recorded = threading.Event(), threading.Event()

    def get_meter(self, *_args: object, **_kwargs: object) -> Meter:
        tells = self

        class TellingMeter(NoOpMeter):
            def create_counter(self, *_args: object, **_kwargs: object) -> Counter:
                return TellingCounter("tells")

            def create_histogram(self, *_args: Any, **_kwargs: Any) -> Histogram:  # noqa: ANN401 - as the API has it
                return TellingHistogram("tells")

        class TellingCounter(NoOpCounter):
            def add(self, *_args: object, **_kwargs: object) -> None:
                tells.stalled.set()

        class TellingHistogram(NoOpHistogram):
            def record(self, *_args: object, **_kwargs: object) -> None:
                tells.recorded.set()

        return TellingMeter("tells")


def test_no_thread_once_is_not_the_end_of_what_is_measured() -> None:
    """A process may have too many threads for a moment."""
    provider = Tells()
    with (
        fresh_runtime(meter_provider=provider),
        no_thread("agenttrace-metrics") as refused,
        agenttrace.span("step", max_duration=0.5),
    ):
        assert refused.wait(60)
        # By the ticker: nobody reads.
        assert provider.stalled.wait(60)


@pytest.mark.parametrize("is_attached", [False, True])
def test_what_ends_last_is_measured_though_nobody_reads(*, is_attached: bool) -> None:
    """Final forms have prompts in them: they are not to stay in a process at rest."""
    provider, theirs = Tells(), TracerProvider(shutdown_on_exit=False)
    settings: Any = {"meter_provider": provider}
    if is_attached:
        settings |= {"tracer_provider": theirs, "span_exporter": None}
    with fresh_runtime(**settings) as fresh:
        with agenttrace.span(semconv.LOOP_BLOCKED):
            pass
        if not is_attached:
            fresh.runtime.flush()

        assert provider.recorded.wait(60)


def test_what_is_told_when_all_is_at_rest_is_measured_though_nobody_reads() -> None:
    """Whoever encodes spans may be later than the last tick."""
    provider = Tells()
    with fresh_runtime(meter_provider=provider) as fresh:
        measuring = fresh.runtime.measuring
        assert measuring is not None
        until(lambda: not measuring.spans.awake)
        measuring.observe([span_data(semconv.LOOP_BLOCKED)])

        assert provider.recorded.wait(60)


def test_a_name_that_is_none_costs_no_other_span_its_count(
    fresh: FreshRuntime, meters: Meters
) -> None:
    """Attributes are whatever an application or a model has made of them."""
    search()
    with agenttrace.span(
        "invoke_agent odd", operation="invoke_agent", attributes={AGENT: {"a": [1]}}
    ):
        search()
    fresh.runtime.flush()

    assert sum(value for _, value in meters.of(metrics.SPANS_ENDED)) == 3
    assert sum(value for _, value in meters.of(metrics.RUNS)) == 1


def test_without_meters_nothing_is_kept_for_them() -> None:
    """Final forms have prompts in them."""

    class Broken(NoOpMeterProvider):
        def get_meter(self, *_args: object, **_kwargs: object) -> Meter:
            raise LookupError

    provider = TracerProvider(shutdown_on_exit=False)
    with fresh_runtime(
        meter_provider=Broken(),
        tracer_provider=provider,
        span_exporter=None,
        swallows={"metrics"},
    ) as fresh:
        measuring = fresh.runtime.measuring
        assert measuring is not None
        search()

        assert measuring.take not in measuring.spans.taps


def test_a_verdict_is_measured_by_who_does_that_when_it_is_given(
    meters: Meters,
) -> None:
    """A span may be open for longer than it takes to have meters."""
    with (
        fresh_runtime() as fresh,
        ManualClock() as clock,
        agenttrace.span("execute_tool a", operation="execute_tool"),
    ):
        clock.advance(1)
        fresh.runtime.measure(meters.provider, ())
        clock.advance(HANG + 1)
        stalls = meters.of(metrics.STALLS)

    assert [value for _, value in stalls] == [1]


def test_what_is_only_observed_is_stuck_until_it_goes_on(meters: Meters) -> None:
    """The alert is for what was judged: whether it was failed as well or not."""
    told = {OPERATION: "execute_tool"}
    with (
        fresh_runtime(meter_provider=meters.provider, on_stuck="observe"),
        ManualClock() as clock,
    ):
        with agenttrace.span("execute_tool a", operation="execute_tool") as tool:
            clock.advance(HANG + 1)
            stuck = meters.of(metrics.SPANS_STUCK)
            clock.advance(1)
            agenttrace.heartbeat()
            assert tool.is_recording()
        with agenttrace.span("execute_tool b", operation="execute_tool"):
            clock.advance(2)
            gone_on = meters.of(metrics.SPANS_STUCK)

    assert (told, 1) in stuck
    assert (told, 0) in gone_on


def ended(
    name: str, span_id: bytes, parent_id: bytes = b"", *, is_remote: bool = False
) -> SpanData:
    """Return the final form of a span, whose operation its name begins with."""
    return span_data(name)._replace(
        span_id=span_id,
        parent_id=parent_id,
        parent_is_remote=is_remote,
        attributes={OPERATION: name.split(maxsplit=1)[0]},
    )


@pytest.fixture
def finals() -> Finals:
    """Give finals of no provider's, whose time is that of a list."""
    return Finals(Bounded(), {}, OpenSpans(), clock=lambda: now[0])


now = [0.0]


@pytest.mark.parametrize("order", ["ptr", "trp", "rtp", "prt", "tpr", "rpt"])
def test_an_inner_agent_is_no_run_in_whichever_order_they_are_told(
    finals: Finals, order: str
) -> None:
    """What runs on in the background ends after what has started it."""
    forms = {
        "p": ended("invoke_agent outer", b"outer"),
        "t": ended("execute_tool t", b"tool", b"outer"),
        "r": ended("invoke_agent inner", b"inner", b"tool"),
    }
    for each in order:
        finals.observe([forms[each]])
        finals.settle()

    assert sum(value for value, _ in finals.runs()) == 1
    assert not finals.is_waiting


def test_an_agent_whose_parent_nobody_tells_of_is_a_run_after_a_while(
    finals: Finals,
) -> None:
    """Its parent may be another provider's, and a run must not go uncounted."""
    now[0] = 0.0
    finals.observe([ended("invoke_agent a", b"a", b"unknown")])
    finals.observe([ended("invoke_agent b", b"b", b"elsewhere", is_remote=True)])
    finals.settle()
    at_once = sum(value for value, _ in finals.runs())
    now[0] = 60.0
    finals.settle()

    assert at_once == 1
    assert sum(value for value, _ in finals.runs()) == 2


def test_what_is_above_an_agent_is_known_when_it_is_counted(finals: Finals) -> None:
    """It may be measured long after: a meter provider that waits is waited for."""
    finals.observe([ended("invoke_agent outer", b"outer")])
    late = finals.count([ended("invoke_agent inner", b"inner", b"outer")])
    for number in range(2 * MOST):
        finals.count([ended("execute_tool t", number.to_bytes(8, "big"), b"outer")])
    for counted in late:
        finals.measure(*counted)
    finals.settle(is_last=True)

    assert sum(value for value, _ in finals.runs()) == 1


def _by(series: list[tuple[dict[str, Any], Any]]) -> Iterator[tuple[str, Any]]:
    for attributes, value in series:
        yield attributes[OPERATION], value
