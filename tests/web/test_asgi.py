"""The ASGI middleware, in FastAPI behind uvicorn, with clients that leave."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import websockets.sync.client
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI
from opentelemetry.trace import SpanKind
from starlette.middleware.base import BaseHTTPMiddleware

import agenttrace
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.context.request import current_request
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.model_server import ModelServer
from tests.context.serving import PATIENCE, served
from tests.context.stage import listening
from tests.web.given import no_collector, one, parent_of, told

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.responses import Response

    from tests.context.runners import Runner

    Spans = Callable[[], list[ReadableSpan]]

LEFT = ("abandoned", "disconnect")
READ = ("ok", "return")


class PassingOn(BaseHTTPMiddleware):
    """A middleware that does nothing, in a task and with a queue of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:  # noqa: ANN401 - as Starlette has it
        """Pass the request on."""
        response: Response = await call_next(request)
        return response


@pytest.fixture(params=["plainly", "around a middleware", "inside a middleware"])
def app(request: pytest.FixtureRequest) -> FastAPI:
    """Return an application in which clients that leave are heard of."""
    app = FastAPI()
    if request.param == "around a middleware":
        app.add_middleware(PassingOn)
    app.add_middleware(AgenttraceMiddleware)
    if request.param == "inside a middleware":
        app.add_middleware(PassingOn)
    return app


def test_a_stream_that_is_read_to_the_end_is_as_it_was(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """The middleware is there for those who leave."""

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        for number in range(3):
            yield f"{number}\n"

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with listening() as heard, served(app, loop) as service:
        lines = service.read("/")

    assert lines == ["0", "1", "2"]
    assert told(spans(), "invoke_agent stream") == (*READ, 3)
    assert heard == []


@pytest.mark.parametrize("kind", ["waiting", "sending"])
@pytest.mark.parametrize("colour", ["async", "plain"])
def test_a_run_whose_client_left_is_abandoned_by_it(
    app: FastAPI, loop: Runner, spans: Spans, colour: str, kind: str
) -> None:
    """Also where Starlette keeps it in a reference cycle, with nobody collecting."""
    over = threading.Event()
    go_on = threading.Event()
    block = "x" * (200_000 if kind == "sending" else 1)

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        try:
            with agenttrace.span("step"):
                yield "first\n"
                while kind == "sending":
                    await asyncio.sleep(0)
                    yield block
                await asyncio.Event().wait()
        finally:
            over.set()

    @agenttrace.agent
    def plain() -> Generator[str]:
        try:
            with agenttrace.span("step"):
                yield "first\n"
                if kind == "waiting":
                    go_on.wait(PATIENCE)
                while True:
                    yield block
        finally:
            over.set()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream() if colour == "async" else plain())

    with listening() as heard, no_collector(), served(app, loop) as service:
        assert service.leave("/") == "first"
        go_on.set()
        assert over.wait(PATIENCE)

    ended = spans()
    name = f"invoke_agent {'stream' if colour == 'async' else 'plain'}"
    assert told(ended, name)[:2] == LEFT
    assert told(ended, "step")[:2] == LEFT
    assert parent_of(ended, "step") == name
    assert [line for line in heard if "socket.send() raised" not in line] == []


