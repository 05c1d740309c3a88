"""Requests that are never answered, over real sockets and by real clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from typing import Any

import agenttrace
from tests.hangs import given
from tests.hangs.catalogue import hang


@hang("execute_tool download", "network_wait", kinds=("task",))
async def tool_whose_download_never_comes() -> None:
    """A tool whose HTTP request is never answered."""
    import httpx  # noqa: PLC0415 - not by every program

    async with httpx.AsyncClient(timeout=given.LONG) as client:

        async def fetch() -> None:
            await client.get(given.silent_url())  # here

        @agenttrace.tool
        async def download() -> None:
            await fetch()

        await download()


@hang("chat stall=head", "network_wait", kinds=("task",))
async def model_that_never_answers() -> None:
    """A model request that is never answered."""
    chat = (await given.async_client()).chat.completions
    await chat.create(model="stall=head", messages=given.QUESTION)  # here


@hang("chat stall=mid", "network_wait", kinds=("task",))
async def stream_that_has_gone_silent() -> None:
    """A stream that has begun, and says no more."""
    client = await given.async_client()
    stream = await client.chat.completions.create(
        model="stall=mid", messages=given.QUESTION, stream=True
    )
    async for _ in stream:  # here
        pass


@hang("chat stall=mid;comments=0.2", "network_wait", kinds=("task",))
async def stream_of_keep_alives() -> None:
    """A stream in which nothing comes but keep-alives."""
    client = await given.async_client_of_responses()
    stream = await client.responses.create(
        model="stall=mid;comments=0.2", input="?", stream=True
    )
    async for _ in stream:  # here
        pass


@hang("chat delay=600", "network_wait", kinds=("thread",))
def model_that_never_answers_a_plain_client() -> None:
    """A model request that is never answered, without any event loop."""
    client = given.client()
    client.chat.completions.create(model="delay=600", messages=given.QUESTION)  # here


@hang("chat stall=head", "network_wait", kinds=("thread",))
async def plain_client_in_a_thread() -> None:
    """A plain client, called by a tool in a thread, called by an asynchronous agent."""
    chat = (await asyncio.to_thread(given.client)).chat.completions

    def asks() -> None:
        chat.create(model="stall=head", messages=given.QUESTION)  # here

    @agenttrace.agent
    async def clerk() -> None:
        await asyncio.to_thread(asks)

    await clerk()


@hang("chat never=1", "sleep", kinds=("task",), certain=False)
async def background_response_that_stays_in_progress() -> None:
    """A background response that is polled, and stays `in_progress`."""
    from agenttrace.boundary import pending  # noqa: PLC0415 - here only

    # No setting makes this shorter: half an hour is for deep research.
    pending.SILENCE = 3.0  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition, reportAttributeAccessIssue]
    client = await given.async_client_of_responses()
    asked = await client.responses.create(model="never=1", input="?", background=True)
    while asked.status in {"in_progress", "queued"}:
        await client.responses.retrieve(asked.id)
        await asyncio.sleep(2.0)  # here


@hang("chat never=1", "thread", why="sleeps", kinds=("thread",), certain=False)
def background_response_that_a_thread_polls() -> None:
    """A background response that stays `in_progress`, polled by a plain thread."""
    from agenttrace.boundary import pending  # noqa: PLC0415 - here only

    pending.SILENCE = 3.0  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition, reportAttributeAccessIssue]
    client = given.client_of_responses()
    asked = client.responses.create(model="never=1", input="?", background=True)

    def polls() -> None:
        while True:
            client.responses.retrieve(asked.id)
            time.sleep(2.0)  # here

    thread = threading.Thread(target=polls)
    thread.start()
    thread.join()


@hang("starved", "lock", why="connection of a pool", also=frozenset({"holds"}))
async def connection_pool_that_is_empty() -> None:
    """A request that waits for a connection of a pool whose connections all hang."""
    import httpx  # noqa: PLC0415 - not by every program

    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(limits=limits, timeout=given.LONG) as client:
        has_it = asyncio.Event()

        async def holds() -> None:
            with agenttrace.span("holds"):
                await client.get(given.silent_url(), extensions={"trace": trace})

        async def trace(event: str, _info: object) -> None:
            if event == "http11.receive_response_headers.started":
                has_it.set()

        async def starves() -> None:
            await has_it.wait()
            with agenttrace.span("starved"):
                await client.get(given.silent_url())  # here

        await asyncio.gather(holds(), starves())


@hang("chat err=503", "sleep", kinds=("task",))
async def client_that_tries_again_for_ever() -> None:
    """A client that is told to come back later, each time."""
    client = await given.async_client(max_retries=1_000)
    # Seconds between two attempts: so it is found in one of these pauses.
    client._calculate_retry_timeout = lambda *_, **__: 20.0  # type: ignore[method-assign]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    chat = client.chat.completions
    await chat.create(model="err=503", messages=given.QUESTION)  # here


@hang("read", "network_wait", kinds=("task",))
async def socket_of_the_loop() -> None:
    """A socket that is read by the loop itself."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with agenttrace.span("read"), theirs:
        await asyncio.get_running_loop().sock_recv(ours, 1)  # here


