"""Beside another provider, every span has one final form, with how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import agenttrace
from agenttrace import safety, tracing
from agenttrace.model import RETURNED, Opening, Outcome
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.spans.attached import Attachment
from tests.spans.given import (
    STUCK,
    Beside,
    beside,
    composite_of,
    ended_as,
    id_of,
    stock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["synchronous", "concurrent"])
def given(request: pytest.FixtureRequest) -> Beside:
    """Give the SDK's provider, agenttrace attached, with each composite it knows."""
    return beside(concurrent=request.param == "concurrent")


@pytest.fixture
def port(given: Beside) -> Iterator[Beside]:
    """Give the same with the public verbs going there."""
    previous = tracing.install(given.attachment.tracer)
    yield given
    tracing.install(previous)


def test_a_span_of_another_library_is_listed_while_it_is_open(given: Beside) -> None:
    """What is not listed can neither hang visibly nor be lost visibly."""
    with given.tracer.start_as_current_span("outer") as outer:
        child = given.tracer.start_span("inner", attributes={"k": 1})

        assert [span.name for span in given.registry] == ["outer", "inner"]
        record = given.record("inner")
        assert record.parent is given.record("outer")
        assert record.parent_id == id_of(outer).to_bytes(8, "big")
        assert record.sampled
        child.end()

    assert len(given.registry) == 0
    assert [ended_as(span) for span in given.sent()] == [("ok", "return")] * 2


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError, ("error", "exception")),
        (TimeoutError, ("timed_out", "exception")),
        (asyncio.CancelledError, ("cancelled", "cancel")),
        (KeyboardInterrupt, ("cancelled", "cancel")),
        (SystemExit, ("cancelled", "exit")),
        (GeneratorExit, ("abandoned", "close")),
    ],
)
def test_what_comes_out_of_a_span_says_how_it_ended(
    given: Beside, raised: type[BaseException], expected: tuple[str, str]
) -> None:
    """API `use_span` ends a cancelled span without a word, as if it had returned."""
    with pytest.raises(raised), given.tracer.start_as_current_span("work"):
        raise raised

    span = given.one("work")
    assert ended_as(span) == expected
    is_error = expected[0] in {"error", "timed_out"}
    assert span.status.status_code is (
        StatusCode.ERROR if is_error else StatusCode.UNSET
    )
    assert len(span.events) == int(is_error)


def test_an_exception_that_is_being_handled_already_is_not_the_spans(
    given: Beside,
) -> None:
    """Clean-up work in an `except` block succeeds though something else has failed."""
    try:
        int("no number")
    except ValueError:
        with given.tracer.start_as_current_span("clean-up"):
            pass

    assert ended_as(given.one("clean-up")) == ("ok", "return")


def test_what_the_owner_says_counts_more_than_what_is_in_flight(given: Beside) -> None:
    """A library that handles an error and sets OK has said how it went."""
    handled = given.tracer.start_span("handled")
    try:
        int("no number")
    except ValueError:
        handled.set_status(StatusCode.OK)
        handled.end()
    failed = given.tracer.start_span("failed")
    failed.set_status(StatusCode.ERROR, "404")
    failed.end()

    assert ended_as(given.one("handled")) == ("ok", "return")
    span = given.one("failed")
    assert ended_as(span) == ("error", "return")
    assert (span.attributes or {})["error.type"] == "_OTHER"
    assert span.status.description == "404"


def test_a_span_that_is_full_of_attributes_loses_none_to_its_outcome() -> None:
    """The outcome is ours to add; what the owner put there is not ours to drop."""
    given = beside(span_limits=SpanLimits(max_span_attributes=2))

    given.tracer.start_span("full", attributes={"a": 1, "b": 2}).end()

    values = given.one("full").attributes or {}
    assert (values["a"], values["b"], values["agenttrace.outcome"]) == (1, 2, "ok")


def test_a_span_that_was_open_before_passes_with_its_outcome() -> None:
    """Whoever attaches in the middle of a run finds spans under way."""
    plain = stock()
    earlier = plain.tracer.start_span("earlier")
    tracer = plain.tracer

    Attachment(plain.provider, OpenSpans())
    earlier.end()
    tracer.start_span("from an old tracer").end()

    assert ended_as(plain.one("earlier")) == ("ok", "return")
    assert ended_as(plain.one("from an old tracer")) == ("ok", "return")


def test_a_processor_that_is_added_later_gets_the_same_spans(given: Beside) -> None:
    """Langfuse and others add theirs when their client is first made."""
    later = InMemorySpanExporter()
    given.provider.add_span_processor(SimpleSpanProcessor(later))

    span = given.tracer.start_span("judged")
    assert given.judge("judged")
    span.end()

    assert [each.name for each in later.get_finished_spans()] == [
        each.name for each in given.sent()
    ]


def test_the_processors_are_the_ones_that_were_there(given: Beside) -> None:
    """Phoenix looks for its own among them, by identity, to take it out."""
    processors = vars(composite_of(given.provider))["_span_processors"]

    assert [type(each) for each in processors] == [SimpleSpanProcessor]


