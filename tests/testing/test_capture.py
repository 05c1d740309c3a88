"""What ends while a capture lasts can be looked at, as it leaves the process."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, StatusCode

import agenttrace
from agenttrace import runtime as runtimes
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import capture_spans, fresh_runtime
from tests.core.programs import run
from tests.testing.given import expected, search, triage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from agenttrace.testing import CapturedSpans

STUCK = Ending(Outcome.STUCK, EndedBy.WATCHDOG, message="no progress for 60 s")


def test_a_span_tells_how_it_ended_and_what_it_did(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The outcome is what a test is to assert: a span that is closed can lie."""
    with closing(triage("the weather")) as stream:
        next(stream)

    agent, tool = agenttrace_spans
    assert (agent.name, tool.name) == ("invoke_agent triage", "execute_tool search")
    assert (agent.outcome, agent.ended_by) == (Outcome.ABANDONED, EndedBy.CLOSE)
    assert (agent.operation, agent.items) == ("invoke_agent", 1)
    assert agent.attributes["gen_ai.agent.name"] == "triage"
    assert (agent.parent, agent.children) == (None, [tool])
    assert (tool.parent, tool.children, tool.items) == (agent, [], None)
    assert tool.trace_id == agent.trace_id
    assert tool.parent_id == agent.span_id
    assert agent.started <= tool.started <= tool.ended <= agent.ended
    assert agent.duration == (agent.ended - agent.started) / 1e9
    assert agent.status is StatusCode.UNSET
    assert repr(agent) == "<CapturedSpan 'invoke_agent triage' abandoned>"


def test_a_span_that_failed_tells_the_error(agenttrace_spans: CapturedSpans) -> None:
    """The exception that came out is often what the test is about."""
    with pytest.raises(ValueError, match="nothing to look for"):
        search("")

    span = agenttrace_spans.span("execute_tool search")
    assert (span.outcome, span.ended_by) == ("error", "exception")
    assert span.error_type == "ValueError"
    assert span.status is StatusCode.ERROR
    assert span.status_message == "ValueError: nothing to look for"
    assert [event.name for event in span.events] == ["exception"]


def test_a_span_tells_its_usage_and_its_links(agenttrace_spans: CapturedSpans) -> None:
    """Tokens are money, and a link is all that joins a run to what started it."""
    with agenttrace.span("first") as first:
        first.set_attribute("gen_ai.usage.input_tokens", 12)
    link = Link(first.get_span_context(), {"why": "resumed"})
    with agenttrace.span("second", links=[link]):
        pass

    first_seen, second_seen = agenttrace_spans
    assert first_seen.tokens == (12, None)
    assert second_seen.tokens == (None, None)
    (seen,) = second_seen.links
    assert (seen.trace_id, seen.span_id) == first_seen.key
    assert seen.attributes == {"why": "resumed"}


def test_the_applications_own_destination_goes_on_receiving() -> None:
    """A suite that configures an exporter keeps it, and what it asserts of it."""
    with fresh_runtime() as fresh, capture_spans() as spans:
        with agenttrace.span("plan"):
            pass
        exported = [span.name for span in fresh.exported()]

    assert exported == ["plan"]
    assert spans.names == ["plan"]


def test_what_an_application_configures_meanwhile_is_captured_and_stays() -> None:
    """Application factories configure in the middle of a test."""
    exporter = InMemorySpanExporter()
    with fresh_runtime():
        with capture_spans() as spans:
            runtime = agenttrace.configure(span_exporter=exporter)
            with agenttrace.span("plan"):
                pass

        assert runtimes.current() is runtime
        runtime.flush(30)
    assert spans.names == ["plan"]
    assert [span.name for span in exporter.get_finished_spans()] == ["plan"]


