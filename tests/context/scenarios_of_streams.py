"""Scenarios: who advances, leaves, closes or drops an asynchronous generator, where."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from contextvars import Context, copy_context
from threading import Thread
from typing import TYPE_CHECKING, Any

from agenttrace.testing.garbage import collect_garbage
from tests.context.stage import CONSUMER, OWN, STEP, Stage, Told, scenario

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

READ = Told("ok", "return", 3)
LEFT = Told("abandoned", "gc", 2)
CLOSED = Told("abandoned", "close", 2)


async def step(stream: AsyncGenerator[int]) -> int:
    """Return the next item, -1 at the end."""
    return await anext(stream, -1)


async def settled() -> None:
    """Wait until nothing more happens by itself on the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def take_two(stage: Stage, stream: AsyncGenerator[int]) -> None:
    """Read two items, with nothing of the generator current in between."""
    for _ in range(2):
        stage.note(await step(stream))
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def read_to_the_end(stage: Stage) -> None:
    async for item in stage.stream()():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def read_without_a_turn_of_the_loop(stage: Stage) -> None:
    async for item in stage.stream(hop=False)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def every_step_in_another_task(stage: Stage) -> None:
    stream = stage.stream()()
    for _ in range(4):
        stage.note(await asyncio.create_task(step(stream)))
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def every_step_in_another_context(stage: Stage) -> None:
    stream = stage.stream()()
    for number in range(4):
        context = copy_context() if number % 2 else Context()
        context.run(OWN.set, f"context {number}")
        stage.note(await asyncio.create_task(step(stream), context=context))
        stage.note(context.run(OWN.get))
        stage.current_is(CONSUMER)


@scenario(STEP, body=READ)
async def every_step_in_another_thread_and_loop(stage: Stage) -> None:
    stream = stage.stream()()

    async def advance() -> None:
        stage.note(await step(stream))
        stage.current_is(None)

    # The loop of the first step is the one that closes it when it shuts down.
    stage.note(await step(stream))
    for _ in range(3):
        thread = Thread(target=lambda: stage.runner.run(advance()))
        thread.start()
        await asyncio.to_thread(thread.join)
        stage.current_is(CONSUMER)


@scenario(STEP, body=CLOSED)
async def closed_here(stage: Stage) -> None:
    async with aclosing(stage.stream()()) as stream:
        await take_two(stage, stream)
    stage.current_is(CONSUMER)


@scenario(STEP, body=CLOSED)
async def closed_by_another_task(stage: Stage) -> None:
    stream = stage.stream()()
    await take_two(stage, stream)
    await asyncio.create_task(stream.aclose())
    stage.current_is(CONSUMER)


@scenario(STEP, body=CLOSED)
async def begun_in_one_task_and_closed_in_another_by_no_relation(stage: Stage) -> None:
    stream = stage.stream()()
    await asyncio.create_task(take_two(stage, stream))
    await asyncio.create_task(stream.aclose(), context=Context())
    stage.current_is(CONSUMER)


@scenario()
async def closed_before_its_first_step(stage: Stage) -> None:
    stream = stage.stream()()
    await stream.aclose()
    stage.note(await step(stream))


@scenario()
async def never_iterated(stage: Stage) -> None:
    stream = stage.stream()()
    stage.note(stream.__name__)
    del stream
    await settled()


@scenario(STEP, body=LEFT)
async def left_by_break_and_dropped(stage: Stage) -> None:
    gc.disable()
    try:
        async for item in stage.stream()():
            stage.note(item)
            if item == 1:
                break
        stage.current_is(CONSUMER)
        await settled()
        stage.note("settled")
    finally:
        gc.enable()


@scenario(STEP, body=LEFT)
async def left_in_a_cycle_for_the_collector(stage: Stage) -> None:
    cycle: list[Any] = [stage.stream()()]
    cycle.append(cycle)
    await take_two(stage, cycle[0])
    gc.disable()
    try:
        del cycle
        await settled()
        stage.note("still there")
        collect_garbage()
        await settled()
        stage.note("settled")
    finally:
        gc.enable()


@scenario(STEP, body=CLOSED)
async def left_until_the_loop_shuts_down(stage: Stage) -> None:
    stream = stage.stream()()
    await take_two(stage, stream)
    stage.kept.append(stream)


@scenario(STEP, body=Told("abandoned", "gc"))
async def left_when_the_loop_is_closed_without_a_word(stage: Stage) -> None:
    def elsewhere() -> None:
        stream = stage.stream()()
        loop = stage.runner.new_loop()
        stage.note(loop.run_until_complete(step(stream)))
        stage.note(loop.run_until_complete(step(stream)))
        loop.close()
        stage.current_is(CONSUMER)

    await asyncio.to_thread(elsewhere)


