"""The model server starts, stops, is waited for, and speaks HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import openai
import pytest

from agenttrace.testing.model_server import (
    Exchange,
    ModelServer,
    Reply,
    Request,
    text,
)
from agenttrace.testing.model_server.connection import Connection, Incoming
from tests.testing.clients import (
    HELLO,
    client_of,
    connect,
    read_all,
    request_bytes,
)

if TYPE_CHECKING:
    from tests.testing.conftest import Serve


@pytest.mark.asyncio
async def test_an_answer_to_nobody_is_broken_off() -> None:
    """The request and the end of the connection were read in one go."""
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    reader = asyncio.StreamReader()
    reader.feed_data(request_bytes())
    reader.feed_eof()
    asked: list[str] = []

    async def answer(incoming: Incoming, connection: Connection) -> None:
        asked.append(incoming.target)
        connection.start(200, [])
        with pytest.raises(ConnectionError):
            await connection.finish()
        await asyncio.sleep(60)

    serving = asyncio.create_task(Connection(reader, writer, answer).serve())
    await asyncio.wait([serving])

    theirs.close()
    assert asked == ["/v1/chat/completions"]
    assert serving.cancelled()


def test_half_a_request_is_no_request() -> None:
    """The client broke off while it was still asking."""
    with ModelServer() as server:
        with connect(server) as connection:
            connection.sendall(request_bytes()[:-1])
        with client_of(server) as client:
            client.chat.completions.create(model="gpt-5", messages=HELLO)
        seen = server.requests

    assert len(seen) == 1


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
    before = set(threading.enumerate())
    servers = [serve(reply) for reply in replies]
    connections = [connect(server) for server in servers]
    exchanges: list[Exchange] = []
    for server, connection in zip(servers, connections, strict=True):
        connection.sendall(request_bytes())
        exchanges.append(server.wait_for_request())

    own = set(threading.enumerate()) - before
    began = time.monotonic()
    for server in servers:
        server.stop()
    took = time.monotonic() - began

    for connection in connections:
        connection.close()
    assert took < 10
    assert [exchange.state for exchange in exchanges] == ["cut"] * len(replies)
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert own.isdisjoint(threading.enumerate())


def test_it_starts_again_on_its_port() -> None:
    """How a test takes a model away from its client and gives it back."""
    server = ModelServer()
    server.release()
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
