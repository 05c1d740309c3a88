"""Whether anybody waits for a stream: a busy consumer is not the model's silence."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from openai import APITimeoutError, AsyncOpenAI, OpenAI

import agenttrace
from agenttrace.testing.model_server import ModelServer, text
from agenttrace.testing.runtimes import fresh_runtime
from agenttrace.watchdog.report import describe
from tests.watchdog.given import until

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace.watchdog.report import HangReport


@pytest.fixture(autouse=True)
def _traced() -> Generator[None]:
    agenttrace.instrument("openai")
    try:
        with fresh_runtime(on_stuck="off"):
            yield
    finally:
        agenttrace.uninstrument()


@pytest.fixture
def server() -> Generator[ModelServer]:
    """Return one that says some words and goes silent."""
    with ModelServer(lambda _: text("one two three", stall="mid")) as server:
        yield server


@pytest.fixture(params=[False, True], ids=["a root", "inside an agent"])
def around(request: pytest.FixtureRequest) -> Generator[None]:
    """Open a span around, or none: the work of a parent is not that of its stream."""
    with agenttrace.span("agent") if request.param else contextlib.nullcontext():
        yield


def asked(client: Any, api: str) -> Any:  # noqa: ANN401 - of either client, by either API
    """Ask for a stream."""
    if api == "chat":
        said: list[Any] = [{"role": "user", "content": "x"}]
        return client.chat.completions.create(model="m", messages=said, stream=True)
    return client.responses.create(model="m", input="x", stream=True)


def report() -> HangReport:
    """Return what is found of the stream, on a thread of its own."""
    found: list[HangReport] = []
    (record,) = (span for span in agenttrace.open_spans() if span.name == "chat m")

    def look() -> None:
        now = time.time_ns()
        found.append(describe(record, idle=61, limit=60, rule="silence", now=now))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.asyncio
@pytest.mark.usefixtures("around")
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_an_asynchronous_stream_is_left_until_somebody_waits_for_it(
    server: ModelServer, api: str
) -> None:
    """And again, when that one has something else to do."""
    client = AsyncOpenAI(base_url=server.base_url, api_key="unused")
    stream = await asked(client, api)
    await anext(stream)

    unread = report()
    reading = asyncio.create_task(_read(stream))
    await asyncio.to_thread(until, lambda: not report().is_left)
    reading.cancel()
    await asyncio.wait([reading])
    await stream.close()
    await client.close()

    assert unread.is_left


@pytest.mark.usefixtures("around")
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_synchronous_stream_is_left_until_somebody_waits_for_it(
    server: ModelServer, api: str
) -> None:
    """Its consumer is the very thread that has begun it."""
    client = OpenAI(
        base_url=server.base_url, api_key="unused", timeout=60, max_retries=0
    )
    stream = asked(client, api)
    next(stream)

    unread = report()
    reading = threading.Thread(target=_read_here, args=(stream,))
    reading.start()
    until(lambda: not report().is_left)
    server.release()
    reading.join(30)
    stream.close()
    client.close()

    assert unread.is_left


@pytest.mark.asyncio
async def test_a_stream_whose_answer_has_not_begun_is_waited_for() -> None:
    """The request itself is a step of it."""
    with ModelServer(lambda _: text("never", stall="head")) as silent:
        client = AsyncOpenAI(base_url=silent.base_url, api_key="unused")
        asking = asyncio.create_task(asked(client, "chat"))
        await asyncio.to_thread(silent.wait_for_request, 1)
        await asyncio.to_thread(until, lambda: not report().is_left)
        asking.cancel()
        await asyncio.wait([asking])
        await client.close()


async def _read(stream: Any) -> None:  # noqa: ANN401 - an AsyncStream
    async for _ in stream:
        pass


def _read_here(stream: Any) -> None:  # noqa: ANN401 - a Stream
    with contextlib.suppress(APITimeoutError):
        for _ in stream:
            pass
