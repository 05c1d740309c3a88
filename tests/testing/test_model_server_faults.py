"""The model server fails as real ones do, and sees its clients leave."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from agenttrace.testing.model_server import (
    ModelServer,
    Reply,
    text,
)
from tests.testing.clients import (
    HELLO,
    client_of,
    connect,
    read_all,
    request_bytes,
)

if TYPE_CHECKING:
    from tests.testing.conftest import Serve


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


def test_half_of_a_plain_answer_is_followed_by_the_other(serve: Serve) -> None:
    """The head says 200 and the length, and still the client waits."""
    server = serve(text("one two", stall="mid"))

    with connect(server) as connection:
        head = "connection: close\r\n"
        connection.sendall(request_bytes(stream=False, head=head))
        received = connection.recv(65_536)
        server.release()
        received += read_all(connection)

    assert received.startswith(b"HTTP/1.1 200")
    body = json.loads(received.partition(b"\r\n\r\n")[2])
    assert body["choices"][0]["message"]["content"] == "one two"


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


def test_a_request_of_a_client_that_has_already_gone_is_seen(serve: Serve) -> None:
    """It was sent, so it counts; nobody waits a minute for nobody."""
    server = serve(text("one", delay=60))

    with connect(server) as connection:
        connection.sendall(request_bytes())

    server.wait_for_request().wait("client_gone")
