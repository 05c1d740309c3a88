"""What another library's span says is kept, also when the span itself is gone."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from agenttrace.model import EndedBy, Ending, Outcome, identity_of
from agenttrace.spans.unsaid import late_finish_of, settled, unsaid
from agenttrace.testing.garbage import collect_garbage
from tests.spans.given import Beside, beside, ended_as, lean

if TYPE_CHECKING:
    from agenttrace.registry import OpenSpan

UNSET = Status()
NONE: frozenset[Outcome] = frozenset()


def found(span: OpenSpan) -> Ending:
    """Return the ending of what was collected, as the runtime says it."""
    return Ending(Outcome.ABANDONED, EndedBy.GC, end_time=span.last_beat)


def over(kind: type[Exception]) -> None:
    raise kind


def sweep(given: Beside) -> int:
    """Tell what was collected."""
    return given.registry.sweep(found)


def test_a_span_that_is_dropped_without_an_end_is_abandoned() -> None:
    """A client that forgets its span leaves a hole in the trace otherwise."""
    given = beside()
    span = given.tracer.start_span("first name", attributes={"k": 1})
    span.update_name("last name")
    span.set_attribute("late", 2)
    span.add_event("happened")
    span.set_status(StatusCode.ERROR, "broke")

    del span
    collect_garbage()
    swept = sweep(given)

    told = given.one("last name")
    assert swept == 1
    assert ended_as(told) == ("abandoned", "gc")
    assert told.attributes is not None
    assert (told.attributes["k"], told.attributes["late"]) == (1, 2)
    assert [event.name for event in told.events] == ["happened"]
    assert told.status.description == "broke"
    assert told.end_time == told.start_time
    assert len(given.registry) == 0


def test_adopting_a_span_does_not_keep_it_alive() -> None:
    """Then it could never be found to be dropped, and would leak besides."""
    given = beside()
    span = given.tracer.start_span("work")
    reference = weakref.ref(span)

    del span

    assert reference() is None


def test_a_span_in_a_reference_cycle_waits_for_the_collector() -> None:
    """Frames, exceptions and their tracebacks make such cycles all the time."""
    given = beside()
    span = given.tracer.start_span("cycle", attributes={"k": 1})
    span.add_event("happened", {"k": 2})
    span.set_status(StatusCode.ERROR, "broke")
    cycle: list[object] = [span]
    cycle.append(cycle)

    del span, cycle
    collect_garbage()
    sweep(given)

    told = given.one("cycle")
    assert ended_as(told) == ("abandoned", "gc")
    assert (told.attributes or {})["k"] == 1
    assert [dict(event.attributes or {}) for event in told.events] == [{"k": 2}]
    assert told.status.description == "broke"


def test_a_span_that_ended_is_not_found_again() -> None:
    """Most spans are collected: after their end."""
    given = beside()
    given.tracer.start_span("work").end()

    collect_garbage()

    assert sweep(given) == 0
    assert len(given.sent()) == 1


def test_a_judged_span_that_is_dropped_is_not_told_again() -> None:
    """The verdict was its final form; there is no end to be late."""
    given = beside()
    span = given.tracer.start_span("stuck")
    given.judge("stuck")

    del span
    collect_garbage()

    assert sweep(given) == 0
    assert [ended_as(each) for each in given.sent()] == [("stuck", "watchdog")]


def test_nothing_is_kept_of_a_span_that_is_over() -> None:
    """Per span one record and one reference; neither may wait for the collector."""
    given = beside()
    span = given.tracer.start_span("work")
    record = given.record("work")
    assert record() is not None
    gc.disable()
    try:
        span.end()

        assert record() is None
    finally:
        gc.enable()


def test_a_verdict_keeps_what_the_limits_dropped() -> None:
    """The backend shows how much is missing; a copy must know it as well."""
    given = beside()
    span = given.tracer.start_span("busy")
    for number in range(200):
        span.add_event(str(number))

    given.judge("busy")
    span.add_event("later")

    told = given.one("busy")
    assert told.dropped_events == 72
    assert told.events[-1].name == "199"


@pytest.mark.parametrize("outcome", Outcome)
def test_an_owners_outcome_and_status_stand(outcome: Outcome) -> None:
    """Our own port has said already how it went, better than could be guessed."""
    held = {"agenttrace.outcome": outcome.value}

    values, status = settled(
        Ending(Outcome.ERROR, EndedBy.EXCEPTION), UNSET, held, NONE
    )

    assert (values, status) == ({}, None)


def test_error_type_is_added_and_never_replaced() -> None:
    """Semantic conventions of HTTP and databases put their own codes there."""
    ending = Ending(Outcome.ERROR, EndedBy.EXCEPTION, ValueError())

    added, _ = settled(ending, UNSET, {}, NONE)
    kept, _ = settled(ending, UNSET, {"error.type": "404"}, NONE)

    assert added["error.type"] == "ValueError"
    assert "error.type" not in kept


def test_an_exception_of_the_start_says_nothing_about_the_end() -> None:
    """One that starts in an `except` block has that exception in flight all along."""
    outcomes = [unsaid(0).outcome]
    try:
        int("no number")
    except ValueError as error:
        outcomes += [unsaid(identity_of(error)).outcome, unsaid(0).outcome]

    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.ERROR]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_the_end_of_a_stream_is_no_error_of_its_span(kind: type[Exception]) -> None:
    """Who wraps a stream ends its span where that exception is being handled."""
    ours, theirs = lean(), beside()

    for given in (ours, theirs):
        span = given.tracer.start_span("stream")
        try:
            over(kind)
        except kind:
            span.end()

    for given in (ours, theirs):
        told = given.one("stream")
        assert ended_as(told) == ("ok", "return")
        assert told.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("was_judged", [False, True], ids=["open", "judged"])
def test_a_finalizer_that_ends_its_span_is_not_contradicted(
    *, was_judged: bool
) -> None:
    """In a cycle the collector tells us of the span first, and its stream after."""
    given = beside()

    class Stream:
        def __init__(self) -> None:
            self.span = given.tracer.start_span("stream")
            self.itself = self

        def __del__(self) -> None:
            self.span.end()

    stream = Stream()
    if was_judged:
        assert given.judge("stream")
    del stream
    collect_garbage()
    sweep(given)

    told = {span.name: ended_as(span) for span in given.sent()}
    late = {"agenttrace.late_finish: stream": ("ok", "return")}
    assert len(given.sent()) == len(told)
    assert told == (
        {"stream": ("stuck", "watchdog"), **late}
        if was_judged
        else {"stream": ("ok", "return")}
    )
    assert len(given.registry) == 0


def test_an_exception_is_known_again_however_far_it_has_come_since() -> None:
    """An `except` block that starts a span may raise again what it has caught."""
    identities: list[int] = []
    outcomes: list[Outcome] = []

    def fail() -> None:
        try:
            int("no number")
        except ValueError as error:
            identities.append(identity_of(error))
            raise

    try:
        fail()
    except ValueError:
        outcomes.append(unsaid(identities[0]).outcome)

    assert outcomes == [Outcome.OK]


def test_a_late_finish_of_a_span_without_context_is_a_span_all_the_same() -> None:
    """Nothing that another tool builds may raise into the application."""
    late = late_finish_of(ReadableSpan("odd", status=Status(StatusCode.OK)))

    assert late.name == "agenttrace.late_finish: odd"
    assert late.status.status_code is StatusCode.UNSET
