"""Spans of any library, made current by `use_span`, end with what came out of them.

OpenTelemetry's API ends a span that is cancelled without a word, as if it had returned.
Both providers correct that: ours, and one of the application's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace.testing import fresh_runtime
from tests.instrumentation.given import Spans

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator


@pytest.fixture(params=["ours", "attached"])
def library(request: pytest.FixtureRequest) -> Iterator[tuple[trace.Tracer, Spans]]:
    """Return the tracer of a library that knows nothing of agenttrace."""
    exporter = InMemorySpanExporter()
    if request.param == "ours":
        with fresh_runtime(span_exporter=exporter) as fresh:
            yield trace.get_tracer("library"), Spans(exporter, fresh.runtime)
        return
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with fresh_runtime(tracer_provider=provider) as fresh:
        yield provider.get_tracer("library"), Spans(exporter, fresh.runtime)


async def plain(tracer: trace.Tracer, entered: asyncio.Event) -> None:
    """Do what libraries do: start, make current, end on the way out."""
    span = tracer.start_span("work")
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        entered.set()
        await asyncio.Event().wait()


async def by_hand(tracer: trace.Tracer, entered: asyncio.Event) -> None:
    """Do the same, and end in a `finally` of its own."""
    span = tracer.start_span("work")
    try:
        with trace.use_span(span):
            entered.set()
            await asyncio.Event().wait()
    finally:
        span.end()


async def nested(tracer: trace.Tracer, entered: asyncio.Event) -> None:
    """Do so a frame further down, as behind a decorator."""
    await plain(tracer, entered)


@pytest.mark.parametrize("work", [plain, by_hand, nested])
@pytest.mark.parametrize("how", ["cancel", "wait_for", "group"])
def test_a_span_left_by_cancellation_is_cancelled(
    library: tuple[trace.Tracer, Spans],
    work: Callable[[trace.Tracer, asyncio.Event], Coroutine[Any, Any, None]],
    how: str,
) -> None:
    """The most common end of an agent's step must not look like its success."""
    tracer, spans = library

    async def main() -> None:
        entered = asyncio.Event()

        async def leave() -> None:
            await entered.wait()
            raise LookupError

        if how == "cancel":
            task = asyncio.create_task(work(tracer, entered))
            await entered.wait()
            task.cancel()
            await asyncio.wait([task])
        elif how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(work(tracer, entered), 0.01)
        else:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(work(tracer, entered))
                    group.create_task(leave())

    asyncio.run(main())

    span = spans.one()
    assert span.ending == ("cancelled", "cancel")
    assert span.span.status.status_code is trace.StatusCode.UNSET


def test_a_span_of_a_generator_that_is_closed_is_abandoned(
    library: tuple[trace.Tracer, Spans],
) -> None:
    """A library's stream that is left in the middle has not come to its end."""
    tracer, spans = library

    async def stream() -> AsyncGenerator[int]:
        with trace.use_span(tracer.start_span("work"), end_on_exit=True):
            yield 1
            yield 2

    async def main() -> None:
        items = stream()
        await anext(items)
        await items.aclose()

    asyncio.run(main())

    assert spans.one().ending == ("abandoned", "close")
