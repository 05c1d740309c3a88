"""The public verbs do what their docstrings say, whatever is handed to them."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import agenttrace
from agenttrace import content

if TYPE_CHECKING:
    from agenttrace.testing import CapturedSpans


def test_what_is_bound_is_on_every_span_below_also_other_libraries(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A conversation id is useless if half of the spans lack it."""
    tracer = trace.get_tracer("another library")

    with (
        agenttrace.bind(conversation_id="c-17", attributes={"tenant": "gold"}),
        agenttrace.span("ours"),
        agenttrace.bind(user_id="u-1", attributes={"tenant": "silver"}),
        tracer.start_as_current_span("theirs"),
    ):
        pass
    with agenttrace.span("after"):
        pass

    ours, theirs = agenttrace_spans.span("ours"), agenttrace_spans.span("theirs")
    assert ours.attributes["gen_ai.conversation.id"] == "c-17"
    assert ours.attributes["tenant"] == "gold"
    assert theirs.attributes["gen_ai.conversation.id"] == "c-17"
    assert theirs.attributes["tenant"] == "silver"
    assert theirs.attributes["user.id"] == "u-1"
    assert "tenant" not in agenttrace_spans.span("after").attributes


def test_what_is_bound_is_never_sent_to_another_service() -> None:
    """A tenant's name is nobody else's business: it is no baggage."""
    with agenttrace.bind(conversation_id="secret"):
        assert "secret" not in str(agenttrace.carrier())


def test_a_span_beats_what_is_bound(agenttrace_spans: CapturedSpans) -> None:
    """What is said of one span is nearer than what is said of all."""
    with (
        agenttrace.bind(attributes={"k": "all"}),
        agenttrace.span("one", attributes={"k": "one"}),
    ):
        pass

    assert agenttrace_spans.span("one").attributes["k"] == "one"


