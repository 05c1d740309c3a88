"""Streamed runs of the Agents SDK in requests whose clients leave, behind uvicorn."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import function_tool
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.context.request import current_request
from tests.context.serving import PATIENCE, served
from tests.instrumentation.given_agents import STALLED, Desk, hear_all, until
from tests.web.given import told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from agenttrace.context.request import Request
    from agenttrace.testing.model_server import ModelServer
    from tests.context.runners import Runner

    Spans = Callable[[], list[ReadableSpan]]

LEFT = ("abandoned", "disconnect")
READ = ("ok", "return")
RUN = "invoke_workflow Agent workflow"


@pytest.fixture(autouse=True)
def _traced(spans: Spans) -> Iterator[None]:
    assert spans() == []
    agents.set_trace_processors([])
    agenttrace.instrument("openai-agents")
    yield
    agents.set_trace_processors([])


@pytest.fixture
def app() -> FastAPI:
    """Return an application in which clients that leave are heard of."""
    app = FastAPI()
    app.add_middleware(AgenttraceMiddleware)
    return app


def of_now() -> Request:
    """Return the request that is served."""
    request = current_request()
    assert request is not None
    return request


def nothing_of_the_run() -> bool:
    """Return whether the run and all below it have ended."""
    return all("workflow" not in span.name for span in agenttrace.open_spans())


async def waits_for_ever() -> AsyncGenerator[str]:
    """Be a response that its client leaves."""
    yield "first\n"
    await asyncio.Event().wait()


def test_a_run_of_a_task_of_its_own_goes_on_when_the_client_leaves(
    app: FastAPI, loop: Runner, spans: Spans, models: ModelServer
) -> None:
    """The task listens, whoever has left."""
    answers: list[object] = []
    tasks: list[asyncio.Task[None]] = []
    done = threading.Event()
    begun = asyncio.Event()

    async def job(request: Request) -> None:
        @function_tool
        async def wait() -> str:
            begun.set()
            await until(lambda: request.is_over)
            return "waited"

        desk = Desk(models.base_url)
        try:
            result = desk.stream(desk.agent("tool=wait", tools=[wait]))
            await hear_all(result)
            answers.append(result.final_output)
        finally:
            await desk.client.close()
            done.set()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        tasks.append(asyncio.create_task(job(of_now())))
        await begun.wait()
        return StreamingResponse(waits_for_ever())

    with served(app, loop) as service:
        service.leave("/")
        assert done.wait(PATIENCE)

    assert answers != [None]
    assert told(spans(), RUN)[:2] == READ


def test_a_run_that_starts_when_its_request_is_over_goes_on(
    app: FastAPI, loop: Runner, spans: Spans, models: ModelServer
) -> None:
    """It was never there for the client."""
    tasks: list[asyncio.Task[None]] = []
    done = threading.Event()

    async def job(request: Request) -> None:
        await until(lambda: request.is_over)
        desk = Desk(models.base_url)
        try:
            await hear_all(desk.stream(desk.agent("ok")))
        finally:
            await desk.client.close()
            done.set()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        tasks.append(asyncio.create_task(job(of_now())))
        return StreamingResponse(waits_for_ever())

    with served(app, loop) as service:
        service.leave("/")
        assert done.wait(PATIENCE)

    assert told(spans(), RUN)[:2] == READ


def test_a_run_of_a_background_task_goes_on_when_the_client_has_left(
    app: FastAPI, loop: Runner, spans: Spans, models: ModelServer
) -> None:
    """Such a task is for what comes after the answer, or what there was of it."""
    done = threading.Event()

    async def job() -> None:
        desk = Desk(models.base_url)
        try:
            await hear_all(desk.stream(desk.agent("ok")))
        finally:
            await desk.client.close()
            done.set()

    @app.get("/")
    async def endpoint(background: BackgroundTasks) -> StreamingResponse:
        background.add_task(job)
        return StreamingResponse(waits_for_ever(), background=background)

    with served(app, loop) as service:
        service.leave("/")
        assert done.wait(PATIENCE)

    assert told(spans(), RUN)[:2] == READ


@pytest.mark.parametrize("where", ["waiting", "between two events"])
def test_a_run_that_streams_the_answer_stops_when_the_client_leaves(
    app: FastAPI, loop: Runner, spans: Spans, models: ModelServer, where: str
) -> None:
    """Wherever it is: nobody pays for tokens that nobody reads."""
    kept: list[Any] = []
    over = threading.Event()

    async def answer() -> AsyncGenerator[str]:
        desk = Desk(models.base_url)
        result = desk.stream(desk.agent(STALLED))
        events = result.stream_events()
        kept.extend((desk, result, events))
        async for event in events:
            if event.type == "raw_response_event":
                yield "word\n"
                if where == "between two events":
                    await asyncio.Event().wait()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(answer())

    @app.get("/over")
    async def is_over() -> str:
        await until(nothing_of_the_run)
        await kept[0].client.close()
        over.set()
        return "over"

    with served(app, loop) as service:
        service.leave("/")
        service.read("/over")
        kept.clear()

    assert over.is_set()
    assert told(spans(), RUN)[:2] == LEFT


def test_a_run_that_is_awaited_is_abandoned_by_the_client_that_leaves(
    app: FastAPI, loop: Runner, spans: Spans, models: ModelServer
) -> None:
    """Its own spans say what the generator around it says, and so does a bare trace."""
    over = threading.Event()

    async def answer() -> AsyncGenerator[str]:
        desk = Desk(models.base_url)
        try:
            with agents.trace("outer"):
                yield "first\n"
                await desk.run(desk.agent(STALLED))
        finally:
            await desk.client.close()
            over.set()

    async def waiting() -> AsyncGenerator[str]:
        with agents.trace("bare"):
            yield "first\n"
            await asyncio.Event().wait()

    @app.get("/run")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(answer())

    @app.get("/bare")
    async def bare() -> StreamingResponse:
        return StreamingResponse(waiting())

    @app.get("/over")
    async def is_over() -> str:
        await until(nothing_of_the_run)
        return "over"

    with served(app, loop) as service:
        service.leave("/run")
        assert over.wait(PATIENCE)
        service.leave("/bare")
        service.read("/over")

    ended = spans()
    for name in ("invoke_workflow outer", "invoke_workflow bare"):
        assert told(ended, name)[:2] == LEFT


def test_runs_that_are_over_are_not_kept_in_mind_by_a_long_request(
    loop: Runner, spans: Spans, models: ModelServer
) -> None:
    """A websocket may be open for days."""
    listeners: list[int] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        del scope, receive, send
        desk = Desk(models.base_url)
        kept: list[object] = []
        for _ in range(2):
            result = desk.stream(desk.agent("ok"))
            await hear_all(result)
            kept.append(result)
        await desk.client.close()
        listeners.append(len(of_now()._listeners))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # who is kept cannot be seen otherwise

    given: Any = ({"type": "websocket"}, None, None)
    loop.run(AgenttraceMiddleware(socket)(*given))

    assert listeners == [0]
    assert len([span for span in spans() if span.name == RUN]) == 2
