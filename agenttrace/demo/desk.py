"""The support desk: an ordinary FastAPI application with ordinary agents.

Some of them are plain functions, here, and all that they know of agenttrace are the
decorators and a middleware; the others are `team`'s.  It is written as one would write
it, because what the demo shows must be what a reader gets.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.demo.team import Team

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fastapi.telemetry import TelemetryConfig
    from openai.types.chat import ChatCompletionMessageParam

    from agenttrace.demo.models import Models

PAGE: Final = 20
"""Words that are shown at once; then the reader gets time to read them."""
_READING_TIME: Final = 5.0
_PING: Final = 1.2
# Later versions of FastAPI bring spans along, earlier ones ignore the argument.  They
# would be traced like ours, but the demo is to look the same with all of them.
_NO_SPANS_OF_ITS_OWN: Final[TelemetryConfig] = {
    "auto_configure": False,
    "tracing": False,
    "metrics": False,
    "logs": False,
}


@agenttrace.tool
def ping_router(customer: str) -> str:
    """Measure the line; written by somebody who did not think of the event loop."""
    time.sleep(_PING)
    return f"the line of {customer} is fine"


class Desk:
    """The agents that are functions.

    Args:
        models: Who answers them.
    """

    def __init__(self, models: Models) -> None:
        self.model = models.model
        self.client = models.client()
        self.sync_client = models.sync_client()

    @agenttrace.agent
    async def explain(self, question: str) -> AsyncGenerator[str]:
        """Answer word by word."""
        stream = await self.client.chat.completions.create(
            model=self.model, messages=[_said_by_user(question)], stream=True
        )
        async with stream:
            async for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield choice.delta.content

    @agenttrace.agent
    async def research(self, question: str) -> str:
        """Answer what takes long."""
        completion = await self.client.chat.completions.create(
            model=self.model, messages=[_said_by_user(question)]
        )
        return completion.choices[0].message.content or ""

    @agenttrace.agent
    def summarize(self, question: str) -> str:
        """Answer in a thread, for code that is not asynchronous."""
        completion = self.sync_client.chat.completions.create(
            model=self.model, messages=[_said_by_user(question)]
        )
        return completion.choices[0].message.content or ""

    @agenttrace.agent
    async def check(self, question: str) -> str:
        """Use a tool that keeps everybody else waiting."""
        return f"{question} Yes, {ping_router('1042')}."

    async def close(self) -> None:
        """Let the connections go."""
        await self.client.close()
        self.sync_client.close()


def application(models: Models) -> FastAPI:
    """Return the application in front of the agents."""
    desk = Desk(models)
    team = Team(desk.model, desk.client)
    running: dict[str, asyncio.Task[str]] = {}
    agents = {"research": desk.research, "refund": team.refund}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await desk.close()

    app = FastAPI(lifespan=lifespan, telemetry=_NO_SPANS_OF_ITS_OWN)
    app.add_middleware(AgenttraceMiddleware)

    @app.post("/triage")
    async def triage(question: str) -> str:
        return await team.triage(question)

    @app.get("/explain")
    async def explain(question: str) -> StreamingResponse:
        return StreamingResponse(
            _pages(desk.explain(question)), media_type="text/plain"
        )

    @app.get("/advise")
    async def advise(question: str) -> StreamingResponse:
        return StreamingResponse(_pages(team.advise(question)), media_type="text/plain")

    @app.post("/begin/{agent}", status_code=202)
    async def begin(agent: str, question: str) -> str:
        number = str(len(running) + 1)
        running[number] = asyncio.create_task(agents[agent](question))
        return number

    @app.delete("/begin/{number}")
    async def cancel(number: str) -> str:
        task = running.pop(number)
        task.cancel()
        await asyncio.wait([task])
        return "cancelled" if task.cancelled() else "too late"

    @app.post("/summary")
    def summary(question: str) -> str:
        return desk.summarize(question)

    @app.post("/check")
    async def check(question: str) -> str:
        return await desk.check(question)

    # FastAPI holds them; nobody calls them by name.
    del triage, explain, advise, begin, cancel, summary, check
    return app


async def _pages(words: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Pass *words* on a page at a time, and close them whatever happens."""
    shown = 0
    async with aclosing(words):
        try:
            async for word in words:
                yield word
                shown += 1
                if shown % PAGE == 0:
                    await asyncio.sleep(_READING_TIME)
        except Exception:  # noqa: BLE001 - the answer has begun: what goes wrong can only be told inside it
            yield " [broken off]"


def _said_by_user(question: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": question}
