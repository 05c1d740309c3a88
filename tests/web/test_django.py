"""Django behind an ASGI and a WSGI server, with clients that leave."""

# Django brings no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

import agenttrace
from agenttrace import semconv
from agenttrace.asgi import AgenttraceMiddleware
from agenttrace.context.request import Request, current_request
from agenttrace.django.middleware import (
    AgenttraceMiddleware as AgenttraceMiddlewareOfDjango,
)
from agenttrace.django.settings import wanted
from tests.context.serving import PATIENCE, Service, served
from tests.web import site
from tests.web.given import attribute, one, parent_of, told

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.context.runners import Runner

    Spans = Callable[[], list[ReadableSpan]]

LEFT = ("abandoned", "disconnect")
READ = ("ok", "return")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
        """Say nothing."""


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that left."""


@contextmanager
def served_by_wsgi() -> Generator[Service]:
    """Serve the project by WSGI, each request in a thread."""
    with _Threads(("127.0.0.1", 0), _Quiet) as server:
        application: Any = get_wsgi_application()
        server.set_app(application)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Service(None, server.server_address[1])
        finally:
            server.shutdown()
            thread.join(PATIENCE)


@pytest.fixture(params=["asgi", "wsgi"])
def gateway(request: pytest.FixtureRequest) -> str:
    """Run the test in both worlds."""
    return str(request.param)


@pytest.fixture
def service(spans: Spans, loop: Runner, gateway: str) -> Generator[Service]:
    """Serve the project, traced from the start."""
    del spans
    site.OVER.clear()
    site.GO_ON.clear()
    if gateway == "asgi":
        with served(get_asgi_application(), loop) as one:
            yield one
    else:
        with served_by_wsgi() as one:
            yield one


only_asgi = pytest.mark.parametrize("gateway", ["asgi"])
only_wsgi = pytest.mark.parametrize("gateway", ["wsgi"])


@pytest.mark.parametrize("view", ["plain", "asynchronous"])
def test_a_run_has_the_right_parents_across_colours_and_threads(
    service: Service, spans: Spans, view: str
) -> None:
    """Django and asgiref move it between loops and threads, with its context."""
    assert service.read(f"/{view}") == ["page"]

    ended = spans()
    assert parent_of(ended, "execute_tool search") == "invoke_agent triage"
    assert parent_of(ended, "invoke_agent triage") == "in the view"
    assert [told(ended, span.name)[:2] for span in ended] == [READ] * 3


@pytest.mark.parametrize("view", ["plain", "asynchronous"])
def test_every_step_says_which_view_it_is_of(
    service: Service, spans: Spans, view: str
) -> None:
    """A step that hangs is looked for by the view that people have called."""
    service.read(f"/{view}")

    for span in spans():
        assert attribute(span, semconv.VIEW) == f"tests.web.site.{view}"
        assert attribute(span, semconv.HTTP_ROUTE) == view


def test_a_view_of_a_class_is_called_by_that(service: Service, spans: Spans) -> None:
    """Its function is called the same in all of them."""
    service.read("/asked/7")

    step = one(spans(), "asked 7")
    assert attribute(step, semconv.VIEW) == "tests.web.site.Asked"
    assert attribute(step, semconv.HTTP_ROUTE) == "asked/<int:number>"


def test_what_a_view_said_is_not_said_of_the_next_request(
    service: Service, spans: Spans
) -> None:
    """Threads and tasks are used again."""
    service.read("/asked/1")
    service.read("/plain")
    with agenttrace.span("elsewhere"):
        pass

    ended = spans()
    assert attribute(one(ended, "in the view"), semconv.VIEW) == "tests.web.site.plain"
    assert attribute(one(ended, "elsewhere"), semconv.VIEW) is None


def test_a_step_that_is_stuck_is_known_by_its_view(
    service: Service, spans: Spans
) -> None:
    """It is told while the view still hangs."""
    answers: list[list[str]] = []
    client = threading.Thread(target=lambda: answers.append(service.read("/stuck")))
    client.start()
    try:
        told_at = threading.Event()
        while not told_at.wait(0.1) and client.is_alive():
            if any(attribute(s, semconv.OUTCOME) == "stuck" for s in spans()):
                told_at.set()
    finally:
        site.GO_ON.set()
        client.join(PATIENCE)

    step = one(spans(), "execute_tool hangs")
    assert told([step], step.name)[:2] == ("stuck", "watchdog")
    assert attribute(step, semconv.VIEW) == "tests.web.site.stuck"
    assert answers == [["at last"]]


@only_asgi
def test_a_view_whose_client_left_is_abandoned_by_it(
    service: Service, spans: Spans, gateway: str
) -> None:
    """Django cancels it; that the client was the cause is known all the same."""
    del gateway
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as client:
        client.sendall(b"GET /waiting HTTP/1.1\r\nHost: x\r\n\r\n")
        while not any(
            span.name == "invoke_agent waits" for span in agenttrace.open_spans()
        ):
            time.sleep(0.01)  # let the server have the processor
    assert site.OVER.wait(PATIENCE)

    run = "invoke_agent waits"
    assert told(settled(spans, run), run)[:2] == LEFT


@only_asgi
def test_a_streamed_run_whose_client_left_is_abandoned_by_it(
    service: Service, spans: Spans, gateway: str
) -> None:
    """Django drops the generator, or keeps it with the response: it is closed."""
    del gateway
    assert service.leave("/streaming") == "first"
    assert site.OVER.wait(PATIENCE)

    run = "invoke_agent streams"
    assert told(settled(spans, run), run) == (*LEFT, 1)


@only_asgi
def test_the_middleware_for_asgi_may_be_there_as_well(
    spans: Spans, loop: Runner, gateway: str
) -> None:
    """Somebody puts it around everything; each request is one all the same."""
    del gateway
    site.OVER.clear()

    with served(AgenttraceMiddleware(get_asgi_application()), loop) as service:
        service.leave("/streaming")
        assert site.OVER.wait(PATIENCE)

    run = one(spans(), "invoke_agent streams")
    assert told([run], run.name) == (*LEFT, 1)
    assert attribute(run, semconv.VIEW) == "tests.web.site.streaming"


@only_wsgi
def test_a_stream_that_a_wsgi_server_closes_early_was_left_by_its_client(
    service: Service, spans: Spans, gateway: str
) -> None:
    """That is how such a server says it."""
    del gateway
    assert service.leave("/counting", chunked=False) == "first"
    site.GO_ON.set()
    assert site.OVER.wait(PATIENCE)

    run = "invoke_agent counts"
    assert told(settled(spans, run), run)[:2] == LEFT


@only_wsgi
def test_a_stream_that_is_read_to_its_end_is_ok(
    service: Service, spans: Spans, gateway: str
) -> None:
    """Its run starts when the view has returned, and is of that view still."""
    del gateway
    assert service.read("/counted") == ["0", "1", "2"]

    run = one(spans(), "invoke_agent three")
    assert told([run], run.name) == (*READ, 3)
    assert attribute(run, semconv.VIEW) == "tests.web.site.counted"


def settled(spans: Spans, name: str) -> list[ReadableSpan]:
    """Return the spans when *name* has ended: it does so after its clean-up."""
    wait = threading.Event()
    for _ in range(PATIENCE * 10):
        if any(span.name == name for span in spans()):
            break
        wait.wait(0.1)
    return spans()


# By hand, without a server.


def streamed(content: Generator[bytes]) -> StreamingHttpResponse:
    """Return the response that the middleware makes of *content*, for WSGI."""
    answer = AgenttraceMiddlewareOfDjango(lambda _: StreamingHttpResponse(content))
    response: StreamingHttpResponse = answer(HttpRequest())
    return response


def test_content_that_fails_was_not_left_by_its_client(spans: Spans) -> None:
    """The server closes it as well, for what is its own failure."""
    requests: list[Any] = []

    def content() -> Generator[bytes]:
        requests.append(current_request())
        yield b"first"
        raise LookupError

    response = streamed(content())
    with pytest.raises(LookupError):
        list(response)
    response.close()

    assert (requests[0].is_gone, requests[0].is_over) == (False, True)
    assert spans() == []


def test_what_closes_early_content_is_done_for_its_request(spans: Spans) -> None:
    """Blocks inside it are to say who left them, as its runs do."""

    def content() -> Generator[bytes]:
        with agenttrace.span("block"):
            yield b"first"

    response = streamed(content())
    steps: Any = response
    next(iter(steps))
    response.close()

    assert told(spans(), "block")[:2] == LEFT


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_the_view_is_told_where_another_tool_exchanged_the_context(
    spans: Spans, *, is_async: bool
) -> None:
    """Instrumentations put that of the headers in its place, before the view."""

    def plain(_: HttpRequest) -> HttpResponse:
        with agenttrace.span("step"):
            return HttpResponse()

    async def asynchronous(_: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        with agenttrace.span("step"):
            return HttpResponse()

    async def answered(answer: Any) -> None:  # noqa: ANN401 - a middleware
        await answer(HttpRequest())

    with Request() as request:
        request.attributes[semconv.VIEW] = "site.view"
        if is_async:
            asyncio.run(answered(AgenttraceMiddlewareOfDjango(asynchronous)))
        else:
            AgenttraceMiddlewareOfDjango(plain)(HttpRequest())

    assert attribute(one(spans(), "step"), semconv.VIEW) == "site.view"


# The setting.

KNOWN = ("service_name", "heartbeat_timeout")


def test_the_setting_names_arguments_of_configure_in_capitals() -> None:
    """As Django's own settings are."""
    asked = wanted({"SERVICE_NAME": "shop", "HEARTBEAT_TIMEOUT": 60}, KNOWN)

    assert asked == ({"service_name": "shop", "heartbeat_timeout": 60}, ())


@pytest.mark.parametrize(
    ("said", "names"),
    [(True, ()), (False, None), (["openai"], ("openai",)), ([], None)],
)
def test_the_setting_says_what_to_instrument(
    said: object, names: tuple[str, ...] | None
) -> None:
    """All that is supported, nothing, or these."""
    assert wanted({"INSTRUMENT": said}, KNOWN).instrument == names


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("shop", "must be a dictionary, not str"),
        ({"SERVICE": "shop"}, "SERVICE: must be of HEARTBEAT_TIMEOUT, INSTRUMENT"),
        ({"service_name": "shop"}, "service_name: must be of"),
        ({"INSTRUMENT": "openai"}, "must be True"),
        ({"INSTRUMENT": [1]}, "must be True"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(
    setting: object, message: str
) -> None:
    """When Django starts, and not when the first request comes."""
    with pytest.raises(ImproperlyConfigured, match=message):
        wanted(setting, KNOWN)
