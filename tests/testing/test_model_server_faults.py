"""The model server fails as real ones do, sees clients leave, and stops at once."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from agenttrace.testing.model_server import (
    Exchange,
    ModelServer,
    Reply,
    Request,
    in_turn,
    text,
)

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
Serve = Callable[[Reply], ModelServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that give one reply, and stop them after the test."""
    running: list[ModelServer] = []

    def start(reply: Reply) -> ModelServer:
        server = ModelServer(in_turn(reply))
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


def client_of(server: ModelServer, timeout: float = 10) -> OpenAI:
    return OpenAI(
        base_url=server.base_url, api_key="unused", max_retries=0, timeout=timeout
    )


def causes(error: BaseException | None) -> list[str]:
    """Name an exception and all that it was raised from."""
    names: list[str] = []
    while error is not None:
        names.append(type(error).__name__)
        error = error.__cause__ or error.__context__
    return names


def release_first_request(server: ModelServer) -> None:
    server.wait_for_request()
    server.release()


def ask(client: OpenAI, said: list[str | None], *, stream: bool) -> None:
    """Ask for an answer and read it to its end, noting what comes."""
    if not stream:
        whole = client.chat.completions.create(model="gpt-5", messages=HELLO)
        said.append(whole.choices[0].message.content)
        return
    chunks = client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
    said.extend(chunk.choices[0].delta.content for chunk in chunks)


def request_bytes(*, stream: bool = True, head: str = "") -> bytes:
    body = json.dumps({"model": "gpt-5", "messages": HELLO, "stream": stream}).encode()
    start = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    return f"{start}{head}content-length: {len(body)}\r\n\r\n".encode() + body