def test_a_run_is_a_child_of_the_one_server_span_that_fastapi_makes(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """Two of them would be one request told twice."""

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        yield "first\n"

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with served(app, loop) as service:
        service.read("/")

    ended = spans()
    servers = [span.name for span in ended if span.kind is SpanKind.SERVER]
    if not servers:
        pytest.skip("this version of FastAPI makes none")
    assert servers == ["GET /"]
    assert len({span.context.trace_id for span in ended if span.context}) == 1
    run = one(ended, "invoke_agent stream")
    assert run.parent is not None


def test_the_middleware_around_the_whole_application_does_the_same(
    loop: Runner, spans: Spans
) -> None:
    """FastAPI exchanges the tracing context for the one of the headers, inside."""
    app = FastAPI()
    over = threading.Event()

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        try:
            yield "first\n"
            await asyncio.Event().wait()
        finally:
            over.set()

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    with served(AgenttraceMiddleware(AgenttraceMiddleware(app)), loop) as service:
        service.leave("/")
        assert over.wait(PATIENCE)

    assert told(spans(), "invoke_agent stream") == (*LEFT, 1)


def test_the_upstream_request_of_a_run_that_was_left_is_dropped(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """Nobody pays for tokens that nobody reads, though the stream is still held."""
    kept: list[object] = []

    with ModelServer(ModelServer.by_model_name) as models:

        @agenttrace.agent
        async def answer() -> AsyncGenerator[str]:
            client = AsyncOpenAI(base_url=models.base_url, api_key="unused")
            stream = await client.chat.completions.create(
                model="ok;chunks=2000;gap=0.05",
                messages=[{"role": "user", "content": "hello"}],
                stream=True,
            )
            kept.extend((client, stream))
            async for _ in stream:
                yield "word\n" * 20_000

        @app.get("/")
        async def endpoint() -> StreamingResponse:
            run = answer()
            kept.append(run)
            return StreamingResponse(run)

        with no_collector(), served(app, loop) as service:
            service.leave("/")
            models.wait_for_request(1, PATIENCE).wait("client_gone", PATIENCE)

        ended = spans()
        assert told(ended, "invoke_agent answer")[:2] == LEFT
        (chat,) = [span for span in ended if span.name.startswith("chat ")]
        assert told(ended, chat.name)[:2] == LEFT
        assert parent_of(ended, chat.name) == "invoke_agent answer"
        kept.clear()


def test_a_stream_of_the_model_that_nobody_has_begun_to_read_is_dropped_too(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """The request is on its way, and nobody is going to read the answer."""
    kept: list[object] = []

    with ModelServer(ModelServer.by_model_name) as models:

        async def answer() -> AsyncGenerator[str]:
            client = AsyncOpenAI(base_url=models.base_url, api_key="unused")
            stream = await client.chat.completions.create(
                model="ok;chunks=2000;gap=0.05",
                messages=[{"role": "user", "content": "hello"}],
                stream=True,
            )
            kept.extend((client, stream))
            yield "first\n"
            await asyncio.Event().wait()

        @app.get("/")
        async def endpoint() -> StreamingResponse:
            return StreamingResponse(answer())

        with no_collector(), served(app, loop) as service:
            service.leave("/")
            models.wait_for_request(1, PATIENCE).wait("client_gone", PATIENCE)

        (chat,) = [span for span in spans() if span.name.startswith("chat ")]
        assert told([chat], chat.name)[:2] == LEFT
        kept.clear()


def test_work_of_another_task_goes_on_when_the_client_leaves(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """A stream that is between two items is not left if somebody comes again."""
    gone, done = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[None]] = []
    items: list[int] = []
    begun = asyncio.Event()

    @agenttrace.agent
    async def numbers() -> AsyncGenerator[int]:
        for number in range(5):
            yield number

    async def work() -> None:
        async for number in numbers():
            items.append(number)
            if number == 1:
                begun.set()
                await asyncio.to_thread(gone.wait, PATIENCE)
        done.set()

    @app.get("/")
    async def endpoint(background: BackgroundTasks) -> StreamingResponse:
        tasks.append(asyncio.create_task(work()))
        background.add_task(gone.set)

        async def stream() -> AsyncGenerator[str]:
            await begun.wait()
            yield "first\n"
            await asyncio.Event().wait()

        return StreamingResponse(stream(), background=background)

    with served(app, loop) as service:
        service.leave("/")
        assert gone.wait(PATIENCE)
        assert done.wait(PATIENCE)

    assert items == [0, 1, 2, 3, 4]
    assert told(spans(), "invoke_agent numbers") == (*READ, 5)


@pytest.mark.parametrize("leaves", [False, True], ids=["read", "left"])
def test_dependencies_that_yield_end_after_the_response(
    app: FastAPI, loop: Runner, spans: Spans, *, leaves: bool
) -> None:
    """FastAPI ends them itself, in its own time: they returned, whoever left."""
    over = threading.Event()

    @agenttrace.agent
    def plain() -> Generator[str]:
        yield "plain"

    @agenttrace.agent
    async def asynchronous() -> AsyncGenerator[str]:
        yield "asynchronous"
        over.set()

    @app.get("/")
    async def endpoint(
        one: str = Depends(asynchronous),  # noqa: FAST002 - an annotation sees no locals
        two: str = Depends(plain),  # noqa: FAST002 - the same
    ) -> StreamingResponse:
        async def stream() -> AsyncGenerator[str]:
            yield f"{one} {two}\n"
            if leaves:
                await asyncio.Event().wait()

        return StreamingResponse(stream())

    with served(app, loop) as service:
        line = service.leave("/") if leaves else service.read("/")[0]
        assert over.wait(PATIENCE) or leaves

    assert line == "asynchronous plain"
    ended = spans()
    for name in ("invoke_agent plain", "invoke_agent asynchronous"):
        assert told(ended, name)[:2] in ((READ,) if not leaves else (READ, LEFT))


def test_who_asked_hears_of_a_client_that_leaves_and_of_no_other(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """A streamed agent run is cancelled by this."""
    heard: list[str] = []
    over = threading.Event()

    @app.get("/{name}")
    async def endpoint(name: str) -> StreamingResponse:
        request = current_request()
        assert request is not None
        request.on_gone(lambda: heard.append(name))

        async def stream() -> AsyncGenerator[str]:
            try:
                yield "first\n"
                if name == "left":
                    await asyncio.Event().wait()
            finally:
                if name == "left":
                    over.set()

        return StreamingResponse(stream())

    with served(app, loop) as service:
        service.read("/read")
        service.leave("/left")
        assert over.wait(PATIENCE)

    assert heard == ["left"]
    assert spans() is not None


def test_a_websocket_whose_client_left_has_its_run_abandoned(
    app: FastAPI, loop: Runner, spans: Spans
) -> None:
    """The application hears the client's own close code, as without us."""
    codes: list[int] = []
    over = threading.Event()

    @agenttrace.agent
    async def stream() -> AsyncGenerator[str]:
        try:
            while True:
                yield "word"
                await asyncio.sleep(0)
        finally:
            over.set()

    @app.websocket("/ws")
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        run = stream()
        await socket.send_text(await anext(run))
        message = await socket.receive()
        codes.append(message["code"])
        try:
            async for word in run:
                await socket.send_text(word)
        finally:
            await run.aclose()

    with served(app, loop) as service:
        url = f"ws://127.0.0.1:{service.port}/ws"
        with websockets.sync.client.connect(url) as client:
            assert client.recv(timeout=PATIENCE) == "word"
            client.close(4007)
        assert over.wait(PATIENCE)

    assert codes == [4007]
    assert told(spans(), "invoke_agent stream")[:2] == LEFT


# By hand, without a server.


def test_messages_exceptions_and_turns_of_the_loop_are_the_same(spans: Spans) -> None:
    """All of HTTP passes through here; none of it is ours."""
    sent: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})
        raise LookupError(scope["path"])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"body", "more_body": False}

    async def send(message: object) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    async def answered(application: Any) -> tuple[int, list[object], str]:  # noqa: ANN401 - an ASGI application
        sent.clear()
        turns = 0
        scope = {"type": "http", "path": "/there"}
        task = asyncio.ensure_future(application(scope, receive, send))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, list(sent), repr(task.exception())

    async def both() -> list[object]:
        return [
            await answered(app),
            await answered(AgenttraceMiddleware(app)),
        ]

    plain, ours = asyncio.run(both())

    assert ours == plain
    assert spans() == []


def test_the_lifespan_is_passed_on_untouched() -> None:
    """It is no request, and nobody leaves it."""
    seen: list[object] = []

    async def app(*messages: object) -> None:
        await asyncio.sleep(0)
        seen.extend(messages)

    given: Any = ({"type": "lifespan"}, object(), object())
    asyncio.run(AgenttraceMiddleware(app)(*given))

    assert all(one is other for one, other in zip(seen, given, strict=True))
    assert given[0] == {"type": "lifespan"}


def test_a_server_that_fails_to_send_says_that_the_client_has_gone(
    spans: Spans,
) -> None:
    """Servers of a newer specification tell it so, and to nobody else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        del scope, receive
        with agenttrace.span("work"):
            try:
                await send({"type": "http.response.start", "status": 200})
            except OSError:
                raise asyncio.CancelledError from None

    async def fails(_: object) -> None:
        await asyncio.sleep(0)
        raise OSError

    async def main() -> None:
        given: Any = ({"type": "http"}, None, fails)
        with pytest.raises(asyncio.CancelledError):
            await AgenttraceMiddleware(app)(*given)

    asyncio.run(main())

    assert told(spans(), "work")[:2] == LEFT


def test_who_is_told_of_a_leave_after_the_answer_has_not_lost_its_client(
    spans: Spans,
) -> None:
    """Servers say `disconnect` to whoever goes on to listen."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        del scope
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})
        await receive()
        with agenttrace.span("afterwards"):
            raise asyncio.CancelledError

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        given: Any = ({"type": "http"}, receive, send)
        with pytest.raises(asyncio.CancelledError):
            await AgenttraceMiddleware(app)(*given)

    asyncio.run(main())
    collect_garbage()

    assert told(spans(), "afterwards")[:2] == ("cancelled", "cancel")


def test_a_scope_that_is_used_again_is_of_a_new_request(spans: Spans) -> None:
    """The one before is over, and nothing is told of it any more."""
    requests: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        del scope, receive, send
        await asyncio.sleep(0)
        requests.append(current_request())

    async def main() -> None:
        given: Any = ({"type": "http"}, None, None)
        await AgenttraceMiddleware(app)(*given)
        await AgenttraceMiddleware(app)(*given)

    asyncio.run(main())

    assert None not in requests
    assert requests[0] is not requests[1]
    assert spans() == []


def test_who_leaves_after_a_refused_handshake_was_all_there_for_it(
    spans: Spans,
) -> None:
    """A websocket that is answered by HTTP is answered."""
    gone: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        del scope
        await send({"type": "websocket.http.response.body", "body": b"no"})
        await receive()
        request = current_request()
        assert request is not None
        gone.append(request.is_gone)

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"type": "websocket.disconnect"}

    async def send(_: object) -> None:
        await asyncio.sleep(0)

    given: Any = ({"type": "websocket"}, receive, send)
    asyncio.run(AgenttraceMiddleware(app)(*given))

    assert gone == [False]
    assert spans() == []