def test_carried_work_runs_under_the_span_that_was_current(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Threads begin with nothing current; `carry` hands it over, again and again."""

    @agenttrace.tool
    def work() -> None: ...

    with agenttrace.span("starter"):
        carried = agenttrace.carry(work)
    threads = [threading.Thread(target=carried) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(carried).result()

    starter = agenttrace_spans.span("starter")
    found = agenttrace_spans.find(name="execute_tool work")
    assert len(found) == 4
    assert all(span.parent is starter for span in found)


def test_a_carrier_continues_the_trace_elsewhere(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A job in a queue is a child of the request that put it there."""
    with agenttrace.span("request"):
        message = agenttrace.carrier()

    with agenttrace.continue_trace(message), agenttrace.span("job"):
        pass

    assert agenttrace_spans.span("job").parent is agenttrace_spans.span("request")


@pytest.mark.parametrize(
    "carrier", [{}, {"traceparent": "garbage"}, {"traceparent": ""}, {"x": "y"}]
)
def test_a_damaged_carrier_starts_a_trace_of_its_own(
    carrier: dict[str, str], agenttrace_spans: CapturedSpans
) -> None:
    """A job must run even if whoever queued it wrote nonsense."""
    with agenttrace.continue_trace(carrier), agenttrace.span("job"):
        pass

    assert agenttrace_spans.span("job").parent is None


async def _nothing() -> str:
    await asyncio.sleep(0)
    return "done"


@pytest.mark.asyncio
async def test_background_work_is_a_run_of_its_own_linked_to_its_starter(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A request that started it must neither wait for it nor look unfinished."""
    with agenttrace.span("request") as request:
        task = agenttrace.background(_nothing(), name="index")
        assert trace.get_current_span() is request

    assert await task == "done"
    job = agenttrace_spans.span("index")
    starter = agenttrace_spans.span("request")
    assert job.parent is None
    assert [link.trace_id for link in job.links] == [starter.trace_id]
    assert task.get_name() == "index"


@pytest.mark.asyncio
async def test_cancelled_background_work_says_so(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A job that was stopped did not succeed."""
    started = asyncio.Event()

    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    task = agenttrace.background(endless(), name="job")
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert agenttrace_spans.span("job").outcome == "cancelled"


def test_background_without_a_loop_says_what_is_missing() -> None:
    """The error is asyncio's own; the coroutine is not left to warn later."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        agenttrace.background(_nothing(), name="job")


def test_a_heartbeat_is_on_record(agenttrace_spans: CapturedSpans) -> None:
    """What the last one said is what a report will show."""
    with agenttrace.span("work"):
        agenttrace.heartbeat("page 4 of 10", progress=0.4)
        [record] = agenttrace.open_spans()

        assert (record.note, record.progress) == ("page 4 of 10", 0.4)
    agenttrace_spans.assert_all_closed()


@pytest.mark.parametrize(
    ("told", "kept"),
    [(Decimal("0.5"), 0.5), (True, 1.0), (math.nan, 0.25), (math.inf, 0.25)],
)
def test_a_heartbeats_progress_is_a_finite_number(
    told: Decimal | float, kept: float, agenttrace_spans: CapturedSpans
) -> None:
    """What is none spoiled the reports of every span of the process."""
    with agenttrace.span("work"):
        agenttrace.heartbeat(progress=0.25)
        agenttrace.heartbeat(progress=told)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the mistake
        [record] = agenttrace.open_spans()

        assert (type(record.progress), record.progress) == (float, kept)
    agenttrace_spans.assert_all_closed()


def test_progress_that_is_no_number_is_ignored(
    monkeypatch: pytest.MonkeyPatch, agenttrace_spans: CapturedSpans
) -> None:
    """The application goes on, and the heartbeat counts."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")
    with agenttrace.span("work"):
        agenttrace.heartbeat("half", progress="50%")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the mistake
        [record] = agenttrace.open_spans()

        assert (record.note, record.progress) == ("half", None)
    agenttrace_spans.assert_all_closed()


def test_a_hold_holds_everything_above_it(agenttrace_spans: CapturedSpans) -> None:
    """An agent that waits for a tool that waits for a human is waiting for a human."""
    with agenttrace.span("agent"), agenttrace.span("tool"):
        with agenttrace.hold("approval"):
            held = [span.holds for span in agenttrace.open_spans()]
        released = [span.holds for span in agenttrace.open_spans()]

    assert (held, released) == ([1, 1], [0, 0])
    assert agenttrace_spans.names == ["agent", "tool"]


@pytest.mark.parametrize("limit", [0, -1, math.nan, "soon", True])
@pytest.mark.parametrize("setting", ["heartbeat_timeout", "max_duration"])
def test_a_limit_that_cannot_be_meant_is_an_error_where_it_is_written(
    setting: str, limit: object
) -> None:
    """Not when the first span starts, and never silently."""
    options = {setting: limit}

    with pytest.raises(agenttrace.SettingError, match=f"{setting}="):
        agenttrace.span("x", **options)  # type: ignore[arg-type]  # that it is wrong is the point
    with pytest.raises(agenttrace.SettingError, match=f"{setting}="):
        agenttrace.tool(**options)  # type: ignore[call-overload]  # the same


@pytest.mark.parametrize("thing", [3, "name", dict])
def test_what_cannot_be_traced_is_refused_with_what_can(thing: object) -> None:
    """A decorated class would trace its construction and nothing of its work."""
    with pytest.raises(TypeError, match="decorate a function or method"):
        agenttrace.tool(thing)  # type: ignore[call-overload]  # that it is wrong is the point


def test_an_unknown_option_is_refused_by_name() -> None:
    """`timeout=30` looks right and would do nothing."""
    with pytest.raises(TypeError, match="unexpected arguments: timeout"):
        agenttrace.tool(timeout=30)  # type: ignore[call-overload]  # that it is wrong is the point


@pytest.mark.parametrize("name", [3, None, b"x", "", "\ud800", "x" * 10_000_000])
def test_a_span_takes_any_name(name: object, agenttrace_spans: CapturedSpans) -> None:
    """A name made of data must not break the step it names."""
    with agenttrace.span(name):  # type: ignore[arg-type]  # that it is wrong is the point
        pass

    [span] = agenttrace_spans
    assert isinstance(span.name, str)
    assert len(span.name) <= 4096


def test_content_is_captured_only_when_asked_for_and_redacted(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A prompt that nobody asked to keep must be nowhere."""

    @agenttrace.tool
    def quiet(password: str) -> str:
        return password

    @agenttrace.tool(capture_content=True)
    def open_(password: str, n: int = 1) -> str:
        return password * n

    def redact(key: str, value: Any) -> object:  # noqa: ANN401 - a hook is given anything
        is_call = key == "gen_ai.tool.call.arguments"
        return {**value, "password": "***"} if is_call else value

    previous = content.install(content.Policy(redact=redact))
    try:
        quiet("hunter2")
        open_("hunter2", n=2)
    finally:
        content.install(previous)

    assert "hunter2" not in str(agenttrace_spans.span("execute_tool quiet").attributes)
    values = agenttrace_spans.span("execute_tool open_").attributes
    assert values["gen_ai.tool.call.arguments"] == '{"password": "***", "n": 2}'
    assert values["gen_ai.tool.call.result"] == "hunter2hunter2"


def test_the_redaction_hook_sees_what_would_be_kept_and_nothing_of_the_application(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A hook that empties what it is given must not empty the application's list."""

    @agenttrace.tool(capture_content=True)
    def search(queries: list[str]) -> list[str]:
        return queries

    def redact(_key: str, value: Any) -> object:  # noqa: ANN401 - a hook is given anything
        value.clear()
        return value

    previous = content.install(content.Policy(redact=redact))
    try:
        queries = ["secret"]
        found = search(queries)
    finally:
        content.install(previous)

    assert (queries, found) == (["secret"], ["secret"])
    values = agenttrace_spans.span("execute_tool search").attributes
    assert values["gen_ai.tool.call.result"] == "[]"


def test_a_redaction_that_fails_keeps_everything_back(
    agenttrace_spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better no content than content that should have been redacted."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")

    def redact(key: str, _value: object) -> object:
        raise KeyError(key)

    @agenttrace.tool(capture_content=True)
    def search(query: str) -> str:
        return query

    previous = content.install(content.Policy(redact=redact))
    try:
        assert search("secret") == "secret"
    finally:
        content.install(previous)

    values = agenttrace_spans.span("execute_tool search").attributes
    assert values["gen_ai.tool.call.arguments"] == content.REDACTION_FAILED
    assert "secret" not in str(values)
