"""Responses that stream, over real HTTP, from every kind of generator.

Starlette advances a plain generator in another worker thread at each step, FastAPI does
the same with the two halves of a plain dependency, and whoever leaves early is noticed
in a task that is not the generator's.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from starlette.middleware.base import BaseHTTPMiddleware

import agenttrace
from agenttrace import semconv
from tests.context.serving import PATIENCE, served
from tests.context.stage import listening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.responses import Response

    from tests.context.runners import Runner

    Spans = Callable[[], list[ReadableSpan]]


def current() -> str:
    """Return the name of the current span."""
    return str(getattr(trace.get_current_span(), "name", "-"))


class PassingOn(BaseHTTPMiddleware):
    """A middleware that does nothing, in a task and with a queue of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:  # noqa: ANN401 - as Starlette has it
        """Pass the request on."""
        response: Response = await call_next(request)
        return response


@pytest.fixture(params=["plainly", "behind a middleware"])
def app(request: pytest.FixtureRequest) -> FastAPI:
    """Return an application that tells what is current when nothing should be."""
    app = FastAPI(telemetry={"tracing": False})
    if request.param == "behind a middleware":
        app.add_middleware(PassingOn)

    @app.get("/current")
    def tell() -> str:
        return current()

    return app


def told(spans: list[ReadableSpan], name: str) -> tuple[object, object, object]:
    """Return outcome, end and items of the one span called *name*."""
    (span,) = [span for span in spans if span.name == name]
    attributes = span.attributes or {}
    return (
        attributes[semconv.OUTCOME],
        attributes[semconv.ENDED_BY],
        attributes.get(semconv.ITEMS),
    )


def test_fastapi_async_stream_read_to_the_end(
    app: FastAPI, runner: Runner, spans: Spans
) -> None:
    """The span ends with the stream, and not with the endpoint."""

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        with agenttrace.span("step"):
            for _ in range(3):
                await asyncio.sleep(0)
                yield current() + "\n"

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        with agenttrace.span("endpoint"):
            return StreamingResponse(stream())

    with listening() as heard, served(app, runner) as service:
        lines = service.read("/")
        between = service.read("/current")

    ended = spans()
    assert lines == ["step"] * 3
    assert between == ['"-"']
    assert told(ended, "invoke_agent stream") == ("ok", "return", 3)
    assert [s.name for s in ended] == ["endpoint", "step", "invoke_agent stream"]
    assert len({s.context.trace_id for s in ended if s.context}) == 1
    assert heard == []


def test_fastapi_async_stream_client_gone(
    app: FastAPI, runner: Runner, spans: Spans
) -> None:
    """It is cancelled where it waits, and cleans up under its own span."""
    closed: list[str] = []
    over = threading.Event()

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        try:
            yield current() + "\n"
            await asyncio.Event().wait()
        finally:
            closed.append(current())
            over.set()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with listening() as heard, served(app, runner) as service:
        first = service.leave("/")
        assert over.wait(PATIENCE)
        between = service.read("/current")

    assert first == "invoke_agent stream"
    assert closed == ["invoke_agent stream"]
    assert between == ['"-"']
    assert told(spans(), "invoke_agent stream") == ("cancelled", "cancel", 1)
    assert heard == []


def test_fastapi_plain_stream_read_to_the_end(
    app: FastAPI, runner: Runner, spans: Spans
) -> None:
    """Each step is in another thread's context, and each sees the span."""

    @agenttrace.agent
    def stream() -> Generator[str]:
        with agenttrace.span("step"):
            for _ in range(5):
                yield current() + "\n"
        yield current() + "\n"

    @app.get("/")
    def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with listening() as heard, served(app, runner) as service:
        lines = service.read("/")
        between = service.read("/current")

    ended = spans()
    assert lines == ["step"] * 5 + ["invoke_agent stream"]
    assert between == ['"-"']
    assert told(ended, "invoke_agent stream") == ("ok", "return", 6)
    assert told(ended, "step") == ("ok", "return", None)
    assert heard == []


def test_fastapi_plain_stream_client_gone(
    app: FastAPI, runner: Runner, spans: Spans
) -> None:
    """Nobody closes it but the collector, in a thread that it never ran in."""
    gone, over = threading.Event(), threading.Event()
    closed: list[str] = []

    @agenttrace.agent
    def stream() -> Generator[str]:
        try:
            yield current() + "\n"
            gone.wait(PATIENCE)
            while True:
                yield current() + "\n"
        finally:
            closed.append(current())
            over.set()

    @app.get("/")
    def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with listening() as heard, served(app, runner) as service:
        first = service.leave("/")
        gone.set()
        service.read("/current")

    outcome, ended_by, _ = told(spans(), "invoke_agent stream")
    assert over.is_set()
    assert first == "invoke_agent stream"
    assert closed == ["invoke_agent stream"]
    assert (outcome, ended_by) == ("abandoned", "gc")
    assert heard == []


def test_fastapi_dependencies_that_yield(
    app: FastAPI, runner: Runner, spans: Spans
) -> None:
    """The halves of a plain one run in different threads; decorated or not."""

    @agenttrace.agent
    def plain() -> Generator[str]:
        yield current()

    @agenttrace.agent
    async def asynchronous() -> AsyncGenerator[str]:
        yield current()

    def by_block() -> Generator[str]:
        with agenttrace.span("by block"):
            yield current()

    def by_others() -> Generator[str]:
        with trace.get_tracer("other").start_as_current_span("by others"):
            yield current()

    def endpoint(**seen: str) -> StreamingResponse:
        return StreamingResponse(f"{key} {value}\n" for key, value in seen.items())

    dependencies = {
        "plain": plain,
        "asynchronous": asynchronous,
        "by_block": by_block,
        "by_others": by_others,
    }
    for path, dependency in dependencies.items():

        def answer(seen: str = Depends(dependency)) -> StreamingResponse:
            return endpoint(seen=seen)

        app.get(f"/{path}")(answer)

    with listening() as heard, served(app, runner) as service:
        lines = [service.read(f"/{path}") for path in dependencies]
        between = service.read("/current")

    ended = {span.name for span in spans()}
    assert lines == [
        ["seen invoke_agent plain"],
        ["seen invoke_agent asynchronous"],
        ["seen by block"],
        ["seen by others"],
    ]
    assert between == ['"-"']
    assert ended == {
        "invoke_agent plain",
        "invoke_agent asynchronous",
        "by block",
        "by others",
    }
    assert heard == []


@pytest.mark.parametrize("leaves", [False, True], ids=["read", "left"])
def test_fastapi_span_of_the_endpoint_finished_by_the_stream(
    app: FastAPI, runner: Runner, spans: Spans, *, leaves: bool
) -> None:
    """Published recipes do so: begun in one task, and ended in another."""
    over = threading.Event()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        block = agenttrace.span("by hand")
        block.__enter__()

        async def stream() -> AsyncGenerator[str]:
            try:
                for _ in range(3):
                    yield current() + "\n"
                    if leaves:
                        await asyncio.Event().wait()
            finally:
                block.__exit__(None, None, None)
                over.set()

        return StreamingResponse(stream())

    with listening() as heard, served(app, runner) as service:
        lines = [service.leave("/")] if leaves else service.read("/")
        assert over.wait(PATIENCE)
        between = service.read("/current")

    assert lines == ["by hand"] * len(lines)
    assert between == ['"-"']
    assert [span.name for span in spans()] == ["by hand"]
    assert heard == []
