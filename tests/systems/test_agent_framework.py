"""Spans of Microsoft's Agent Framework end with the truth, whichever way a run does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.instrumentation import openai as client
from agenttrace.testing.garbage import collect_garbage
from tests.systems.framework import (
    LONG,
    OK,
    PATIENCE,
    STALLED,
    Desk,
    both,
    desk,
    endings,
    framework,
    read,
    responses,
    server,
    spans,
    tool,
    until_asked,
)

if TYPE_CHECKING:
    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans

__all__ = ["desk", "responses", "server", "spans"]

can_be_closed = pytest.mark.skipif(
    not hasattr(framework.ResponseStream, "close"),
    reason="streams of this version cannot be closed",
)


@tool
def look_up() -> str:
    """Look it up."""
    return "42"


def test_a_model_call_is_one_span_beneath_its_run(desk: Desk, spans: Spans) -> None:
    """The framework tells of it, and so does the client: it is one question."""
    desk.wait(desk.agent("tool=look_up", tools=[look_up]).run("hello"))

    assert spans.tree() == {
        ("invoke_agent keeper", None),
        ("chat tool=look_up", "invoke_agent keeper"),
        ("execute_tool look_up", "invoke_agent keeper"),
    }
    assert len(spans.all()) == 4
    assert {ending for _, ending in endings(spans)} == {OK}
    scopes = [span.instrumentation_scope for span in spans.all()]
    assert {scope.name for scope in scopes if scope} == {"agent_framework"}
    # Only the client knows it.
    asked = [span for span in spans.all() if span.name.startswith("chat")]
    knows = {"server.port" in (span.attributes or {}) for span in asked}
    assert knows == {client.INSTRUMENTOR.is_on()}


def test_a_streamed_model_call_is_one_span_too(desk: Desk, spans: Spans) -> None:
    """It is current in each pull, so what the client does is found beneath it."""
    updates = desk.wait(read(desk.agent(LONG).run("hello", stream=True)))

    assert spans.tree() == {
        ("invoke_agent keeper", None),
        (f"chat {LONG}", "invoke_agent keeper"),
    }
    assert endings(spans) == both(*OK)
    assert spans.named("invoke_agent keeper")["items"] == updates
    assert spans.named(f"chat {LONG}")["operation.name"] == "chat"


def test_a_final_response_is_a_stream_read_to_its_end(desk: Desk, spans: Spans) -> None:
    """Whoever wants the whole pulls it all the same."""

    async def work() -> Any:  # noqa: ANN401 - the library's
        return await desk.agent(LONG).run("hello", stream=True).get_final_response()

    reply = desk.wait(work())

    assert reply.text.startswith("word0")
    assert endings(spans) == both(*OK)


def test_an_agent_as_a_tool_runs_beneath_the_tool(desk: Desk, spans: Spans) -> None:
    """The tree is the one that people draw on a whiteboard."""
    sub = desk.agent("ok", name="sub").as_tool(name="sub", arg_name="task")
    model = 'tool=sub;toolargs={"task": "x"}'

    desk.wait(desk.agent(model, tools=[sub]).run("hello"))

    assert spans.tree() >= {
        ("invoke_agent keeper", None),
        ("execute_tool sub", "invoke_agent keeper"),
        ("invoke_agent sub", "execute_tool sub"),
        ("chat ok", "invoke_agent sub"),
    }
    assert {ending for _, ending in endings(spans)} == {OK}


def test_a_stream_read_in_two_tasks_ends_well(desk: Desk, spans: Spans) -> None:
    """What the first task has set is not the second one's to reset."""

    async def work() -> int:
        stream = desk.agent(LONG).run("hello", stream=True)
        first = await asyncio.create_task(read(stream, 3))
        return first + await asyncio.create_task(read(stream))

    updates = desk.wait(work())

    assert endings(spans) == both(*OK)
    assert spans.named("invoke_agent keeper")["items"] == updates
    assert spans.traces() == 1


@can_be_closed
def test_a_stream_closed_in_another_task_is_abandoned(desk: Desk, spans: Spans) -> None:
    """A clean-up task closes what a request has opened."""

    async def work() -> None:
        stream = desk.agent(LONG).run("hello", stream=True)
        await asyncio.create_task(read(stream, 3))
        await asyncio.create_task(stream.close())

    desk.wait(work())

    assert endings(spans) == both("abandoned", "close")
    assert spans.named("invoke_agent keeper")["items"] == 3


@can_be_closed
def test_leaving_the_block_of_a_stream_abandons_it(desk: Desk, spans: Spans) -> None:
    """By `break`, or by what the consumer raises: it did not come out of the run."""

    async def work() -> None:
        async with desk.agent(LONG).run("hello", stream=True) as stream:
            async for _ in stream:
                break
        with contextlib.suppress(LookupError):
            async with desk.agent(LONG).run("hello", stream=True) as stream:
                async for _ in stream:
                    raise LookupError

    desk.wait(work())

    assert endings(spans) == both("abandoned", "close")
    assert len(spans.all()) == 4