def connect(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(65_536):
        received += data
    return bytes(received)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_never_answers_runs_into_the_clients_timeout(
    serve: Serve, *, stream: bool
) -> None:
    """The hang that everybody has, and that ends when the client gives up."""
    server = serve(text("never", stall="head"))

    with (
        client_of(server, timeout=0.1) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model="gpt-5", messages=HELLO, stream=stream)

    server.wait_for_request().wait("client_gone")


def test_a_stream_goes_silent_half_way_until_it_is_released(serve: Serve) -> None:
    """Half of the answer is there first; after the release comes the rest."""
    server = serve(text("one two three four", stall="mid"))

    with client_of(server) as client:
        stream = iter(
            client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
        )
        before = [next(stream).choices[0].delta.content for _ in range(3)]
        state = server.requests[0].state
        server.release()
        after = [chunk.choices[0].delta.content for chunk in stream]

    assert (before, state) == (["", "one", " two"], "open")
    assert after == [" three", " four", None]
    server.requests[0].wait("done")


def test_a_release_before_the_stall_is_not_lost(serve: Serve) -> None:
    """A test that releases early must not hang because it was too quick."""
    server = serve(text("one two", delay=0.05, stall="head"))

    with client_of(server) as client:
        releasing = threading.Thread(target=release_first_request, args=[server])
        releasing.start()
        completion = client.chat.completions.create(model="gpt-5", messages=HELLO)
        releasing.join()

    assert completion.choices[0].message.content == "one two"


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_before_the_head_is_a_lost_connection(
    serve: Serve, *, stream: bool
) -> None:
    """The client sees no HTTP at all, as when a proxy restarts."""
    server = serve(text("never", cut="head"))

    with (
        client_of(server) as client,
        pytest.raises(openai.APIConnectionError) as caught,
    ):
        client.chat.completions.create(model="gpt-5", messages=HELLO, stream=stream)

    assert "RemoteProtocolError" in causes(caught.value)
    server.requests[0].wait("cut")


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_in_the_middle_is_an_incomplete_message(
    serve: Serve, *, stream: bool
) -> None:
    """What was sent before it arrives; then comes the error, not a quiet end."""
    server = serve(text("one two three four", cut="mid"))
    said: list[str | None] = []

    # openai 3 wraps it, openai 2 lets the HTTP library's own exception out.
    with client_of(server) as client, pytest.raises(Exception, match=r".") as caught:
        ask(client, said, stream=stream)

    assert "RemoteProtocolError" in causes(caught.value)
    assert said == (["", "one", " two"] if stream else [])
    server.requests[0].wait("cut")


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_not_json(serve: Serve, *, stream: bool) -> None:
    """Some proxies answer 200 and half an object."""
    server = serve(text("one two three", garbage=True))

    with client_of(server) as client, pytest.raises(Exception, match=r".") as caught:
        ask(client, [], stream=stream)

    assert {"JSONDecodeError", "APIResponseValidationError"} & {*causes(caught.value)}


def test_a_model_that_fails_half_way_says_so_in_the_stream(serve: Serve) -> None:
    """The status was 200 long ago; only the stream can say it."""
    server = serve(text("one two three four", fail="overloaded"))
    said: list[str | None] = []

    with client_of(server) as client:
        with pytest.raises(openai.APIError, match="overloaded"):
            ask(client, said, stream=True)
        with pytest.raises(openai.InternalServerError, match="overloaded"):
            ask(client, said, stream=False)

    assert said == ["", "one", " two"]


def test_dripping_bytes_are_put_together_again(serve: Serve) -> None:
    """Every boundary of the protocol falls between two reads of the client."""
    server = serve(text("für dich", drip=0.0))

    with client_of(server) as client:
        whole = client.chat.completions.create(model="gpt-5", messages=HELLO)
        chunks = client.chat.completions.create(
            model="gpt-5", messages=HELLO, stream=True
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert whole.choices[0].message.content == said == "für dich"


@pytest.mark.parametrize(
    "reply",
    [
        text("one two", stall="mid", keep_alive_comments=0.01),
        text("one two", gap=0.05, keep_alive_comments=0.01),
    ],
)
def test_comments_keep_a_silent_stream_alive(serve: Serve, reply: Reply) -> None:
    """Bytes that are no progress: what a byte-level idle timeout falls for."""
    server = serve(reply)

    with connect(server) as connection:
        connection.sendall(request_bytes(head="connection: close\r\n"))
        received = b""
        while received.count(b": keep-alive") < 2:
            received += connection.recv(65_536)
        server.release()
        received += read_all(connection)

    assert received.index(b"one") < received.index(b": keep-alive")
    assert received.index(b": keep-alive") < received.index(b" two")
    assert b"data: [DONE]" in received


@pytest.mark.asyncio
@pytest.mark.parametrize("stage", ["head", "mid"])
async def test_a_client_that_is_cancelled_is_noticed(serve: Serve, stage: str) -> None:
    """Whether it waits for the head or has read half of a stream."""
    server = serve(text("one two", stall="mid" if stage == "mid" else "head"))
    reading = asyncio.Event()

    async def read(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="gpt-5", messages=HELLO, stream=True
        )
        async for _ in stream:
            reading.set()

    async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:
        task = asyncio.create_task(read(client))
        exchange = await asyncio.to_thread(server.wait_for_request)
        if stage == "mid":
            await reading.wait()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(exchange.wait, "client_gone")

    assert exchange.ended_at is not None
    assert exchange.ended_at >= exchange.started_at


def test_a_client_that_closes_its_stream_is_noticed_between_two_chunks(
    serve: Serve,
) -> None:
    """Not at the next write, which may be a minute away."""
    server = serve(text("one two three", gap=60))

    with client_of(server) as client:
        stream = client.chat.completions.create(
            model="gpt-5", messages=HELLO, stream=True
        )
        next(iter(stream))
        stream.close()

        server.requests[0].wait("client_gone")


def test_a_client_that_does_not_read_stops_the_stream(serve: Serve) -> None:
    """Twenty megabytes are not taken into memory to please nobody."""
    server = serve(text("x" * 20_000_000, chunks=200))

    with connect(server) as connection:
        connection.sendall(request_bytes())
        connection.recv(1)
        state = server.wait_for_request().state

    assert state == "open"
    server.requests[0].wait("client_gone")


def test_a_stall_after_a_single_chunk_is_half_way(serve: Serve) -> None:
    """Where nothing is left to be said, the end of the stream is what is missing."""
    server = serve(text("one", stall="mid"))

    with client_of(server) as client:
        stream = iter(
            client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True)
        )
        said = [next(stream).choices[0].delta.content for _ in range(2)]
        server.release()
        rest = list(stream)

    assert said == ["", "one"]
    assert rest[-1].choices[0].finish_reason == "stop"


def test_half_a_request_is_no_request() -> None:
    """The client broke off while it was still asking."""
    with ModelServer() as server:
        with connect(server) as connection:
            connection.sendall(request_bytes()[:-1])
        with client_of(server) as client:
            client.chat.completions.create(model="gpt-5", messages=HELLO)
        seen = server.requests

    assert len(seen) == 1


def test_a_request_of_a_client_that_has_already_gone_is_seen(serve: Serve) -> None:
    """It was sent, so it counts; nobody waits a minute for nobody."""
    server = serve(text("one", delay=60))

    with connect(server) as connection:
        connection.sendall(request_bytes())

    server.wait_for_request().wait("client_gone")


def test_stopping_ends_what_is_in_flight_at_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Delays, gaps, stalls and a drip; no test waits for another one's faults."""
    replies = [
        text("a b", delay=60),
        text("a b", gap=60),
        text("a b", stall="head"),
        text("a b", stall="mid", keep_alive_comments=30),
        text("a b", drip=60),
    ]
    servers = [serve(reply) for reply in replies]
    connections = [connect(server) for server in servers]
    exchanges: list[Exchange] = []
    for server, connection in zip(servers, connections, strict=True):
        connection.sendall(request_bytes())
        exchanges.append(server.wait_for_request())

    began = time.monotonic()
    for server in servers:
        server.stop()
    took = time.monotonic() - began

    for connection in connections:
        connection.close()
    assert took < 1
    assert [exchange.state for exchange in exchanges] == ["cut"] * len(replies)
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert "agenttrace-models" not in [each.name for each in threading.enumerate()]


def test_it_starts_again_on_its_port() -> None:
    """How a test takes a model away from its client and gives it back."""
    server = ModelServer()
    with server:
        port = server.port
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        with pytest.raises(OSError, match="in use"):
            ModelServer(port=port).start()
    server.stop()

    with server, client_of(server) as client:
        client.chat.completions.create(model="gpt-5", messages=HELLO)

    assert server.port == port


def test_waiting_says_what_happened_instead() -> None:
    """A test that fails must say what it saw, at once where that is final."""
    with ModelServer(remember=1) as server, client_of(server) as client:
        with pytest.raises(TimeoutError, match="0 requests after 0 s, not 1"):
            server.wait_for_request(timeout=0)
        for _ in range(2):
            client.chat.completions.create(model="gpt-5", messages=HELLO)
        exchange = server.wait_for_request(2)
        exchange.wait()

        with pytest.raises(AssertionError, match=r"chat/completions: done>, not cut"):
            exchange.wait("cut", timeout=60)
        with pytest.raises(LookupError, match="forgotten"):
            server.wait_for_request(1)


def test_waiting_for_the_end_of_a_stall_times_out(serve: Serve) -> None:
    """An open exchange is no failure yet, so it is a time-out that is raised."""
    server = serve(text("one", stall="head"))

    with connect(server) as connection:
        connection.sendall(request_bytes())
        exchange = server.wait_for_request()
        with pytest.raises(TimeoutError, match="open> after 0 s, not done"):
            exchange.wait("done", timeout=0)
        exchange.wait("open", timeout=0)


def test_a_reply_that_cannot_be_encoded_is_the_scripts_error(serve: Serve) -> None:
    """The connection breaks, the server lives, the exchange says why."""
    server = serve(text("one", headers={"not a header": "x"}))

    with client_of(server) as client, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    server.requests[0].wait("cut")

    assert server.requests[0].script_error is not None


def test_a_script_that_answers_nonsense_is_a_server_error() -> None:
    """Nobody type-checks a script that is written in a hurry."""

    def script(request: Request) -> Reply:
        return request  # type: ignore[return-value] # the point of the test

    with (
        ModelServer(script) as server,
        client_of(server) as client,
        pytest.raises(openai.InternalServerError, match="a script returns"),
    ):
        client.chat.completions.create(model="gpt-5", messages=HELLO)


def test_requests_that_come_together_are_answered_in_order() -> None:
    """HTTP allows it, and a proxy in between may do it."""
    with ModelServer() as server, connect(server) as connection:
        connection.sendall(request_bytes(stream=False) * 2)
        connection.sendall(request_bytes(stream=False, head="connection: close\r\n"))
        received = read_all(connection)

    assert received.count(b"HTTP/1.1 200") == 3


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    """As curl does with a long prompt, and would wait a second otherwise."""
    head, body = request_bytes(
        stream=False, head="expect: 100-continue\r\nconnection: close\r\n"
    ).split(b"\r\n\r\n")

    with ModelServer() as server, connect(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        asked = connection.recv(1024)
        connection.sendall(body)
        answered = read_all(connection)

    assert asked.startswith(b"HTTP/1.1 100")
    assert answered.startswith(b"HTTP/1.1 200")


def test_what_is_not_http_is_refused() -> None:
    """And leaves no trace: it was no request."""
    with ModelServer() as server, connect(server) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        received = read_all(connection)
        seen = server.requests

    assert received.startswith(b"HTTP/1.1 400")
    assert seen == []


def test_without_the_http_library_it_says_what_to_install() -> None:
    """The server is in the wheel; what it needs comes with an extra."""
    program = (
        "import sys; sys.modules['h11'] = None\nimport agenttrace.testing.model_server"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert "MissingExtraError" in done.stderr
    assert "[demo]" in done.stderr