@scenario(work=Told("lost", "gc"))
async def pending_when_the_loop_is_closed_without_a_word(stage: Stage) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    def elsewhere() -> None:
        loop = stage.runner.new_loop()
        task = loop.create_task(stage.decorate(work)())
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        stage.note(task.done())

    await asyncio.to_thread(elsewhere)
    collect_garbage()


@scenario(a=READ, b=READ)
async def two_interleaved_in_one_task(stage: Stage) -> None:
    async def a() -> AsyncGenerator[int]:
        with stage.span("step<a"):
            for number in range(3):
                stage.current_is("step<a")
                await asyncio.sleep(0)
                yield number

    async def b() -> AsyncGenerator[int]:
        for number in range(3):
            with stage.span("step<b"):
                yield number
                stage.current_is("step<b")
            stage.current_is("invoke_agent b")

    one, other = stage.decorate(a)(), stage.decorate(b)()
    for _ in range(4):
        stage.note(await step(one))
        stage.current_is(CONSUMER)
        stage.note(await step(other))
        stage.current_is(CONSUMER)


@scenario(outer=READ, inner=Told("ok", "return", 3, "invoke_agent outer"))
async def one_inside_the_other(stage: Stage) -> None:
    async def inner() -> AsyncGenerator[int]:
        for number in range(3):
            stage.current_is("invoke_agent inner")
            yield number

    decorated = stage.decorate(inner)

    async def outer() -> AsyncGenerator[int]:
        async for number in decorated():
            stage.current_is("invoke_agent outer")
            yield number

    async for item in stage.decorate(outer)():
        stage.note(item)
        stage.current_is(CONSUMER)


@scenario("between<consumer", body=READ)
async def spans_of_the_consumer_between_items(stage: Stage) -> None:
    stream = stage.stream()()
    async for _ in stream:
        with stage.span("between<consumer"):
            stage.current_is("between<consumer")
        stage.current_is(CONSUMER)


@scenario("across<consumer", body=READ)
async def spans_of_the_consumer_across_items(stage: Stage) -> None:
    stream = stage.stream()()
    await step(stream)
    with stage.span("across<consumer"):
        await step(stream)
        stage.current_is("across<consumer")
        await step(stream)
    stage.current_is(CONSUMER)
    stage.note(await step(stream))


@scenario(body=READ)
async def the_applications_own_variable_goes_both_ways(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        for number in range(3):
            stage.note("body sees")
            OWN.set(f"set by body {number}")
            yield number

    async for item in stage.decorate(body)():
        stage.note("consumer sees")
        OWN.set(f"set by consumer {item}")


@scenario(body=Told("cancelled", "cancel", 1))
async def cancelled_while_it_waits(stage: Stage) -> None:
    waiting = asyncio.Event()

    async def body() -> AsyncGenerator[int]:
        yield 0
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            stage.current_is("invoke_agent body")
            await asyncio.sleep(0)
            stage.current_is("invoke_agent body")
            stage.note("cleaned up")

    async def consume() -> None:
        async for item in stage.decorate(body)():
            stage.note(item)

    task = asyncio.create_task(consume())
    await waiting.wait()
    task.cancel("enough")
    results = await asyncio.gather(task, return_exceptions=True)
    stage.note(*map(repr, results))


@scenario(STEP, body=Told("abandoned", "gc", 1))
async def cancelled_while_its_consumer_is_busy(stage: Stage) -> None:
    busy = asyncio.Event()

    async def consume() -> None:
        async for _ in stage.stream()():
            busy.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await busy.wait()
    task.cancel()
    stage.note(*map(repr, await asyncio.gather(task, return_exceptions=True)))
    del task
    collect_garbage()
    await settled()
    stage.note("settled")


@scenario(body=Told("error", "exception", 1))
async def an_error_comes_out(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        yield 0
        message = "broken"
        raise LookupError(message)

    try:
        async for item in stage.decorate(body)():
            stage.note(item)
    except LookupError as error:
        stage.note(repr(error), repr(error.__context__))
    stage.current_is(CONSUMER)


@scenario(STEP, body=LEFT)
async def an_error_in_the_consumer(stage: Stage) -> None:
    try:
        async for item in stage.stream()():
            stage.note({0: "the first"}[item])
    except LookupError as error:
        stage.note(repr(error))
    stage.current_is(CONSUMER)
    await settled()
    stage.note("settled")
