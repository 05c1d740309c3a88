"""Scenarios: time-outs, scopes, groups, threads and executors around and inside it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
from starlette.concurrency import iterate_in_threadpool

import agenttrace
from agenttrace.testing.garbage import collect_garbage
from tests.context.scenarios_of_streams import CLOSED, LEFT, READ, settled, step
from tests.context.stage import CONSUMER, OWN, STEP, Stage, Told, scenario

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

NEVER = 3600


@scenario(body=Told("ok", "return", 2))
async def a_timeout_inside_across_items(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(0.01):
                yield 0
                yield 1
                await asyncio.sleep(NEVER)
        except TimeoutError:
            stage.current_is("invoke_agent body")
            stage.note("timed out", task is asyncio.current_task())

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(body=Told("timed_out", "exception", 1))
async def a_timeout_inside_that_comes_out(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        async with asyncio.timeout(0.01):
            yield 0
            await asyncio.sleep(NEVER)

    try:
        async for item in stage.decorate(body)():
            stage.note(item)
    except TimeoutError as error:
        stage.note(repr(error))
    stage.current_is(CONSUMER)


@scenario(body=Told("cancelled", "cancel", 1))
async def a_timeout_of_the_consumer(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        yield 0
        await asyncio.sleep(NEVER)

    try:
        async with asyncio.timeout(0.01):
            async for item in stage.decorate(body)():
                stage.note(item)
    except TimeoutError as error:
        stage.note(repr(error))
    stage.current_is(CONSUMER)


@scenario(body=Told("ok", "return", 1))
async def an_anyio_scope_inside_across_items(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        with anyio.move_on_after(0.01) as limit:
            yield 0
            await anyio.sleep(NEVER)
        stage.note("scope", limit.cancelled_caught)

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(body=Told("cancelled", "cancel", 1))
async def an_anyio_scope_of_the_consumer(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        yield 0
        await anyio.sleep(NEVER)

    with anyio.move_on_after(0.01) as limit:
        async for item in stage.decorate(body)():
            stage.note(item)
    stage.note("scope", limit.cancelled_caught)
    stage.current_is(CONSUMER)


@scenario("child<body", body=READ)
async def an_anyio_task_group_inside(stage: Stage) -> None:
    async def child() -> None:
        with stage.span("child<body"):
            await anyio.lowlevel.checkpoint()
            stage.current_is("child<body")

    async def body() -> AsyncGenerator[int]:
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child)
                await anyio.lowlevel.checkpoint()
                stage.current_is("invoke_agent body")
                yield number

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario("child<body", body=READ)
async def an_asyncio_task_group_inside(stage: Stage) -> None:
    async def child() -> None:
        with stage.span("child<body"):
            await asyncio.sleep(0)
            stage.current_is("child<body")

    async def body() -> AsyncGenerator[int]:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(child())
                stage.current_is("invoke_agent body")
                yield number

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario("child<body", body=Told("ok", "return", 1))
async def a_task_that_outlives_it_keeps_it_as_parent(stage: Stage) -> None:
    closed = asyncio.Event()

    async def child() -> None:
        await closed.wait()
        stage.current_is("invoke_agent body")
        with stage.span("child<body"):
            stage.current_is("child<body")
        stage.current_is("invoke_agent body")

    async def body() -> AsyncGenerator[int]:
        stage.kept.append(asyncio.create_task(child()))
        yield 0

    async for _ in stage.decorate(body)():
        pass
    closed.set()
    await stage.kept[0]
    stage.current_is(CONSUMER)


@scenario("child<body", "carried<body", body=READ)
async def threads_and_executors_inside(stage: Stage) -> None:
    def child() -> str:
        stage.current_is("invoke_agent body")
        with stage.span("child<body"):
            return OWN.get()

    def carried() -> str:
        with stage.span("carried<body"):
            return OWN.get()

    async def body() -> AsyncGenerator[str]:
        OWN.set("set by body")
        with ThreadPoolExecutor(1) as pool:
            yield await asyncio.to_thread(child)
            loop = asyncio.get_running_loop()
            work = agenttrace.carry(carried) if stage.traced else carried
            yield await loop.run_in_executor(pool, work)
            thread = Thread(target=copy_context().run, args=(child,))
            thread.start()
            await asyncio.to_thread(thread.join)
            yield await anyio.to_thread.run_sync(child)

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(one=Told("ok", "return"), two=Told("error", "exception"))
async def gathered_coroutines(stage: Stage) -> None:
    async def one() -> int:
        stage.current_is("invoke_agent one")
        await asyncio.sleep(0)
        stage.current_is("invoke_agent one")
        return 1

    async def two() -> int:
        await asyncio.sleep(0)
        raise LookupError(2)

    both: list[Awaitable[int]] = [stage.decorate(one)(), stage.decorate(two)()]
    results = await asyncio.gather(*both, return_exceptions=True)
    stage.note(*map(repr, results))
    stage.current_is(CONSUMER)


@scenario(one=Told("ok", "return"), two=Told("cancelled", "cancel"))
async def a_task_group_around(stage: Stage) -> None:
    async def one() -> int:
        await asyncio.sleep(0)
        stage.current_is("invoke_agent one")
        return 1

    async def two() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(stage.decorate(one)())
        other = group.create_task(stage.decorate(two)())
        stage.note(await task)
        other.cancel()
        stage.current_is(CONSUMER)


@scenario(slow=Told("cancelled", "cancel"))
async def waited_for_too_long(stage: Stage) -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    try:
        await asyncio.wait_for(stage.decorate(slow)(), 0.01)
    except TimeoutError as error:
        stage.note(repr(error))
    stage.current_is(CONSUMER)


@scenario(fn=Told("ok", "return"))
async def a_plain_function_in_a_thread(stage: Stage) -> None:
    def fn() -> str:
        stage.current_is("invoke_agent fn")
        OWN.set("set in a copy")
        return OWN.get()

    stage.note(await asyncio.to_thread(stage.decorate(fn)))
    stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def a_plain_generator_in_the_thread_pool(stage: Stage) -> None:
    async for item in iterate_in_threadpool(stage.plain_stream()()):
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def a_plain_generator_in_other_threads(stage: Stage) -> None:
    stream = stage.plain_stream()()

    def advance() -> None:
        stage.note(next(stream, -1))
        stage.current_is(None)

    for _ in range(4):
        thread = Thread(target=advance)
        thread.start()
        await asyncio.to_thread(thread.join)


@scenario(STEP, body=READ)
async def a_plain_generator_in_other_contexts(stage: Stage) -> None:
    stream = stage.plain_stream()()
    for number in range(4):
        context = copy_context() if number % 2 else Context()
        stage.note(context.run(next, stream, -1))
        stage.current_is(CONSUMER)


@scenario(STEP, body=CLOSED)
async def a_plain_generator_closed_in_a_thread(stage: Stage) -> None:
    stream = stage.plain_stream()()
    stage.note(next(stream), next(stream))
    thread = Thread(target=stream.close)
    thread.start()
    await asyncio.to_thread(thread.join)
    stage.current_is(CONSUMER)


@scenario(STEP, body=LEFT)
async def a_plain_generator_left_by_break(stage: Stage) -> None:
    for item in stage.plain_stream()():
        stage.note(item)
        stage.current_is(CONSUMER)
        if item == 1:
            break
    stage.note("after")
    stage.current_is(CONSUMER)


@scenario(STEP, body=LEFT)
async def a_plain_generator_in_a_cycle_for_the_collector(stage: Stage) -> None:
    cycle: list[Any] = [stage.plain_stream()()]
    cycle.append(cycle)
    stage.note(next(cycle[0]), next(cycle[0]))
    del cycle
    collect_garbage()
    stage.note("collected")
    stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def a_queue_between_producer_and_consumer(stage: Stage) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce(stream: AsyncGenerator[int]) -> None:
        while (item := await step(stream)) >= 0:
            await queue.put(item)
            stage.current_is(CONSUMER)
        await queue.put(-1)

    producer = asyncio.create_task(produce(stage.stream()()))
    while (item := await queue.get()) >= 0:
        stage.note(item)
        stage.current_is(CONSUMER)
    await producer
    await settled()
