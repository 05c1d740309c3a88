"""Requests that are never answered, over real sockets and by real clients."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

import agenttrace
from agenttrace.testing.model_server import ModelServer, text, tool_call
from tests.watchdog.hangs import LOOPS, PATIENCE, hang_of, running

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.usefixtures("traced")

Factory = Any


@contextmanager
def silent_server() -> Generator[str]:
    """Listen on loopback and answer nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("factory", LOOPS)
def test_a_request_that_is_never_answered(factory: Factory) -> None:
    """The line to blame is the application's, however deep the client goes."""
    with silent_server() as url:

        async def fetch() -> None:
            async with httpx.AsyncClient(timeout=PATIENCE * 4) as client:
                await client.get(url)

        @agenttrace.tool
        async def download() -> None:
            await fetch()

        with running(download, factory):
            report = hang_of(
                "execute_tool download",
                "network_wait",
                "fetch",
                "await client.get(url)",
            )

    assert report.certain


@pytest.mark.parametrize("factory", LOOPS)
def test_a_model_that_never_answers(factory: Factory) -> None:
    """The span is the request's own, made by the instrumentation."""
    with ModelServer(lambda _: text("never", stall="head")) as server:

        async def asks() -> None:
            async with AsyncOpenAI(base_url=server.base_url, api_key="-") as client:
                await client.chat.completions.create(model="m", messages=[])

        agenttrace.instrument("openai")
        try:
            with running(asks, factory):
                report = hang_of("chat m", "network_wait", "asks")
        finally:
            agenttrace.uninstrument()

    assert report.certain


def test_a_stream_that_has_gone_silent() -> None:
    """It has begun, and then nothing comes; its span is current in its pulls alone."""
    with ModelServer(lambda _: text("one two three", stall="mid")) as server:

        async def reads() -> None:
            async with AsyncOpenAI(base_url=server.base_url, api_key="-") as client:
                stream = await client.chat.completions.create(
                    model="m", messages=[], stream=True
                )
                async for _ in stream:
                    pass

        agenttrace.instrument("openai")
        try:
            with running(reads):
                report = hang_of(
                    "chat m", "network_wait", "reads", "async for _ in stream:"
                )
        finally:
            agenttrace.uninstrument()

    assert report.certain


def test_a_synchronous_client_in_a_thread() -> None:
    """A plain client in a plain tool, called by an asynchronous agent."""
    with ModelServer(lambda _: text("never", stall="head")) as server:

        def asks() -> None:
            with OpenAI(base_url=server.base_url, api_key="-") as client:
                client.chat.completions.create(model="m", messages=[])

        async def calls() -> None:
            with agenttrace.span("ask"):
                await asyncio.to_thread(asks)

        with running(calls, asyncio.new_event_loop, server.release):
            server.wait_for_request(timeout=PATIENCE)
            report = hang_of("ask", "network_wait", "asks")

    assert [link.kind for link in report.links] == ["task", "thread"]


def test_a_pool_whose_connections_are_all_in_use() -> None:
    """It is not the network that it waits for: others have what there is."""
    with silent_server() as url:

        async def holds(client: httpx.AsyncClient) -> None:
            await client.get(url)

        async def starves(client: httpx.AsyncClient) -> None:
            with agenttrace.span("starved"):
                await client.get(url)

        async def both() -> None:
            limits = httpx.Limits(max_connections=1)
            async with httpx.AsyncClient(limits=limits, timeout=PATIENCE * 4) as client:
                holder = asyncio.create_task(holds(client))
                await asyncio.sleep(0.05)
                await asyncio.gather(holder, starves(client))

        with running(both):
            report = hang_of("starved", "lock", "starves")

    assert "connection of a pool" in report.why


@pytest.mark.parametrize("factory", LOOPS)
def test_a_socket_of_the_loop(factory: Factory) -> None:
    """The coroutines of uvloop have no frames: the call is told by its name."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)

    async def reads() -> None:
        with agenttrace.span("read"):
            await asyncio.get_running_loop().sock_recv(ours, 1)

    with running(reads, factory):
        hang_of("read", "network_wait", "reads")
    ours.close()
    theirs.close()


@pytest.mark.parametrize("factory", LOOPS)
def test_a_stream_of_asyncio(factory: Factory) -> None:
    """`StreamReader` waits by a future of its own."""
    with silent_server() as url:
        port = int(url.rpartition(":")[2])

        async def reads() -> None:
            with agenttrace.span("read"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await reader.readline()
                finally:
                    writer.close()

        with running(reads, factory):
            hang_of("read", "network_wait", "reads")


AGENTS: Any = pytest.importorskip("agents")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_an_agent_of_the_agents_sdk_whose_model_never_answers(
    streamed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The SDK spreads one run over several tasks, and a stream over a queue."""
    sdk: Any = import_module("agents")
    with ModelServer(lambda _: text("never", stall="head")) as server:

        async def runs() -> None:
            async with AsyncOpenAI(base_url=server.base_url, api_key="-") as client:
                model = sdk.OpenAIResponsesModel(model="m", openai_client=client)
                agent = sdk.Agent(name="A", model=model)
                with agenttrace.span("run"):
                    if streamed:
                        async for _ in sdk.Runner.run_streamed(
                            agent, "x"
                        ).stream_events():
                            pass
                    else:
                        await sdk.Runner.run(agent, "x")

        with running(runs):
            hang_of("run", "network_wait", "runs")


def test_a_tool_of_the_agents_sdk_that_hangs() -> None:
    """The tool runs in a task that the application has never seen."""
    sdk: Any = import_module("agents")
    with ModelServer(lambda _: tool_call("looks_up")) as server:

        async def looks_up() -> str:
            """Look it up."""
            await asyncio.Event().wait()
            return ""

        async def runs() -> None:
            async with AsyncOpenAI(base_url=server.base_url, api_key="-") as client:
                model = sdk.OpenAIResponsesModel(model="m", openai_client=client)
                tools = [sdk.function_tool(looks_up)]
                agent = sdk.Agent(name="A", model=model, tools=tools)
                with agenttrace.span("run"):
                    await sdk.Runner.run(agent, "x")

        with running(runs):
            report = hang_of("run", "awaiting_nothing", "looks_up")

    assert len(report.links) > 1
