"""A run that broke off goes on as a run of its own, linked to what there was before."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from opentelemetry.trace import SpanContext, TraceFlags

import agenttrace
from agenttrace import safety, tracing
from agenttrace.context.tokens import MAX_TOKEN, Origin, read, write
from agenttrace.testing import kill_and_recover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import NoReturn

    from agenttrace.testing import CapturedSpan, CapturedSpans

CONVERSATION = "gen_ai.conversation.id"


def unreadable() -> int:
    """Return how many tokens this process could not read."""
    return safety.counts()["tokens_unreadable"]


def origins_of(span: CapturedSpan) -> list[tuple[str, str, object]]:
    """Return what the links of *span* lead to, and what they say of it."""
    return [
        (link.trace_id, link.span_id, link.attributes.get("agenttrace.link"))
        for link in span.links
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_run_that_was_killed_is_lost_and_what_goes_on_is_linked_to_it(
    agenttrace_spans: CapturedSpans, tmp_path: Path
) -> None:
    """Property T: two processes, two runs, and each is told as what it was."""
    saved = tmp_path / "session.json"

    def work(die: Callable[[], NoReturn]) -> None:
        @agenttrace.agent
        def research() -> None:
            with agenttrace.span("step 1"):
                token = agenttrace.checkpoint()
                saved.write_text(json.dumps({"step": 1, "token": token}))
                die()

        with agenttrace.bind(conversation_id="c-17", user_id="u-1"):
            research()

    recovered = kill_and_recover(work)
    token = json.loads(saved.read_text())["token"]
    with agenttrace.resume(token, name="research, resumed"), agenttrace.span("step 2"):
        pass

    recovered.assert_tree("""
        invoke_agent research: lost ended_by=recovery
          step 1: lost
    """)
    agenttrace_spans.assert_tree("""
        research, resumed
          step 2
    """)
    before = recovered.span("step 1")
    run, step = agenttrace_spans
    assert origins_of(run) == [(before.trace_id, before.span_id, "resumed")]
    assert run.trace_id == step.trace_id != before.trace_id
    for span in run, step:
        assert span.attributes[CONVERSATION] == "c-17"
        assert "user.id" not in span.attributes
    assert "u-1" not in token


def test_a_run_that_goes_on_in_a_request_is_linked_to_that_as_well(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Who approved a step is found from the run, and the run from both of its sides."""
    with agenttrace.span("first"):
        token = agenttrace.checkpoint()
    with agenttrace.span("request") as around:
        with agenttrace.resume(token) as run:
            assert trace.get_current_span() is run
        assert trace.get_current_span() is around

    first, request = agenttrace_spans.span("first"), agenttrace_spans.span("request")
    again = agenttrace_spans.span("resume")
    assert again.parent is None
    assert request.children == []
    assert origins_of(again) == [
        (first.trace_id, first.span_id, "resumed"),
        (request.trace_id, request.span_id, None),
    ]


