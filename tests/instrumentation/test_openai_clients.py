"""What requests show of their clients: time-outs, and loops that share one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAI

import agenttrace
from agenttrace.noticed import Kind, noticed
from agenttrace.testing.model_server import ModelServer
from agenttrace.testing.runtimes import fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    with fresh_runtime():
        agenttrace.instrument("openai")
        yield
        agenttrace.uninstrument("openai")


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer(ModelServer.by_model_name) as running:
        yield running


async def ask(client: AsyncOpenAI, **options: Any) -> None:  # noqa: ANN401 - of a request
    await client.responses.create(model="ok", input="secret", **options)


def client_of(models: ModelServer, **options: Any) -> AsyncOpenAI:  # noqa: ANN401 - of a client
    return AsyncOpenAI(
        base_url=models.base_url, api_key="unused", max_retries=0, **options
    )


def kinds() -> list[str]:
    return [each.kind for each in noticed()]


def test_a_client_without_a_time_out_of_its_own_is_noticed_once(
    models: ModelServer,
) -> None:
    """Half an hour is what three attempts of ten minutes come to."""

    async def main() -> None:
        async with client_of(models) as client:
            with agenttrace.span("triage"):
                await ask(client)
                await ask(client)

    asyncio.run(main())

    [found] = noticed()
    assert found.kind == Kind.NO_TIMEOUT
    assert found.span == "triage"
    assert "test_openai_clients.py" in found.place
    assert "600 s" in found.detail
    assert "secret" not in str(found)


def test_a_time_out_of_the_client_or_of_the_request_is_enough(
    models: ModelServer,
) -> None:
    """Of a synchronous client too, which may be used on any loop's thread."""

    async def main() -> None:
        async with client_of(models, timeout=20) as client:
            await ask(client)
        async with client_of(models, timeout=openai.Timeout(20)) as client:
            await ask(client)
        async with client_of(models) as client:
            await ask(client, timeout=20)

    asyncio.run(main())
    with OpenAI(base_url=models.base_url, api_key="unused", timeout=20) as client:
        client.responses.create(model="ok", input="hi")
        asyncio.run(asyncio.to_thread(client.responses.create, model="ok", input="hi"))

    assert kinds() == []


def test_a_client_of_two_loops_is_noticed_where_the_second_one_asks(
    models: ModelServer,
) -> None:
    """Its connections are the first loop's; copies of a client have the same ones."""
    # It keeps no connection, which would break in the second loop.
    client = client_of(models, timeout=20, default_headers={"Connection": "close"})

    asyncio.run(ask(client))
    before = kinds()
    for _ in range(2):
        asyncio.run(ask(client.with_options(timeout=10)))

    assert before == []
    assert kinds() == [Kind.CLIENT_SHARED]


@pytest.mark.skipif(
    openai.__version__.startswith("2."),
    reason="openai 2 asks httpx, whose own time-out it is",
)
def test_a_time_out_that_the_http_client_cannot_read_is_noticed(
    models: ModelServer,
) -> None:
    """A published recipe: with openai 3, each request fails with a TypeError."""

    async def main() -> None:
        legacy: Any = httpx.Timeout(60, connect=5)
        http = DefaultAsyncHttpxClient(timeout=legacy)
        async with client_of(models, http_client=http) as client:
            await ask(client)

    with pytest.raises(TypeError):
        asyncio.run(main())

    assert kinds() == [Kind.TIMEOUT_REFUSED]
