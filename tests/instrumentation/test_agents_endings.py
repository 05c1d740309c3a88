"""However a run is interrupted, every span of it ends, and says how it did.

Each of these left spans open or told a lie on the stock SDK.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agents
import openai
import pytest
from agents import GuardrailFunctionOutput, function_tool, input_guardrail
from opentelemetry import context as otel
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace.boundary.left import ReadThrough
from agenttrace.context.request import Request
from agenttrace.delivery.store.reader import Reader
from tests.core.programs import run
from tests.instrumentation.given import Spans
from tests.instrumentation.given_agents import (
    PATIENCE,
    STALLED,
    Desk,
    hear,
    hear_all,
    names_open,
    nothing_is_open,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from agents import Agent, RunContextWrapper

    from agenttrace.testing.model_server import ModelServer

ROOT = Path(__file__).parents[2]
CANCELLED = ("cancelled", "cancel")
RUN = (
    "invoke_workflow Agent workflow",
    "run Agent workflow",
    "invoke_agent triage",
    "turn 1",
)


pytestmark = pytest.mark.usefixtures("without_vendor")


@pytest.fixture
def stopping(spans: Spans) -> Iterator[Spans]:
    """Cancel runs that nobody listens to."""
    exporter = InMemorySpanExporter()
    assert spans.runtime.is_running
    with agenttrace.configure(span_exporter=exporter, on_abandon="cancel") as runtime:
        yield Spans(exporter, runtime)


def endings(spans: Spans) -> dict[str, tuple[str, str]]:
    """Return outcome and what ended it of each span, by name."""
    found: dict[str, tuple[str, str]] = {}
    for span in spans.all():
        attributes: Any = span.attributes
        found[span.name] = (
            attributes["agenttrace.outcome"],
            attributes["agenttrace.ended_by"],
        )
    return found


def all_of(names: tuple[str, ...], ending: tuple[str, str]) -> dict[str, Any]:
    return dict.fromkeys(names, ending)


def test_a_cancelled_run_is_cancelled_with_what_was_received(
    desk: Desk, spans: Spans
) -> None:
    """The stock SDK finishes its spans without a word."""

    async def cancelled() -> None:
        result = desk.stream(desk.agent(STALLED))
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                result.cancel()
        await until(nothing_is_open)

    desk.wait(cancelled())

    assert endings(spans) == all_of((*RUN, f"chat {STALLED}"), CANCELLED)
    assert spans.named(f"chat {STALLED}")["partial"] is True
    assert spans.named(f"chat {STALLED}")["items"] >= 1


def test_a_run_that_is_cancelled_after_its_turn_says_so(
    desk: Desk, spans: Spans
) -> None:
    """The turn is whole, and the run is not: it returns, and has no result."""

    @function_tool
    def search() -> str:
        return "found"

    async def cancelled() -> None:
        result = desk.stream(desk.agent("tool=search", tools=[search]))
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                result.cancel("after_turn")
        assert result.final_output is None

    desk.wait(cancelled())

    found = endings(spans)
    assert {found[name] for name in RUN[:3]} == {CANCELLED}
    assert found["turn 1"] == ("ok", "return")
    assert found["execute_tool search"] == ("ok", "return")
    assert "turn 2" not in found


def test_a_run_that_has_its_result_before_it_is_cancelled_is_ok(
    desk: Desk, spans: Spans
) -> None:
    """The last turn is the last one, cancelled or not."""

    async def cancelled() -> None:
        result = desk.stream(desk.agent("ok"))
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                result.cancel("after_turn")

    desk.wait(cancelled())

    assert set(endings(spans).values()) == {("ok", "return")}


def test_a_run_that_is_cancelled_before_its_first_turn_has_none(
    desk: Desk, spans: Spans
) -> None:
    """It begins, finds that it is not to go on, and returns."""

    async def cancelled() -> None:
        result = desk.stream(desk.agent("ok"))
        result.cancel("after_turn")
        await hear_all(result)

    desk.wait(cancelled())

    assert set(endings(spans).values()) == {CANCELLED}
    assert "turn 1" not in endings(spans)


def test_a_run_that_is_left_says_so_and_stays_open(desk: Desk, spans: Spans) -> None:
    """The SDK runs it to its end, which this model never comes to."""

    async def left() -> set[str]:
        result = desk.stream(desk.agent(STALLED))
        await hear(result)
        await until(lambda: "nobody listens any more" in notes())
        still_open = names_open()
        result.cancel()
        await until(nothing_is_open)
        return still_open

    def notes() -> set[str | None]:
        return {span.note for span in agenttrace.open_spans()}

    assert desk.wait(left()) == {*RUN, f"chat {STALLED}"}
    assert spans.named(RUN[0])["abandoned_at"] > "2020"
    assert set(endings(spans).values()) == {CANCELLED}


def test_a_run_that_is_left_and_comes_to_its_end_is_ok(
    desk: Desk, spans: Spans
) -> None:
    """Its work was done, if for nobody; and that is on it too."""

    async def left() -> None:
        await hear(desk.stream(desk.agent("ok;chunks=5;gap=0.05")))
        await until(nothing_is_open)

    desk.wait(left())

    assert set(endings(spans).values()) == {("ok", "return")}
    assert spans.named(RUN[0])["abandoned_at"] > "2020"


def test_a_run_that_is_left_is_cancelled_if_that_was_asked_for(
    desk: Desk, stopping: Spans, server: ModelServer
) -> None:
    """With its request: nobody pays for an answer that nobody reads."""
    before = len(server.requests)

    async def left() -> None:
        await hear(desk.stream(desk.agent(STALLED)))
        await until(nothing_is_open)

    desk.wait(left())

    request = server.wait_for_request(before + 1, PATIENCE)
    request.wait("client_gone", PATIENCE)
    assert endings(stopping) == all_of((*RUN, f"chat {STALLED}"), ("abandoned", "gc"))
    assert stopping.named(f"chat {STALLED}")["partial"] is True


def test_a_run_that_one_of_two_leaves_goes_on(desk: Desk, stopping: Spans) -> None:
    """The other one still listens, and is to hear it all."""

    async def one_left() -> None:
        result = desk.stream(desk.agent("ok;chunks=5;gap=0.05"))
        first: Any = result.stream_events()
        await anext(first)
        second: Any = result.stream_events()
        await anext(second)
        leaving = asyncio.create_task(first.aclose())
        async for _ in second:
            pass
        await leaving
        assert result.final_output == "word0 word1 word2 word3 word4"

    desk.wait(one_left())

    assert set(endings(stopping).values()) == {("ok", "return")}


def test_closing_the_events_stops_the_run_at_once_if_that_was_asked_for(
    desk: Desk, stopping: Spans
) -> None:
    """`aclosing` is in the textbooks; the stock SDK hangs in it if the model does."""

    async def closed() -> None:
        events: Any = desk.stream(desk.agent(STALLED)).stream_events()
        async for event in events:
            if event.type == "raw_response_event":
                break
        async with asyncio.timeout(PATIENCE):
            await events.aclose()
            await until(nothing_is_open)

    desk.wait(closed())

    assert set(endings(stopping).values()) == {("abandoned", "close")}


def test_a_task_that_is_cancelled_while_it_listens_cancels_the_run(
    desk: Desk, spans: Spans
) -> None:
    """The SDK does it, and says nothing of it on its spans."""

    async def cancelled() -> None:
        result = desk.stream(desk.agent(STALLED))
        heard = asyncio.Event()

        async def listen() -> None:
            async for _ in result.stream_events():
                heard.set()

        task = asyncio.create_task(listen())
        await heard.wait()
        await until(lambda: f"chat {STALLED}" in names_open())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(nothing_is_open)

    desk.wait(cancelled())

    assert set(endings(spans).values()) == {CANCELLED}


def test_a_task_that_is_cancelled_between_two_events_leaves_the_run(
    desk: Desk, stopping: Spans
) -> None:
    """The generator waits at its `yield`, so the SDK does not hear of it."""

    async def cancelled() -> None:
        heard = asyncio.Event()

        async def listen() -> None:
            async for event in desk.stream(desk.agent(STALLED)).stream_events():
                if event.type == "raw_response_event":
                    heard.set()
                    await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(listen())
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await until(nothing_is_open)

    desk.wait(cancelled())

    assert set(endings(stopping).values()) == {("abandoned", "gc")}


def test_a_client_that_has_gone_stops_its_run(desk: Desk, spans: Spans) -> None:
    """What a middleware does, from a thread: the seam that it has."""

    async def gone() -> None:
        with Request() as request:
            result = desk.stream(desk.agent(STALLED))
        events: Any = result.stream_events()
        await anext(events)
        await until(lambda: f"chat {STALLED}" in names_open())
        await asyncio.to_thread(request.go)
        for left in request.left():
            await left.close()
        await until(nothing_is_open)
        request.go()

    desk.wait(gone())

    found = endings(spans)
    assert set(found.values()) == {("abandoned", "disconnect")}
    assert set(found) == {*RUN, f"chat {STALLED}"}


def test_a_client_that_goes_after_the_end_changes_nothing(
    desk: Desk, spans: Spans
) -> None:
    """Every request ends, most of them with all work done."""

    async def gone() -> None:
        with Request() as request:
            await hear_all(desk.stream(desk.agent("ok")))
        request.go()

    desk.wait(gone())

    assert set(endings(spans).values()) == {("ok", "return")}


def test_a_run_that_is_cancelled_in_a_tool_is_cancelled(
    desk: Desk, spans: Spans
) -> None:
    """Its tool ends after it, and says the same."""
    begun = asyncio.Event()

    @function_tool
    async def wait() -> str:
        begun.set()
        await asyncio.sleep(PATIENCE)
        return ""

    async def cancelled() -> None:
        task = asyncio.create_task(desk.run(desk.agent("tool=wait", tools=[wait])))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(nothing_is_open)

    desk.wait(cancelled())

    found = endings(spans)
    assert found.pop("chat tool=wait") == ("ok", "return")
    assert found == all_of((*RUN, "execute_tool wait"), CANCELLED)


def test_a_run_of_a_background_job_is_not_left_with_the_stream_that_started_it(
    desk: Desk, stopping: Spans
) -> None:
    """What is put there before is none of the reader's business, who may leave."""
    jobs: list[asyncio.Task[None]] = []

    async def work() -> None:
        await hear_all(desk.stream(desk.agent(STALLED)))

    async def starting() -> AsyncGenerator[str]:
        jobs.append(agenttrace.background(work(), name="job"))
        yield "started"

    async def left() -> None:
        stream = ReadThrough(otel.get_current()).settle(starting())
        async for _ in stream:
            break
        await until(lambda: f"chat {STALLED}" in names_open())
        await stream.aclose()
        jobs[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await jobs[0]
        await until(nothing_is_open)

    desk.wait(left())

    assert endings(stopping) == all_of((*RUN, f"chat {STALLED}", "job"), CANCELLED)


def test_a_second_cancellation_in_clean_up_leaves_nothing_open(
    desk: Desk, spans: Spans
) -> None:
    """It makes the SDK pass over its own `finish()` of agent, task and trace."""
    begun = asyncio.Event()
    cleaning = asyncio.Event()

    @input_guardrail
    async def slow(
        _: RunContextWrapper[Any], __: Agent[Any], ___: object
    ) -> GuardrailFunctionOutput:
        try:
            begun.set()
            await asyncio.sleep(PATIENCE)
        finally:
            cleaning.set()
            await asyncio.sleep(0.2)
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    async def cancelled() -> None:
        result = desk.stream(desk.agent(STALLED, input_guardrails=[slow]))
        await begun.wait()
        await until(lambda: f"chat {STALLED}" in names_open())
        result.cancel()
        await cleaning.wait()
        assert result.run_loop_task is not None
        result.run_loop_task.cancel()
        await until(nothing_is_open)
        with pytest.raises(asyncio.CancelledError):
            await result.run_loop_task

    desk.wait(cancelled())

    found = endings(spans)
    assert {found[name] for name in RUN} == {CANCELLED}


def test_a_run_whose_loop_was_closed_is_lost(server: ModelServer) -> None:
    """Nobody will end it; the next run in the process does, whoever keeps it alive."""
    ran = run(
        """
        import asyncio, os, agents, agenttrace
        from tests.instrumentation.given_agents import STALLED, Desk, names_open, until
        runtime = agenttrace.configure()
        agenttrace.instrument()
        agents.set_trace_processors([])
        desk = Desk(os.environ["MODELS"])
        begun = []
        async def begin():
            begun.append(asyncio.create_task(desk.run(desk.agent(STALLED))))
            await until(lambda: f"chat {STALLED}" in names_open())
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        print(len(agenttrace.open_spans()))
        other = Desk(os.environ["MODELS"])
        other.wait(other.run(other.agent("ok")))
        print(len(agenttrace.open_spans()))
        """,
        MODELS=server.base_url,
        PYTHONPATH=str(ROOT),
    )

    assert ran.out.split() == ["5", "0"], ran.err
    reader = Reader(Path(os.environ["AGENTTRACE_STATE_DIR"]) / "traces.db")
    found = [(each.name, each.outcome) for each in reader.runs(10)]
    assert sorted(found) == [(RUN[0], "lost"), (RUN[0], "ok")]


def test_an_error_of_the_model_is_told_up_to_the_run(desk: Desk, spans: Spans) -> None:
    """With its class, on each span that it passed."""
    with pytest.raises(openai.BadRequestError):
        desk.wait(desk.run(desk.agent("err=400")))

    for span in spans.all():
        attributes: Any = span.attributes
        assert attributes["agenttrace.outcome"] == "error"
        assert attributes["error.type"] == "openai.BadRequestError"
    assert len(spans.all()) == 5


def test_a_tool_that_fails_is_an_error_though_its_run_goes_on(
    desk: Desk, spans: Spans
) -> None:
    """The SDK tells the model of it and goes on; its own span says it in a text."""

    @function_tool
    def broken() -> str:
        raise LookupError

    desk.wait(desk.run(desk.agent("tool=broken", tools=[broken])))

    found = endings(spans)
    assert found["execute_tool broken"] == ("error", "return")
    assert found["invoke_agent triage"] == ("ok", "return")
    assert spans.named("execute_tool broken").span.attributes["error.type"] == (  # type: ignore[index]  # it has some
        "LookupError"
    )


def test_a_run_in_another_thread_ends_like_any(
    server: ModelServer, spans: Spans
) -> None:
    """`run_sync` keeps a loop for each thread, in which the run is."""

    def work() -> None:
        desk = Desk(server.base_url)
        try:
            agents.Runner.run_sync(desk.agent("ok"), "hello", run_config=desk.config())
        finally:
            loop = asyncio.get_event_loop()
            loop.run_until_complete(desk.client.close())
            loop.close()
            asyncio.set_event_loop(None)

    with agenttrace.span("request"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(PATIENCE)

    found = endings(spans)
    assert set(found.values()) == {("ok", "return")}
    assert len(found) == 6
    assert spans.traces() == 1


def test_a_run_that_goes_on_is_not_ended_when_another_begins(
    desk: Desk, spans: Spans
) -> None:
    """Several at once are the rule."""

    async def both() -> None:
        await asyncio.gather(*(desk.run(desk.agent("ok;delay=0.05")) for _ in "abc"))

    desk.wait(both())

    assert set(endings(spans).values()) == {("ok", "return")}
    assert spans.traces() == 3
