"""Tasks that wait for one another, or for what never comes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import agenttrace
from tests.hangs.catalogue import hang

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@hang(
    "invoke_agent researcher",
    "awaiting_nothing",
    why="an event that nobody has set",
    kinds=("task",),
)
async def sub_agent_that_awaits_an_event() -> None:
    """A sub-agent that waits for an event that nobody sets."""

    async def waits_for_an_answer() -> None:
        await asyncio.Event().wait()  # here

    @agenttrace.agent
    async def researcher() -> None:
        await waits_for_an_answer()

    @agenttrace.agent
    async def desk() -> None:
        await asyncio.gather(asyncio.sleep(0), researcher())

    await desk()


@hang("consume", "awaiting_nothing", why="queue that is empty", kinds=("task",))
async def queue_that_nobody_fills() -> None:
    """A consumer without a producer."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    with agenttrace.span("consume"):
        await queue.get()  # here


@hang("produce", "awaiting_nothing", why="queue that is full", kinds=("task",))
async def queue_that_nobody_empties() -> None:
    """A producer whose consumer has gone."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    with agenttrace.span("produce"):
        for item in range(3):
            await queue.put(item)  # here


@hang("left", "lock", why="a lock", kinds=("task",), also=frozenset({"right"}))
async def two_tasks_in_a_deadlock() -> None:
    """Two tasks, each of which has the lock that the other one waits for."""
    first, second = asyncio.Lock(), asyncio.Lock()
    has_first, has_second = asyncio.Event(), asyncio.Event()

    async def takes_second() -> None:
        with agenttrace.span("left"):
            async with first:
                has_first.set()
                await has_second.wait()
                async with second:  # here
                    pass

    async def takes_first() -> None:
        with agenttrace.span("right"):
            async with second:
                has_second.set()
                await has_first.wait()
                async with first:
                    pass

    await asyncio.gather(takes_second(), takes_first())


@hang("limited", "lock", why="a semaphore", kinds=("task",))
async def semaphore_that_nobody_gives_back() -> None:
    """A semaphore for model calls whose last holder has failed to give it back."""
    calls = asyncio.Semaphore(1)
    await calls.acquire()
    with agenttrace.span("limited"):
        async with calls:  # here
            pass


@hang("batch", "awaiting_nothing", why="nobody is at work on", kinds=("task", "task"))
async def task_group_with_one_that_never_ends() -> None:
    """A task group, one member of which waits for a bare future."""

    async def answers() -> None:
        await asyncio.sleep(0.01)

    async def never_answers() -> None:
        await asyncio.get_running_loop().create_future()  # here

    with agenttrace.span("batch"):
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(answers())
            group.create_task(never_answers())


@hang("pipe", "awaiting_nothing", why="queue that is empty", kinds=("task", "task"))
async def memory_stream_of_anyio() -> None:
    """A task group of anyio, one member of which receives what nobody sends."""
    import anyio  # noqa: PLC0415 - not by every program

    sender, receiver = anyio.create_memory_object_stream[str](1)

    async def receives() -> None:
        await receiver.receive()  # here

    with agenttrace.span("pipe"), sender, receiver:
        async with anyio.create_task_group() as group:
            group.start_soon(receives)


@hang("invoke_agent tokens", "awaiting_nothing", kinds=("task",))
async def generator_that_yields_no_more() -> None:
    """A decorated generator that hangs between two items."""

    async def next_token() -> str:
        await asyncio.Event().wait()  # here
        return ""

    @agenttrace.agent
    async def tokens() -> AsyncIterator[str]:
        yield "one"
        yield await next_token()

    async for _ in tokens():
        pass


@hang("execute_tool search", "lock", kinds=("task", "thread", "task"))
async def deadlock_through_async_to_sync() -> None:
    """Synchronous code in between: the lock is held by whoever waits for its thread."""
    from asgiref.sync import (  # noqa: PLC0415 - not by every program
        async_to_sync,
        sync_to_async,
    )

    lock = asyncio.Lock()
    bridge: Any = async_to_sync

    async def needs_the_lock() -> None:
        async with lock:  # here
            pass

    def in_between() -> None:
        bridge(needs_the_lock)()

    @agenttrace.tool
    async def search() -> None:
        async with lock:
            await sync_to_async(in_between)()

    await search()


@hang("poll", "sleep", outcome="timed_out", settings={"max_duration": {":poll": 3.0}})
async def poll_that_never_succeeds() -> None:
    """A loop that polls for ever, and says that it does: `max_duration` ends it."""
    with agenttrace.span("poll"):
        while True:
            agenttrace.heartbeat("not yet")
            await asyncio.sleep(0.5)  # here


@hang("convert", "unknown", why="another process")
async def process_that_never_ends() -> None:
    """A process that is waited for, and never ends."""
    import sys  # noqa: PLC0415 - not by every program

    with agenttrace.span("convert"):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(60)"
        )
        await child.wait()  # here


@hang("queued", "thread", why="no thread of its pool is free", kinds=("task",))
async def pool_whose_threads_are_all_busy() -> None:
    """Work that a pool has not begun, because its threads wait for that very work."""
    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()

        def occupies() -> None:
            pool.submit(print).result()

        loop.run_in_executor(pool, occupies)
        with agenttrace.span("queued"):
            await loop.run_in_executor(pool, print)  # here
