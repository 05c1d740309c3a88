"""What spans keep is kept in themselves, whatever comes to them late."""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy

from opentelemetry import trace

from agenttrace.spans.lean import LeanSpan
from tests.spans.given import lean


def test_a_span_has_no_dict_of_its_own_whatever_comes_to_it_late() -> None:
    """A dict for each of them costs as much again as all that a span does."""
    given, early = lean(), ExitStack()
    spans = [
        early.enter_context(given.tracer.start_as_current_span(f"step {number}"))
        for number in range(100)
    ]
    link = trace.Link(trace.get_current_span().get_span_context())
    with given.tracer.start_as_current_span("linked", links=[link]) as linked:
        spans.append(linked)
    late = given.tracer.start_span("late")
    late.add_event("said")
    late.get_span_context()
    late.end()
    early.close()
    try:
        raise LookupError  # noqa: TRY301 - what is being handled when they start
    except LookupError:
        after = [given.tracer.start_span("after") for _ in range(10)]
    for span in after:
        span.end()
    spans += after
    for span in spans:
        assert isinstance(span, LeanSpan)
        span.queued = True  # as the spooler does

    assert [span for span in spans if vars(span)] == []


def test_a_copy_has_what_others_have_put_on_a_span() -> None:
    """Tools keep notes of their own on the spans that they see."""
    given = lean()
    with given.tracer.start_as_current_span("noted") as span:
        vars(span)["note_of_a_tool"] = 7

        assert vars(copy(span))["note_of_a_tool"] == 7