def test_a_run_that_goes_on_ends_as_what_came_out_of_it(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The exception is the application's, unchanged."""
    with agenttrace.span("first"):
        token = agenttrace.checkpoint()
    with pytest.raises(ValueError, match="soon"), agenttrace.resume(token):
        int("soon")

    assert agenttrace_spans.span("resume").outcome == "error"
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_conversation_is_found_on_the_spans_around_too(
    agenttrace_spans: CapturedSpans,
) -> None:
    """An instrumented SDK says it on the run's own span, and binds nothing."""
    with (
        agenttrace.span("run", attributes={CONVERSATION: "c 18"}),
        agenttrace.span("tool"),
    ):
        token = agenttrace.checkpoint()
    with agenttrace.resume(token):
        pass

    assert agenttrace_spans.span("resume").attributes[CONVERSATION] == "c 18"
    assert CONVERSATION not in agenttrace_spans.span("tool").attributes


@pytest.mark.parametrize(
    ("conversation_id", "told"), [(17, "17"), ("\ud800 x", r"\ud800 x")], ids=range(2)
)
def test_a_conversation_that_is_no_text_costs_no_link(
    conversation_id: object, told: str, agenttrace_spans: CapturedSpans
) -> None:
    """What a database numbers, or a broken decoder made; told as spans tell it."""
    with agenttrace.span("first", attributes={CONVERSATION: conversation_id}):
        token = agenttrace.checkpoint()
    with agenttrace.resume(token):
        pass

    again = agenttrace_spans.span("resume")
    assert [span_id for _, span_id, _ in origins_of(again)] == [
        agenttrace_spans.span("first").span_id
    ]
    assert again.attributes[CONVERSATION] == told


def test_the_spans_of_another_provider_are_linked_in_the_same_way() -> None:
    """Before `configure()`, and beside a tool that has set up its own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    previous = tracing.install(tracing.ApiTracer(provider.get_tracer("theirs")))
    try:
        with agenttrace.span("first", attributes={CONVERSATION: "c-19"}):
            token = agenttrace.checkpoint()
        with agenttrace.resume(token):
            pass
    finally:
        tracing.install(previous)

    first, again = exporter.get_finished_spans()
    assert [link.context.span_id for link in again.links] == [
        first.context and first.context.span_id
    ]
    assert (again.attributes or {})[CONVERSATION] == "c-19"
    assert again.parent is None


@pytest.mark.parametrize("token", [None, ""])
def test_where_there_is_no_token_yet_a_run_begins(
    token: str | None, agenttrace_spans: CapturedSpans
) -> None:
    """So that the first run of a session needs no code of its own."""
    counted = unreadable()

    with agenttrace.resume(token):
        pass

    assert agenttrace_spans.span("resume").links == ()
    assert unreadable() == counted
    assert agenttrace.checkpoint() == ""


class Odd(str):
    """Text that is foreign code."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "agenttrace-2-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "agenttrace-1-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "agenttrace-1-" + "1" * 32 + "-" + "1" * 16 + "-01-%FF",
        "agenttrace-1-" + "1" * 32 + "-" + "1" * 16 + "-01-" + "x" * 1_000_000,
        "agenttrace-1-" + "1" * 32 + "-" + "1" * 16 + "-01\n",
        "\ud800",
        b"agenttrace-1-",
        7,
        Odd("garbage"),
    ],
    ids=range(10),  # of foreign text pytest would make names
)
def test_what_is_no_token_is_counted_and_the_run_begins_without_a_link(
    token: Any,  # noqa: ANN401 - that it is wrong is the point
    agenttrace_spans: CapturedSpans,
) -> None:
    """Stored state may be old, cut or forged; the work has to go on nevertheless."""
    counted = unreadable()

    with agenttrace.resume(token):
        pass

    assert agenttrace_spans.span("resume").links == ()
    assert unreadable() == counted + 1


def test_an_unsampled_run_is_linked_to_as_unsampled() -> None:
    """Whoever looks for it in a backend learns why it is not there."""
    flags = TraceFlags(0)
    origin = Origin(SpanContext(1, 2, is_remote=False, trace_flags=flags))

    again = read(write(origin))

    assert again is not None
    assert again.span.trace_flags == flags


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=400),
)
def test_what_was_written_is_read_again_and_is_never_long(
    trace_id: int, span_id: int, flags: int, conversation_id: str | None
) -> None:
    """A conversation is whole or missing: a part of its id is that of another one."""
    origin = Origin(
        SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags)),
        conversation_id or None,
    )

    token = write(origin)

    assert len(token) <= MAX_TOKEN
    assert token.isascii()
    assert json.loads(json.dumps(token)) == token
    assert read(token) in (origin, origin._replace(conversation_id=None))
    if len(conversation_id or "") <= 80:
        assert read(token) == origin


@given(st.text(max_size=2000) | st.binary() | st.integers())
def test_no_token_makes_reading_fail(token: object) -> None:
    """It comes from a database, a cookie, or whoever asked."""
    read(token)
