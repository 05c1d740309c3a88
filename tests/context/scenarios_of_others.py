"""Scenarios: other instrumentations in the process that detach wherever they are."""

from __future__ import annotations

import asyncio
from contextvars import Context
from threading import Thread
from typing import TYPE_CHECKING

from opentelemetry import context as otel
from opentelemetry import trace

from agenttrace.testing.garbage import collect_garbage
from tests.context.scenarios_of_streams import settled, step
from tests.context.stage import CONSUMER, Stage, Told, scenario

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from opentelemetry.context.context import Context as Tracing

OTHER = "other<consumer"


async def leaky(stage: Stage) -> AsyncGenerator[int]:
    """Yield out of the block of a span, as generators of others do."""
    with stage.other(OTHER):
        for number in range(3):
            await asyncio.sleep(0)
            yield number


@scenario(OTHER)
async def another_library_is_closed_by_another_task(stage: Stage) -> None:
    stream = leaky(stage)
    await step(stream)
    stage.current_is(OTHER)
    await asyncio.create_task(stream.aclose())
    stage.current_is(CONSUMER)


@scenario(OTHER)
async def another_library_is_read_on_by_another_task(stage: Stage) -> None:
    stream = leaky(stage)
    await step(stream)

    async def rest() -> None:
        async for item in stream:
            stage.note(item)
        stage.current_is(CONSUMER)

    await asyncio.create_task(rest())
    stage.current_is(CONSUMER)


@scenario(OTHER)
async def another_library_is_left_and_dropped(stage: Stage) -> None:
    async for item in leaky(stage):
        stage.note(item)
        break
    collect_garbage()
    await settled()
    stage.current_is(CONSUMER)


@scenario(OTHER)
async def another_library_is_closed_in_a_context_of_no_relation(stage: Stage) -> None:
    stream = leaky(stage)
    await step(stream)
    await asyncio.create_task(stream.aclose(), context=Context())
    stage.current_is(CONSUMER)


@scenario(OTHER)
async def another_library_changes_threads(stage: Stage) -> None:
    def stream() -> Generator[int]:
        with stage.other(OTHER):
            yield 1
            yield 2

    steps = stream()
    stage.note(next(steps))
    for _ in range(2):
        thread = Thread(target=lambda: stage.note(next(steps, -1)))
        thread.start()
        await asyncio.to_thread(thread.join)
    stage.current_is(CONSUMER)


@scenario(OTHER, "child<other<consumer")
async def work_started_under_another_library_keeps_its_parent(stage: Stage) -> None:
    over = asyncio.Event()

    async def child() -> None:
        await over.wait()
        stage.current_is(OTHER)
        with stage.span("child<other<consumer"):
            pass

    with stage.other(OTHER):
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
    stage.current_is(CONSUMER)
    over.set()
    await task


def under(name: str) -> Tracing:
    """Return a context whose current span is called *name*; it is never recorded."""

    class Named(trace.NonRecordingSpan):
        pass

    span = Named(trace.INVALID_SPAN_CONTEXT)
    span.name = name  # type: ignore[attr-defined]  # what `current_is` reads
    return trace.set_span_in_context(span)


@scenario()
async def tokens_out_of_order_and_twice(stage: Stage) -> None:
    if not stage.traced:
        return
    outer, inner = otel.attach(under("outer")), None
    inner = otel.attach(under("inner"))
    stage.current_is("inner")
    otel.detach(outer)
    stage.current_is("inner")
    otel.detach(inner)
    stage.current_is(CONSUMER)
    otel.detach(inner)
    otel.detach(outer)
    stage.current_is(CONSUMER)


@scenario()
async def a_token_detached_by_a_child_task(stage: Stage) -> None:
    if not stage.traced:
        return
    token = otel.attach(under("handed over"))

    async def child() -> None:
        stage.current_is("handed over")
        otel.detach(token)
        stage.current_is(CONSUMER)

    await asyncio.create_task(child())
    stage.current_is(CONSUMER)


@scenario(body=Told("ok", "return", 2))
async def another_library_leaks_inside_a_traced_stream(stage: Stage) -> None:
    async def body() -> AsyncGenerator[int]:
        stream = leaky_inside(stage)
        yield await step(stream)
        stage.current_is("other<body")
        await asyncio.create_task(stream.aclose())
        stage.current_is("invoke_agent body")
        yield 2

    async for item in stage.decorate(body)():
        stage.note(item)
        stage.current_is(CONSUMER)


async def leaky_inside(stage: Stage) -> AsyncGenerator[int]:
    """Yield out of the block of a span, below a traced generator."""
    with stage.other("other<body"):
        yield 1
        yield 2
