"""Models that take their time: requests, streams, background responses, retries."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import agenttrace
from agenttrace.registry import Usual
from tests.hangs import given
from tests.hangs.catalogue import LIMIT, STEP, healthy

_WORDS = "chunks=8"


@healthy(2)
def slow_stream() -> None:
    """A stream with a chunk now and then, for twice as long as it may be silent."""
    client = given.client()
    stream = client.chat.completions.create(
        model=f"gap={STEP};{_WORDS}", messages=given.QUESTION, stream=True
    )
    assert sum(1 for _ in stream) > 1


@healthy(3)
async def slow_stream_of_events() -> None:
    """A streamed response that thinks, and then speaks slowly."""
    client = await given.async_client_of_responses()
    stream = await client.responses.create(
        model=f"delay={STEP};gap={STEP};{_WORDS}", input="?", stream=True
    )
    assert len([event async for event in stream]) > 1


@healthy(2)
async def slow_answer() -> None:
    """A request that is answered when half of its time is over."""
    client = await given.async_client()
    await client.chat.completions.create(
        model=f"delay={LIMIT / 2}", messages=given.QUESTION
    )


@healthy(21)
async def many_slow_streams() -> None:
    """Twenty slow streams at a time."""
    client = await given.async_client()

    async def reads() -> None:
        stream = await client.chat.completions.create(
            model=f"gap={STEP};{_WORDS}", messages=given.QUESTION, stream=True
        )
        async for _ in stream:
            pass

    await asyncio.gather(*(reads() for _ in range(20)))


@healthy(2)
def request_that_is_tried_again() -> None:
    """A request that is refused at first, and answered after a pause."""
    client = given.client(max_retries=1)
    client.chat.completions.create(
        model=f"{given.REFUSED_ONCE}{os.getpid()}", messages=given.QUESTION
    )


@healthy(2)
async def background_response_that_takes_long() -> None:
    """A background response that is `in_progress` for longer than any silence."""
    client = await given.async_client_of_responses()
    asked = await client.responses.create(
        model=f"bg={2 * LIMIT}", input="?", background=True
    )
    while asked.status in ("queued", "in_progress"):
        await asyncio.sleep(STEP / 2)
        asked = await client.responses.retrieve(asked.id)


@healthy(2, settings={"heartbeat_timeout": None})
async def stream_whose_reader_is_busy() -> None:
    """A stream that nobody reads for a while: it is not the model that is silent."""
    from agenttrace.instrumentation.openai import (  # noqa: PLC0415 - here only
        requests,
    )
    from agenttrace.watchdog import watch  # noqa: PLC0415 - here only

    # The usual limits, in small: a setting would hold for an unread stream as well.
    module: Any = requests
    module.FIRST_WORD, module.NEXT_WORD = Usual(LIMIT), Usual(LIMIT / 2)
    judge: Any = watch
    judge.UNREAD = int(3 * LIMIT * 1e9)
    client = await given.async_client()
    stream = await client.chat.completions.create(
        model=f"gap=0.05;{_WORDS}", messages=given.QUESTION, stream=True
    )
    async for _ in stream:
        await asyncio.sleep(LIMIT)
        break
    async for _ in stream:
        pass


# Some steps of the SDK take so long that beside others they do block their loop.
@healthy(7, settings={"loop_blocked_after": 2.0})
async def run_of_the_agents_sdk() -> None:
    """A streamed run of the Agents SDK, with a slow model and a slow tool."""
    import agents  # noqa: PLC0415 - not by every program

    sdk: Any = agents
    sdk.set_tracing_disabled(True)
    client = await given.async_client_of_responses()

    pause = 0.0

    async def looks_up() -> str:
        """Look it up."""
        for _ in range(4):
            await asyncio.sleep(pause)
            agenttrace.heartbeat("still looking")
        return "found"

    def made(model: str) -> Any:  # noqa: ANN401 - the SDK's
        answers = sdk.OpenAIResponsesModel(model=model, openai_client=client)
        tools = [sdk.function_tool(looks_up)]
        return sdk.Agent(name="clerk", model=answers, tools=tools)

    async def runs(model: str) -> None:
        with agenttrace.span("run"):
            streamed = sdk.Runner.run_streamed(made(model), "?")
            async for _ in streamed.stream_events():
                pass

    await runs("tool=looks_up")
    pause = STEP
    await runs(f"tool=looks_up;delay={STEP}")


@healthy(2)
def stream_that_is_read_slowly() -> None:
    """A fast model, and a reader that takes a while over each word."""
    client = given.client()
    stream = client.chat.completions.create(
        model=_WORDS, messages=given.QUESTION, stream=True
    )
    for _ in stream:
        time.sleep(STEP)