@hang("read", "network_wait", kinds=("task",))
async def stream_of_asyncio() -> None:
    """A `StreamReader` to which nobody writes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", given.silent_port())
    with agenttrace.span("read"):
        await reader.readline()  # here
    writer.close()


@hang("connect", "network_wait", kinds=("thread",))
def handshake_that_is_never_answered() -> None:
    """A TLS handshake with a server that does not answer."""
    context = ssl.create_default_context()
    with agenttrace.span("connect"):
        plain = socket.create_connection(("127.0.0.1", given.silent_port()))
        context.wrap_socket(plain, server_hostname="localhost")  # here


@hang("read", "network_wait", kinds=("thread",))
def socket_of_a_thread() -> None:
    """A socket that a plain thread reads."""
    ours, theirs = socket.socketpair()

    def reads() -> None:
        with agenttrace.span("read"), theirs:
            ours.recv(1)  # here

    thread = threading.Thread(target=reads)
    thread.start()
    thread.join()


async def _warm_agent(model: str, **options: Any) -> tuple[Any, Any]:  # noqa: ANN401 - the SDK's
    """Return the Agents SDK and an agent; another one has made a run by then."""
    import agents  # noqa: PLC0415 - not by every program

    sdk: Any = agents
    sdk.set_tracing_disabled(True)
    client = await given.async_client_of_responses()

    def made(name: str, model: str, **options: Any) -> Any:  # noqa: ANN401 - the SDK's
        answers = sdk.OpenAIResponsesModel(model=model, openai_client=client)
        return sdk.Agent(name=name, model=answers, **options)

    await sdk.Runner.run(made("warm", given.WARM), "?")
    return sdk, made("clerk", model, **options)


@hang("chat stall=head", "network_wait")
async def agent_of_the_agents_sdk() -> None:
    """A run of the Agents SDK whose model never answers."""
    sdk, agent = await _warm_agent("stall=head")
    with agenttrace.span("run"):
        await sdk.Runner.run(agent, "?")  # here


@hang("chat stall=mid", "network_wait")
async def streamed_agent_of_the_agents_sdk() -> None:
    """A streamed run of the Agents SDK whose model has gone silent."""
    sdk, agent = await _warm_agent("stall=mid")
    with agenttrace.span("run"):
        async for _ in sdk.Runner.run_streamed(agent, "?").stream_events():  # here
            pass


@hang("run", "awaiting_nothing", why="event that nobody has set")
async def tool_of_the_agents_sdk() -> None:
    """A tool of the Agents SDK that hangs, in a task that the application never saw."""
    import agents  # noqa: PLC0415 - not by every program

    async def looks_up() -> str:
        """Look it up."""
        await asyncio.Event().wait()  # here
        return ""

    tools: list[Any] = [agents.function_tool(looks_up)]
    sdk, agent = await _warm_agent("tool=looks_up", tools=tools)
    with agenttrace.span("run"):
        await sdk.Runner.run(agent, "?")
