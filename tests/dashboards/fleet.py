"""One process of the fleet that the pictures of the dashboards are about.

    python -m tests.dashboards.fleet SERVICE MODEL_URL

Agents that answer, stream, use tools and fail now and then, with the real openai client
against a model server on loopback.  It does what lines on stdin say: `hang` has a tool
wait for what never comes, `give up` cancels that run, `block` has a tool block the
event loop, and the end of stdin ends the process.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import openai

import agenttrace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from openai.types.chat import ChatCompletionMessageParam

PACE = 0.7
"""Seconds between the ends and beginnings of runs, about."""
USUAL_SILENCE = 20.0
SILENCE = 6.0
"""Seconds for which the tool that hangs may be silent."""
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why?"}]


class Fleet:
    """The agents of a service.

    Args:
        client: Asks the model.
    """

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.client = client
        self.chance = random.Random(7)  # noqa: S311 - a picture like the one before
        self.stuck: asyncio.Task[None] | None = None

    @agenttrace.tool
    async def search(self) -> None:
        """Take some time, and now and then no good end."""
        await asyncio.sleep(self.chance.uniform(0.05, 0.6))
        if self.chance.random() < 0.12:
            message = "the index is being rebuilt"
            raise LookupError(message)

    @agenttrace.tool
    async def block(self) -> None:
        """Do what takes long where everybody else waits."""
        time.sleep(2.5)  # noqa: ASYNC251 - the mistake that is to be seen

    @agenttrace.tool(heartbeat_timeout=SILENCE)
    async def approve(self) -> None:
        """Wait for somebody to say yes, which nobody ever does."""
        await asyncio.Event().wait()

    @agenttrace.agent
    async def triage(self) -> None:
        """Look something up and say it."""
        await self.client.chat.completions.create(model="gpt-4o-mini", messages=ASKED)
        await self.search()
        await self.client.chat.completions.create(model="gpt-4o", messages=ASKED)

    @agenttrace.agent
    async def writer(self) -> AsyncGenerator[str]:
        """Answer word by word."""
        stream = await self.client.chat.completions.create(
            model="gpt-4o", messages=ASKED, stream=True
        )
        async with stream:
            async for chunk in stream:
                yield chunk.choices[0].delta.content or "" if chunk.choices else ""

    @agenttrace.agent
    async def refund(self) -> None:
        """Ask somebody who never answers."""
        await self.client.chat.completions.create(model="gpt-4o-mini", messages=ASKED)
        await self.approve()

    @agenttrace.agent
    async def check(self) -> None:
        """Use a tool that keeps everybody waiting."""
        await self.block()

    async def read(self) -> None:
        """Read an answer, and now and then only its beginning."""
        pages = 3 if self.chance.random() < 0.25 else math.inf
        read = 0
        async with aclosing(self.writer()) as words:
            async for _ in words:
                read += 1
                if read > pages:
                    break

    async def go_on(self) -> None:
        """Begin run after run."""
        for number in itertools.count():
            with suppress(LookupError):
                await (self.read() if number % 3 == 2 else self.triage())
            await asyncio.sleep(self.chance.uniform(0.2, 2) * PACE)

    async def obey(self, told: str) -> None:
        """Do what a line says."""
        if told == "hang":
            self.stuck = asyncio.create_task(self.refund())
        elif told == "give up" and self.stuck is not None:
            self.stuck.cancel()
            await asyncio.wait([self.stuck])
        elif told == "block":
            await self.check()


async def main(service: str, model_url: str) -> None:
    """Go on until there is nothing more to be told."""
    runtime = agenttrace.configure(
        service_name=service, loop_blocked_after=0.5, heartbeat_timeout=USUAL_SILENCE
    )
    agenttrace.instrument("openai")
    async with openai.AsyncOpenAI(base_url=model_url, api_key="none") as client:
        fleet = Fleet(client)
        going_on = [asyncio.create_task(fleet.go_on()) for _ in range(3)]
        while told := await asyncio.to_thread(sys.stdin.readline):
            await fleet.obey(told.strip())
        for task in going_on:
            task.cancel()
        await asyncio.wait(going_on)
    runtime.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
