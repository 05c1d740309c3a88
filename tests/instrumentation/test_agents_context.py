"""The SDK's current trace and span are left as they were, wherever they are left.

On the stock SDK each of the first ones raises `... was created in a different Context`,
and cuts a response, or leaves a finished trace current for whatever runs next.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import weakref
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Annotated, Any

import agents
import pytest
import uvicorn
from agents import custom_span, get_current_span, get_current_trace, trace
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import trace as otel_trace

import agenttrace
from agenttrace.instrumentation.openai_agents.currents import Current
from tests.context.stage import listening
from tests.instrumentation.given_agents import PATIENCE, Desk, hear, is_word, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans


pytestmark = pytest.mark.usefixtures("spans", "without_vendor")


def current() -> tuple[Any, Any, bool]:
    """Return what is current: the SDK's trace and span, and whether a span of ours."""
    ours = otel_trace.get_current_span().get_span_context().is_valid
    found: Any = get_current_trace()
    return found and found.name, get_current_span(), ours


NOTHING = (None, None, False)


def outcomes(spans: Spans) -> dict[str, str]:
    return {
        span.name: str((span.attributes or {})["agenttrace.outcome"])
        for span in spans.all()
    }


async def traced() -> AsyncGenerator[int]:
    """Be what an application returns as a stream."""
    with trace("wf"), custom_span("step"):
        for item in range(3):
            yield item


def test_a_generator_may_be_finished_in_another_task(spans: Spans) -> None:
    """As a server does that takes the first item to see whether there is one."""

    async def handed_over() -> Any:  # noqa: ANN401 - what is current
        stream = traced()
        await asyncio.create_task(anext(stream))

        async def rest() -> list[int]:
            return [item async for item in stream]

        assert await asyncio.create_task(rest()) == [1, 2]
        return current()

    assert asyncio.run(handed_over()) == NOTHING
    assert outcomes(spans) == {"invoke_workflow wf": "ok", "step": "ok"}


def test_a_generator_that_another_task_closes_leaves_nothing_current(
    spans: Spans,
) -> None:
    """The stock SDK goes on seeing the finished trace where it was begun."""

    async def closed_elsewhere() -> Any:  # noqa: ANN401 - what is current
        stream = traced()
        await anext(stream)
        await asyncio.create_task(stream.aclose())
        return current()

    assert asyncio.run(closed_elsewhere()) == NOTHING
    assert set(outcomes(spans).values()) == {"abandoned"}


def test_a_generator_that_is_dropped_leaves_nothing_current(spans: Spans) -> None:
    """What is started next in that task is a run of its own."""

    async def dropped() -> Any:  # noqa: ANN401 - what is current
        async for _ in traced():
            break
        await until(lambda: agenttrace.open_spans() == ())
        return current()

    assert asyncio.run(dropped()) == NOTHING
    assert set(outcomes(spans).values()) == {"abandoned"}


def test_a_decorated_generator_has_its_trace_inside_only(spans: Spans) -> None:
    """Its consumer sees nothing of it, in between too."""

    @agenttrace.agent
    async def answer() -> AsyncGenerator[str | None]:
        with trace("wf"):
            for _ in range(2):
                found: Any = get_current_trace()
                yield found and found.name

    async def consumed() -> list[Any]:
        seen: list[Any] = []
        async for name in answer():
            seen += [name, current()]
        return seen

    assert asyncio.run(consumed()) == ["wf", NOTHING, "wf", NOTHING]
    assert outcomes(spans)["invoke_workflow wf"] == "ok"


def test_a_trace_may_be_started_and_finished_anywhere(spans: Spans) -> None:
    """By hand: in an endpoint, and at the end of what it returned."""

    async def by_hand() -> Any:  # noqa: ANN401 - what is current
        begun = trace("wf")
        begun.start(mark_as_current=True)

        async def later() -> None:
            begun.finish(reset_current=True)
            begun.finish(reset_current=True)

        await asyncio.create_task(later())
        return current()

    assert asyncio.run(by_hand()) == NOTHING
    assert outcomes(spans) == {"invoke_workflow wf": "ok"}


def test_a_trace_may_be_finished_in_another_thread(spans: Spans) -> None:
    """As by a plain generator in a thread pool, each step in a context of its own."""

    def steps() -> Generator[int]:
        with trace("wf"):
            yield 1
            yield 2

    stream = steps()
    errors: list[BaseException] = []

    def step() -> None:
        try:
            next(stream, None)
        except BaseException as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    for _ in range(3):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join(PATIENCE)

    assert errors == []
    assert current() == NOTHING
    assert outcomes(spans) == {"invoke_workflow wf": "ok"}


def test_what_was_started_below_a_trace_keeps_it(spans: Spans) -> None:
    """Work that outlives the block which began it is still part of that run."""

    async def outlived() -> str | None:
        go_on = asyncio.Event()

        async def work() -> str | None:
            await go_on.wait()
            found: Any = get_current_trace()
            with custom_span("late"):
                pass
            return found and str(found.name)

        with trace("wf"):
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
        go_on.set()
        return await task

    assert asyncio.run(outlived()) == "wf"
    assert ("late", "invoke_workflow wf") in spans.tree()