def attached() -> tuple[TracerProvider, InMemorySpanExporter]:
    """Return a provider of the SDK as an application sets it up."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def test_beside_another_provider_all_of_its_spans_are_captured_once() -> None:
    """Suites have an OpenTelemetry set-up of their own, and other instrumentations."""
    provider, exporter = attached()
    with (
        fresh_runtime(tracer_provider=provider),
        capture_spans() as spans,
        provider.get_tracer("web").start_as_current_span("GET /"),
    ):
        list(triage("the weather"))

    spans.assert_tree("""
        GET /
          invoke_agent triage: ok items=2
            execute_tool search
    """)
    assert len(exporter.get_finished_spans()) == len(spans) == 3
    assert spans.span("GET /").scope == "web"


def test_a_capture_sees_the_provider_that_is_attached_to_meanwhile() -> None:
    """The fixture comes before or after the application's own, nobody knows which."""
    provider, _ = attached()
    with fresh_runtime(), capture_spans() as spans:
        agenttrace.configure(tracer_provider=provider)
        with agenttrace.span("plan"):
            pass

    spans.assert_tree("plan")


def test_without_a_runtime_there_is_one_as_long_as_the_capture_lasts() -> None:
    """A test of a decorated function needs no set-up, and leaves none behind."""
    ran = run("""
        import agenttrace
        from agenttrace.runtime import current
        from agenttrace.testing import capture_spans
        with capture_spans() as first:
            with agenttrace.span("plan"):
                pass
        print(current(), agenttrace.flush())
        with agenttrace.span("between"):
            pass
        with capture_spans() as second:
            with agenttrace.span("again"):
                pass
        print(first.names, second.names)
    """)

    assert (ran.out, ran.err) == ("None True\n['plan'] ['again']\n", "")
    assert ran.spans() == {}


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "AGENTTRACE_DISABLED"])
def test_nothing_can_be_captured_where_tracing_is_disabled(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assertions about no span at all hold, and mean nothing."""
    monkeypatch.setenv(variable, "true")

    ran = run("""
        import agenttrace
        from agenttrace.testing import capture_spans
        try:
            with capture_spans():
                pass
        except agenttrace.AgenttraceError as error:
            print(error)
    """)

    assert ran.out == (
        "no span can be captured: tracing is disabled, by OTEL_SDK_DISABLED, by "
        "AGENTTRACE_DISABLED, or by configure(disabled=True)\n"
    )


def test_spans_come_in_the_order_of_their_start(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Parents before their children, and no test depends on who ends first."""
    with agenttrace.span("a"):
        slow = trace.get_tracer("test").start_span("b", start_time=1)
        with agenttrace.span("c"):
            pass
        slow.end()

    assert agenttrace_spans.names == ["a", "b", "c"]
    assert [span.name for span in agenttrace_spans.roots] == ["a"]
    assert len(agenttrace_spans) == 3


def test_find_returns_those_that_are_like_that(agenttrace_spans: CapturedSpans) -> None:
    """Loops call a tool many times, and one of the calls is the interesting one."""
    search("a")
    search("b")
    with pytest.raises(ValueError, match="nothing"):
        search("")
    with agenttrace.span("plan"):
        pass

    found = agenttrace_spans.find
    assert len(found()) == 4
    assert len(found("execute_tool *")) == 3
    assert len(found("execute_tool *", outcome="ok")) == 2
    assert len(found(outcome=Outcome.ERROR)) == 1
    assert [span.name for span in found(operation="execute_tool", outcome="error")] == [
        "execute_tool search"
    ]
    assert found("execute_tool") == []


@pytest.mark.parametrize("said", ["eror", "OK", "open"])
def test_an_outcome_that_there_is_not_is_refused(
    agenttrace_spans: CapturedSpans, said: str
) -> None:
    """Nothing is ever found by it, and that there is nothing often is the assertion."""
    with pytest.raises(ValueError, match="must be") as refused:
        agenttrace_spans.find(outcome=said)

    assert str(refused.value) == (
        f"outcome={said!r}: must be ok, error, timed_out, cancelled, abandoned, stuck, "
        "lost (what is open is in .open)"
    )


def test_a_span_that_there_is_not_is_told_with_those_that_there_are(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Whoever mistypes a name needs to see the right one."""
    search("a")

    with pytest.raises(AssertionError) as caught:
        agenttrace_spans.span("execute_tol search")

    assert str(caught.value) == expected("""
        no span is called 'execute_tol search'. Is it 'execute_tool search'?

        There is:

          execute_tool search: ok
    """)


def test_a_span_that_is_one_of_several_is_told_with_all_of_them(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Taking the first of them would be a test that passes by chance."""
    search("a")
    search("b")

    with pytest.raises(AssertionError) as caught:
        agenttrace_spans.span("execute_tool *")

    assert str(caught.value) == expected("""
        2 spans are called 'execute_tool *'; find('execute_tool *') returns all of them.

        There is:

          execute_tool search: ok
          execute_tool search: ok
    """)


def test_a_span_that_is_open_is_told_with_where_it_was_started(
    agenttrace_spans: CapturedSpans,
) -> None:
    """It is there, and the reason why it cannot be looked at is a leak."""
    stream = triage("the weather")
    with closing(stream):
        next(stream)

        with pytest.raises(AssertionError) as caught:
            agenttrace_spans.span("invoke_agent triage")

    assert str(caught.value).startswith(
        "'invoke_agent triage' is still open.\n\n  invoke_agent triage (open for "
    )
    assert "next(stream)" in str(caught.value)


def test_a_capture_without_spans_says_so(agenttrace_spans: CapturedSpans) -> None:
    """Then the code under test was not reached, or is not traced."""
    with pytest.raises(AssertionError) as caught:
        agenttrace_spans.span("plan")

    assert str(caught.value) == expected("""
        no span is called 'plan'.

        Nothing has been traced since the capture began.
    """)


def test_the_tree_is_all_that_there_is(agenttrace_spans: CapturedSpans) -> None:
    """It is what a failing test prints, so open spans stand in it as well."""
    stream = triage("the weather")
    with closing(stream):
        next(stream)
        with pytest.raises(ValueError, match="nothing"):
            search("")

        assert agenttrace_spans.tree() == expected("""
            invoke_agent triage: open
              execute_tool search: ok
            execute_tool search: error ValueError
        """)

    assert agenttrace_spans.tree() == expected("""
        invoke_agent triage: abandoned items=1
          execute_tool search: ok
        execute_tool search: error ValueError
    """)


def test_a_tree_that_is_another_is_told_as_a_difference(
    agenttrace_spans: CapturedSpans,
) -> None:
    """What is right stands beside what is wrong, so that one sees where one is."""
    with agenttrace.span("plan"):
        list(triage("the weather"))
    search("a")

    with pytest.raises(AssertionError) as caught:
        agenttrace_spans.assert_tree("""
            plan
              invoke_agent *: ok items=3 ended_by=return
                execute_tool search
                execute_tool fetch
        """)

    assert str(caught.value) == expected("""
        the spans are not the expected ones (- expected, + captured):

          plan
        -   invoke_agent *: ok items=3 ended_by=return
        +   invoke_agent triage: ok items=2 ended_by=return
              execute_tool search
        -     execute_tool fetch
        + execute_tool search: ok
    """)


def test_what_three_dots_have_taken_up_is_shown_beside_the_difference(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A span that is in another place than the dots is nowhere in the difference."""
    search("the weather")
    search("lighthouses")

    with pytest.raises(AssertionError) as caught:
        agenttrace_spans.assert_tree("""
            execute_tool look
            ...
        """)

    assert str(caught.value) == expected("""
        the spans are not the expected ones (- expected, + captured):

        - execute_tool look
          ...

        There is:

          execute_tool search: ok
          execute_tool search: ok
    """)


def test_a_step_that_went_wrong_does_not_pass_unseen(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A line without an outcome means `ok`; whoever means any writes so."""
    with pytest.raises(ValueError, match="nothing"):
        search("")

    with pytest.raises(AssertionError):
        agenttrace_spans.assert_tree("execute_tool search")
    agenttrace_spans.assert_tree("execute_tool search: *")
    agenttrace_spans.assert_tree("execute_tool search: error")
    agenttrace_spans.assert_tree("execute_tool *: error Value*")


def test_a_dropped_generator_is_captured_as_abandoned(
    agenttrace_spans: CapturedSpans,
) -> None:
    """What nobody holds any more has ended, and a test need not wait for a sweep."""
    next(triage("the weather"))

    assert agenttrace_spans.span("invoke_agent triage").outcome == "abandoned"


def test_a_dropped_span_that_was_started_by_hand_is_captured_as_well(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Its end is told by whichever thread sweeps first; the look waits for that."""
    trace.get_tracer("test").start_span("dropped")

    span = agenttrace_spans.span("dropped")

    assert (span.outcome, span.ended_by) == (Outcome.ABANDONED, EndedBy.GC)


def test_a_look_waits_for_a_span_that_another_thread_is_telling() -> None:
    """The span has left the registry already, and must not be missed."""
    telling, go_on = threading.Event(), threading.Event()

    class Slow(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            del span
            telling.set()
            go_on.wait(10)

    with fresh_runtime(), capture_spans() as spans:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.add_span_processor(Slow())
        thread = threading.Thread(target=search, args=["a"])
        thread.start()
        telling.wait(10)
        threading.Timer(0.05, go_on.set).start()

        names = spans.names

        thread.join()
    assert names == ["execute_tool search"]


def test_a_span_that_was_judged_and_its_late_finish_are_two(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A span id has one final form; what came after it is a span of its own."""
    with agenttrace.span("plan"):
        (record,) = agenttrace_spans.open
        PROCESS.spans.judge(record, STUCK)
        assert agenttrace_spans.span("plan").outcome is Outcome.STUCK

    agenttrace_spans.assert_tree("""
        plan: stuck ended_by=watchdog
          agenttrace.late_finish: plan: ok
    """)


def test_what_a_processor_changes_is_what_is_captured() -> None:
    """A test of a redacting processor looks at what leaves the process."""

    class Redacting(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            span._attributes["prompt"] = "<redacted>"  # type: ignore[index]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportIndexIssue, reportOptionalSubscript]  # as the recipes do

    with fresh_runtime(), capture_spans() as spans:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.add_span_processor(Redacting())
        with agenttrace.span("plan", attributes={"prompt": "a secret"}):
            pass

    assert spans.span("plan").attributes["prompt"] == "<redacted>"


def test_spans_that_are_not_sampled_are_open_but_never_captured() -> None:
    """They are not sent, but what leaks leaks."""
    with (
        fresh_runtime(sampler=ALWAYS_OFF),
        capture_spans() as spans,
        agenttrace.span("plan"),
    ):
        assert [span.name for span in spans.open] == ["plan"]

    assert len(spans) == 0
    spans.assert_all_closed()


def test_a_span_from_before_is_captured_when_it_ends_and_never_blamed() -> None:
    """What a wider fixture holds open is its own business."""
    with fresh_runtime():
        stream = triage("the weather")
        next(stream)
        with capture_spans() as spans:
            spans.assert_all_closed()
            assert spans.open == []
            stream.close()

        assert spans.names == ["invoke_agent triage"]


def test_what_an_earlier_test_has_dropped_is_not_captured() -> None:
    """When the garbage collector finds it is chance, and so would every tree be."""
    with fresh_runtime():
        stream = triage("the weather")
        next(stream)
        by_hand = trace.get_tracer("test").start_span("by hand")
        with capture_spans() as spans:
            del stream, by_hand

            assert spans.names == []
        assert agenttrace.open_spans() == ()


def test_captures_within_captures_see_the_same() -> None:
    """A helper that captures must not blind the test that uses it."""
    with capture_spans() as outer:
        search("before")
        with capture_spans() as inner:
            search("within")
        search("after")

    assert (len(outer), len(inner)) == (3, 1)


def test_what_ends_after_the_capture_is_not_in_it() -> None:
    """But what was left open then, and has ended since, is no leak any more."""
    with fresh_runtime():
        stream = triage("the weather")
        with capture_spans() as spans:
            next(stream)
        with pytest.raises(AssertionError):
            spans.assert_all_closed()

        stream.close()

        spans.assert_all_closed()
        assert spans.names == ["execute_tool search"]
    assert repr(spans) == "<CapturedSpans: 1 ended, 0 open>"
