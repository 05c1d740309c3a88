"""A response in the background is one run, from its request to its completion."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import agenttrace
from agenttrace.boundary import pending
from agenttrace.testing import ManualClock
from tests.systems.framework import (
    OK,
    Desk,
    both,
    endings,
    framework,
    read,
    responses,
    server,
    spans,
    tool,
)

if TYPE_CHECKING:
    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans

__all__ = ["responses", "server", "spans"]

SLOW = "ok;chunks=8;gap=0.01"


async def begin(agent: Any) -> Any:  # noqa: ANN401 - the library's
    """Ask *agent* in the background."""
    return await agent.run("hello", options={"background": True})


async def poll(agent: Any, token: Any) -> Any:  # noqa: ANN401 - the library's
    """Ask how that goes."""
    options = {"background": True, "continuation_token": token}
    return await agent.run(options=options)


async def wait_for(agent: Any, reply: Any) -> Any:  # noqa: ANN401 - the library's
    """Poll until it is there."""
    while reply.continuation_token is not None:
        reply = await poll(agent, reply.continuation_token)
    return reply


def open_names() -> list[str]:
    """Return the names of the spans that are open."""
    return [record.name for record in agenttrace.open_spans()]


def test_polls_go_on_in_the_run_that_asked(responses: Desk, spans: Spans) -> None:
    """Without this each poll is a trace of its own, and all of them are green."""
    agent = responses.agent("polls=3")
    names: list[list[str]] = []

    async def work() -> Any:  # noqa: ANN401 - the library's
        with agenttrace.span("caller"):
            reply = await begin(agent)
        names.append(open_names())
        return await wait_for(agent, reply)

    reply = responses.wait(work())

    assert reply.text.startswith("word0")
    assert names == [["invoke_agent keeper", "chat polls=3"]]
    assert spans.tree() == {
        ("caller", None),
        ("invoke_agent keeper", "caller"),
        ("chat polls=3", "invoke_agent keeper"),
    }
    assert len(spans.all()) == 3
    assert endings(spans) - {("caller", OK)} == both(*OK)
    chat = spans.named("chat polls=3")
    assert chat["response.polls"] == 3
    assert chat["response.status"] == "completed"


def test_a_response_that_never_completes_is_stuck(
    responses: Desk, spans: Spans, server: ModelServer
) -> None:
    """However often it is asked for: the question is blamed first, then the run."""
    agent = responses.agent("never=1")
    told: list[set[str]] = []

    with ManualClock() as clock:

        async def work() -> None:
            reply = await begin(agent)
            clock.advance(2 * pending.SILENCE)  # nobody has asked: not stuck
            for _ in range(3):  # queued, in progress, and in progress again
                reply = await poll(agent, reply.continuation_token)
            told.append({name for name, _ in endings(spans)})
            for _ in range(3):
                clock.advance(pending.SILENCE / 3 + 1)
                await poll(agent, reply.continuation_token)
            told.append({name for name, _ in endings(spans)})
            clock.advance(pending.SILENCE + 1)
            told.append({name for name, _ in endings(spans)})
            server.release()
            await wait_for(agent, reply)

        responses.wait(work())

    assert told == [set(), {"chat"}, {"chat", "invoke_agent"}]
    assert endings(spans) == {
        *both("stuck", "watchdog"),
        ("agenttrace.late_finish:", OK),
    }


def test_a_stream_that_was_left_is_taken_up_again(
    responses: Desk, spans: Spans
) -> None:
    """A connection breaks, the work does not: by its token it is the same run."""
    agent = responses.agent(SLOW)
    holds: list[list[int]] = []

    async def half() -> Any:  # noqa: ANN401 - a continuation token
        stream = agent.run("hello", stream=True, options={"background": True})
        token = None
        updates = 0
        async for update in stream:
            token = update.continuation_token or token
            updates += 1
            if updates == 4:
                break
        if hasattr(stream, "close"):
            await stream.close()
        return token

    async def work() -> None:
        token = await half()
        holds.append([record.holds > 0 for record in agenttrace.open_spans()])
        options = {"background": True, "continuation_token": token}
        again = agent.run(stream=True, options=options)
        await read(again)

    responses.wait(work())

    assert holds[0][-1] or not hasattr(framework.ResponseStream, "close")
    assert spans.tree() == {
        ("invoke_agent keeper", None),
        (f"chat {SLOW}", "invoke_agent keeper"),
    }
    assert len(spans.all()) == 2
    assert endings(spans) == both(*OK)


def test_its_tools_run_beneath_it(responses: Desk, spans: Spans) -> None:
    """What the answer asks for is done when it is there, and asked about again."""
    model = "tool=look_up;polls=1"

    @tool
    def look_up() -> str:
        """Look it up."""
        return "42"

    agent = responses.agent(model, tools=[look_up])

    async def work() -> None:
        await wait_for(agent, await begin(agent))

    responses.wait(work())

    assert spans.tree() == {
        ("invoke_agent keeper", None),
        (f"chat {model}", "invoke_agent keeper"),
        ("execute_tool look_up", "invoke_agent keeper"),
    }
    assert {ending for _, ending in endings(spans)} == {OK}
    assert spans.traces() == 1


def test_several_at_a_time_are_told_apart(responses: Desk, spans: Spans) -> None:
    """By the token, which names the response."""
    agents = [responses.agent("polls=2", name=f"keeper{number}") for number in range(3)]

    async def work() -> None:
        replies = await asyncio.gather(*map(begin, agents))
        await asyncio.gather(*map(wait_for, agents, replies))

    responses.wait(work())

    assert spans.traces() == 3
    assert len(spans.all()) == 6
    assert endings(spans) == both(*OK)


def test_a_poll_that_is_cancelled_does_not_end_it(
    responses: Desk, spans: Spans
) -> None:
    """The response goes on at the server, whoever stops waiting."""
    agent = responses.agent("polls=1")

    async def work() -> list[str]:
        reply = await begin(agent)
        task = asyncio.create_task(poll(agent, reply.continuation_token))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        still = open_names()
        await wait_for(agent, reply)
        return still

    assert responses.wait(work()) == ["invoke_agent keeper", "chat polls=1"]
    assert endings(spans) == both(*OK)