def test_a_judged_span_that_is_given_up_was_no_false_alarm(given: Beside) -> None:
    """It had not gone on by itself, and no longer limit would have helped."""
    before = safety.counts()

    with (
        contextlib.suppress(asyncio.CancelledError),
        given.tracer.start_as_current_span("slow"),
    ):
        assert given.judge("slow")
        raise asyncio.CancelledError

    after = safety.counts()
    assert ended_as(given.sent()[-1])[0] == "cancelled"
    assert after["late_finishes"] == before["late_finishes"] + 1
    assert after["late_given_up"] == before["late_given_up"] + 1


def test_the_end_of_a_judged_span_arrives_as_a_late_finish(given: Beside) -> None:
    """Two forms of one span id confuse every backend; the real end is worth telling."""
    before = safety.counts()["late_finishes"]
    span = given.tracer.start_span("slow")

    assert given.judge("slow")
    span.set_attribute("tokens", 7)
    span.end()

    judged, late = given.sent()
    assert ended_as(judged) == ("stuck", "watchdog")
    assert judged.status.description == "no progress for 60 s"
    assert "tokens" not in (judged.attributes or {})
    assert late.name == "agenttrace.late_finish: slow"
    assert ended_as(late) == ("ok", "return")
    assert (late.attributes or {})["tokens"] == 7
    assert late.parent is not None
    assert id_of(judged) == id_of(span) == late.parent.span_id != id_of(late)
    assert [link.context.span_id for link in late.links] == [id_of(judged)]
    assert safety.counts()["late_finishes"] == before + 1


def test_a_judged_span_stays_with_its_owner(given: Beside) -> None:
    """It goes on, records, has children, and knows nothing of the verdict."""
    with given.tracer.start_as_current_span("slow") as span:
        given.judge("slow")
        span.add_event("still here")
        assert span.is_recording()
        with given.tracer.start_as_current_span("child"):
            pass

    child = given.one("child")
    assert child.parent is not None
    assert child.parent.span_id == id_of(span)
    assert [event.name for event in given.one("slow").events] == []


def test_it_is_too_late_to_judge_a_span_that_has_ended(given: Beside) -> None:
    """The owner and the watchdog may come at the same moment; one of them tells."""
    span = given.tracer.start_span("quick")
    record = given.record("quick")
    span.end()

    told = given.registry.judge(record, STUCK)

    assert not told
    assert [ended_as(each) for each in given.sent()] == [("ok", "return")]


def test_what_is_bound_reaches_the_spans_of_other_libraries(given: Beside) -> None:
    """A conversation is looked for by its id, whoever made the span."""
    with agenttrace.bind(conversation_id="c-1", attributes={"tenant": "gold"}):
        given.tracer.start_span("plain").end()
        given.tracer.start_span("said", attributes={"tenant": "silver"}).end()
        elsewhere = trace.set_span_in_context(trace.INVALID_SPAN, Context())
        given.tracer.start_span("elsewhere", context=elsewhere).end()

    plain = given.one("plain").attributes or {}
    assert (plain["gen_ai.conversation.id"], plain["tenant"]) == ("c-1", "gold")
    assert (given.one("said").attributes or {})["tenant"] == "silver"
    assert "tenant" not in (given.one("elsewhere").attributes or {})


def test_the_limits_of_a_span_are_known_when_it_is_listed(port: Beside) -> None:
    """The watchdog asks once, at the start, when it has to look again."""
    seen: dict[str, tuple[float | None, str | None]] = {}

    class Watchdog:
        def started(self, span: OpenSpan) -> None:
            seen[span.name] = (span.heartbeat_timeout, span.operation)

        def ended(self, span: OpenSpan) -> None:
            pass

    port.registry.add_listener(Watchdog())

    @agenttrace.tool(heartbeat_timeout=7)
    def search() -> None:
        with port.tracer.start_as_current_span("theirs"):
            pass

    search()

    assert seen == {"execute_tool search": (7, "execute_tool"), "theirs": (None, None)}


def test_our_spans_and_theirs_are_each_others_parents(port: Beside) -> None:
    """One run is one trace, whoever made its spans."""
    with (
        agenttrace.span("ours"),
        port.tracer.start_as_current_span("theirs"),
        agenttrace.span("ours again"),
    ):
        agenttrace.heartbeat("here", progress=0.5)
        record = port.record("ours again")
        assert (record.note, record.progress) == ("here", 0.5)
        assert record.path() == "ours / theirs / ours again"

    ours, theirs = port.one("ours"), port.one("theirs")
    again = port.one("ours again")
    assert theirs.parent is not None
    assert again.parent is not None
    assert theirs.parent.span_id == id_of(ours)
    assert again.parent.span_id == id_of(theirs)
    assert {ended_as(span) for span in port.sent()} == {("ok", "return")}


def test_a_heartbeat_inside_another_librarys_span_is_that_spans(port: Beside) -> None:
    """Who reports progress from a tool need not know who traces it."""
    with port.tracer.start_as_current_span("theirs"):
        agenttrace.heartbeat("page 2")
        with agenttrace.hold("approval"):
            assert port.record("theirs").holds == 1

        assert port.record("theirs").note == "approval"