@can_be_closed
def test_a_stream_closed_after_its_last_word_is_complete(
    desk: Desk, spans: Spans
) -> None:
    """Many a consumer stops at the finish reason, and closes."""

    async def work() -> None:
        async with desk.agent(LONG).run("?", stream=True) as stream:
            async for update in stream:
                if update.finish_reason:
                    break

    desk.wait(work())

    assert endings(spans) == both(*OK)


def test_a_stream_that_is_dropped_is_abandoned(desk: Desk, spans: Spans) -> None:
    """The framework ends its spans then as if all had been read."""

    async def work() -> None:
        await read(desk.agent(LONG).run("hello", stream=True), 3)
        for _ in range(3):  # a collected generator is closed by a task of the loop
            collect_garbage()
            await asyncio.sleep(0)

    desk.wait(work())

    assert endings(spans) == both("abandoned", "gc")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_stream_that_is_never_read_is_abandoned(desk: Desk, spans: Spans) -> None:
    """The run was asked for, and nobody wanted it."""

    async def work() -> None:
        desk.agent(LONG).run("hello", stream=True)

    desk.wait(work())
    collect_garbage()

    assert endings(spans) == {("invoke_agent", ("abandoned", "gc"))}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_cancelled_run_is_cancelled(
    desk: Desk, spans: Spans, *, stream: bool
) -> None:
    """`wait_for` and `cancel()` are how people stop an agent."""
    agent = desk.agent(STALLED)

    async def run() -> None:
        if stream:
            await read(agent.run("hello", stream=True))
        else:
            await agent.run("hello")

    async def work() -> None:
        task = asyncio.create_task(run())
        await until_asked(STALLED)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    desk.wait(work())

    assert endings(spans) == both("cancelled", "cancel")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_error_is_an_error_all_the_way_up(
    desk: Desk, spans: Spans, *, stream: bool
) -> None:
    """What it says is the framework's to record, by its own rule for that."""
    agent = desk.agent("err=400")

    async def work() -> None:
        with contextlib.suppress(Exception):
            if stream:
                await read(agent.run("hello", stream=True))
            else:
                await agent.run("hello")

    desk.wait(work())

    assert endings(spans) == both("error", "exception")
    run = spans.named("invoke_agent keeper")
    assert run["error.type"].rpartition(".")[2] == "ChatClientException"
    assert len(run.span.events) <= 1  # the first versions record it, others do not


def test_a_question_that_timed_out_says_so(server: ModelServer, spans: Spans) -> None:
    """The client knows; what the framework makes of it is another exception."""
    agenttrace.instrument("openai")
    desk = Desk(server, "chat", timeout=0.3)

    async def work() -> None:
        with contextlib.suppress(Exception):
            await desk.agent("stall=head").run("hello")

    desk.wait(work())
    desk.stop()

    assert endings(spans) == {
        ("invoke_agent", ("error", "exception")),
        ("chat", ("timed_out", "exception")),
    }


@can_be_closed
def test_a_request_closes_the_stream_that_its_client_left(
    desk: Desk, spans: Spans
) -> None:
    """What keeps it may be a cycle that only the collector would find."""
    kept: list[Any] = []

    async def application(_: object, __: object, send: Any) -> None:  # noqa: ANN401 - ASGI's
        kept.append(desk.agent(LONG).run("hello", stream=True))
        async for _update in kept[0]:
            await send({"type": "http.response.body", "more_body": True})

    async def nobody(_: object) -> None:
        raise OSError

    async def nothing() -> dict[str, Any]:
        return {"type": "http.request"}

    async def work() -> None:
        scope = {"type": "http", "method": "GET", "path": "/"}
        with contextlib.suppress(OSError):
            await AgenttraceMiddleware(application)(scope, nothing, nobody)
        async with asyncio.timeout(PATIENCE):
            while agenttrace.open_spans():  # noqa: ASYNC110 - a task of its own closes it
                await asyncio.sleep(0.01)

    desk.wait(work())

    assert endings(spans) == both("abandoned", "disconnect")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_of_a_loop_that_was_closed_is_lost(
    server: ModelServer, spans: Spans
) -> None:
    """Nobody can read it any more, though somebody has it still."""
    desk = Desk(server, "chat")
    kept: list[Any] = []

    async def work() -> None:
        kept.append(desk.agent(LONG).run("hello", stream=True))
        await read(kept[0], 3)

    desk.wait(work())
    desk.stop()
    kept.clear()
    collect_garbage()

    assert ("invoke_agent", ("lost", "gc")) in endings(spans)


def test_what_goes_on_beside_it_is_not_confused(desk: Desk, spans: Spans) -> None:
    """`gather` runs several agents in one task each: as many traces."""
    agents = [desk.agent(LONG, name=f"keeper{number}") for number in range(4)]

    async def work() -> None:
        await asyncio.gather(*(read(one.run("?", stream=True)) for one in agents))

    desk.wait(work())

    assert spans.traces() == 4
    assert {parent for name, parent in spans.tree() if name.startswith("chat")} == {
        f"invoke_agent keeper{number}" for number in range(4)
    }
    assert endings(spans) == both(*OK)