def test_runs_of_one_trace_nest_in_it_and_in_ours(
    server: ModelServer, spans: Spans
) -> None:
    """Spans of either kind are parents of the other."""
    desk = Desk(server.base_url)

    @agenttrace.workflow
    async def intake() -> None:
        with trace("both"):
            await desk.run(desk.agent())
            await desk.run(desk.agent())

    desk.wait(intake())
    desk.stop()

    ended = spans.all()
    assert spans.traces() == 1
    names = [span.name for span in ended]
    assert names.count("run Agent workflow") == 2
    assert names.count("invoke_workflow both") == 1
    assert ended[-1].name == "invoke_workflow intake"


def test_a_run_after_one_that_was_left_is_a_run_of_its_own(
    server: ModelServer, spans: Spans
) -> None:
    """What a listener that broke off was in must not catch what comes next."""
    desk = Desk(server.base_url)

    async def twice() -> None:
        await hear(desk.stream(desk.agent("ok;chunks=5;gap=0.02")))
        await desk.run(desk.agent("ok"))
        await until(lambda: agenttrace.open_spans() == ())

    desk.wait(twice())
    desk.stop()

    assert spans.traces() == 2


def test_what_has_ended_goes_without_the_collector(spans: Spans) -> None:
    """The SDK's spans have inputs and outputs, which may be large."""
    del spans

    def ended() -> weakref.ref[object]:
        with trace("wf"), custom_span("step", {"much": "data"}) as step:
            return weakref.ref(step.span_data)

    gc.collect()
    gc.disable()
    try:
        data = ended()
        assert data() is None
    finally:
        gc.enable()


def test_a_stand_in_is_in_use_before_it_asks_whether_it_is_on() -> None:
    """Else it is taken out in between, and its token is one nobody takes."""
    in_use: list[bool] = []
    standins: list[Current] = []

    def is_on() -> bool:
        in_use.append(standins[0].in_use)
        return False

    variable = contextvars.ContextVar[object]("variable", default=None)
    standins.append(Current("agents-span", variable, is_on))

    token = standins[0].set("value")

    assert in_use == [True]
    assert not standins[0].in_use
    assert variable.get() == "value"
    variable.reset(token)


def in_dependency() -> Generator[None]:
    with trace("dependency"):
        yield


def plain() -> Generator[str]:
    with trace("plain"):
        yield "one "
        yield "two"


async def words(result: agents.RunResultStreaming) -> AsyncGenerator[str]:
    async for event in result.stream_events():
        if is_word(event):
            data: Any = getattr(event, "data", None)
            yield data.delta


def application(desk: Desk) -> FastAPI:
    """Return an application that leaves traces where it did not enter them."""
    app = FastAPI(telemetry={"tracing": False})

    @app.get("/endpoint")
    async def endpoint() -> StreamingResponse:
        begun = trace("endpoint")
        begun.start(mark_as_current=True)

        async def body() -> AsyncGenerator[str]:
            yield "one "
            yield "two"
            begun.finish(reset_current=True)

        return StreamingResponse(body())

    @app.get("/plain")
    async def threaded() -> StreamingResponse:
        return StreamingResponse(plain())

    @app.get("/dependency")
    async def depending(_: Annotated[None, Depends(in_dependency)]) -> str:
        return "one two"

    @app.get("/agent")
    async def agent() -> StreamingResponse:
        async def body() -> AsyncGenerator[str]:
            with trace("agent"):
                async for word in words(desk.stream(desk.agent("text=one two"))):
                    yield word

        return StreamingResponse(body())

    @app.get("/outside")
    async def outside() -> StreamingResponse:
        with trace("outside"):
            return StreamingResponse(words(desk.stream(desk.agent("text=one two"))))

    return app


class Service:
    """A server on a port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> str:
        """Return a whole response."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()
        finally:
            connection.close()


@contextmanager
def serving(desk: Desk) -> Generator[Service]:
    """Run the server in a thread, and its loop with it."""
    sock = socket.create_server(("127.0.0.1", 0))
    service = Service(sock.getsockname()[1])
    config = uvicorn.Config(application(desk), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(_served(server, sock, desk),))
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        sock.close()


async def _served(server: uvicorn.Server, sock: socket.socket, desk: Desk) -> None:
    await server.serve(sockets=[sock])
    await desk.client.close()


@pytest.mark.parametrize(
    "path", ["/endpoint", "/plain", "/dependency", "/agent", "/outside"]
)
def test_a_response_is_whole_wherever_its_trace_was_begun(
    server: ModelServer,
    spans: Spans,
    path: str,
) -> None:
    """The stock SDK cuts the connection, or fails after the answer."""
    desk = Desk(server.base_url)
    with listening() as heard, serving(desk) as service:
        assert service.get(path).strip('"') == "one two"
        assert service.get(path).strip('"') == "one two"

    assert [line for line in heard if "HTTP Request" not in line] == []
    assert agenttrace.open_spans() == ()
    assert set(outcomes(spans).values()) == {"ok"}
    name = path.removeprefix("/")
    assert [s.name for s in spans.all()].count(f"invoke_workflow {name}") == 2