def test_an_unsampled_span_of_ours_is_watched_and_not_sent() -> None:
    """Its hang is a hang; other libraries' cannot be seen, and the docs say so."""
    given = beside(sampler=sampling.ALWAYS_OFF)

    span = given.attachment.tracer.start(
        Opening("quiet", "chat", heartbeat_timeout=5), Context()
    )

    record = given.record("quiet")
    assert (record.sampled, record.operation, record.heartbeat_timeout) == (
        False,
        "chat",
        5,
    )
    assert given.judge("quiet")
    span.finish(RETURNED)
    assert (len(given.registry), given.sent()) == (0, [])


def test_an_unsampled_span_that_is_dropped_leaves_the_list() -> None:
    """A list that only grows ends as an eviction of spans that matter."""
    given = beside(sampler=sampling.ALWAYS_OFF)
    given.attachment.tracer.start(Opening("quiet"), Context())

    given.registry.sweep(lambda _span: RETURNED)

    assert len(given.registry) == 0


def test_a_tracer_that_hands_out_its_parent_makes_no_span(port: Beside) -> None:
    """Logfire's suppressed scopes do: the parent must not be listed a second time."""

    class Suppressed(trace.NoOpTracer):
        def start_span(self, *_args: object, **_options: object) -> trace.Span:
            return trace.NonRecordingSpan(trace.get_current_span().get_span_context())

    class Provider(trace.TracerProvider):
        provider = port.provider

        def get_tracer(self, *_args: object, **_options: object) -> trace.Tracer:
            return Suppressed()

    again = Attachment(Provider(), port.registry)

    with port.tracer.start_as_current_span("parent"):
        span = again.tracer.start(Opening("none", "chat"), otel.get_current())
        assert span.record is None
        assert port.record("parent").operation is None
        span.finish(RETURNED)

    assert [each.name for each in port.sent()] == ["parent"]


def test_a_processor_that_raises_does_so_as_without_us(given: Beside) -> None:
    """The SDK lets it through; hiding it would change the application."""

    class Broken(SpanProcessor):
        def on_end(self, span: object) -> None:
            del span
            raise LookupError

    given.provider.add_span_processor(Broken())
    span = given.tracer.start_span("work")

    with pytest.raises(LookupError):
        span.end()

    assert len(given.registry) == 0


def test_outcomes_that_count_as_errors_set_the_status() -> None:
    """`error_outcomes` is a setting of the runtime, not of one mode."""
    plain = stock()
    attachment = Attachment(
        plain.provider, OpenSpans(), as_error=frozenset({Outcome.CANCELLED})
    )
    previous = tracing.install(attachment.tracer)

    for start in (plain.tracer.start_as_current_span, agenttrace.span):
        with pytest.raises(asyncio.CancelledError), start("stopped"):
            raise asyncio.CancelledError
    tracing.install(previous)

    assert [span.status.status_code for span in plain.sent()] == [StatusCode.ERROR] * 2
    assert {ended_as(span) for span in plain.sent()} == {("cancelled", "cancel")}


def test_a_span_of_our_own_making_goes_past_the_gate(given: Beside) -> None:
    """Markers and the spans of dead processes are final as they come."""
    given.tracer.start_span("template").end()
    template = given.one("template")

    given.attachment.emit(template)

    assert given.sent() == [template, template]


def test_a_provider_of_an_unknown_shape_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The next SDK may be built otherwise; then our spans arrive, unwatched."""

    class Odd:
        """Has nothing that a gate could stand before."""

    plain = stock()
    vars(plain.provider)["_active_span_processor"] = Odd()
    safety.reset_for_tests()

    with caplog.at_level(logging.WARNING, "agenttrace"):
        attachment = Attachment(plain.provider, OpenSpans())
        attachment.detach()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be watched" in caplog.text


class Raising(SpanProcessor):
    """Raises at every end."""

    def on_end(self, span: object) -> None:
        del span
        raise LookupError


def test_a_processor_that_raises_costs_no_other_a_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An owner sees what is raised; of a verdict, or of what is recovered, nobody."""
    monkeypatch.delenv(safety.STRICT_VARIABLE, raising=False)
    safety.reset_for_tests()
    given, behind = beside(), InMemorySpanExporter()
    given.provider.add_span_processor(Raising())
    given.provider.add_span_processor(SimpleSpanProcessor(behind))
    slow, own = given.tracer.start_span("slow"), given.tracer.start_span("own")

    assert given.judge("slow")
    (judged,) = behind.get_finished_spans()
    given.attachment.pass_on(judged)
    hits = safety.guard_hits()
    safety.reset_for_tests()
    with pytest.raises(LookupError):
        own.end()
    slow.end()
    safety.reset_for_tests()

    assert [each.name for each in behind.get_finished_spans()] == [
        "slow",
        "slow",
        "agenttrace.late_finish: slow",
    ]
    assert hits == {"processors.on_end": 2}
