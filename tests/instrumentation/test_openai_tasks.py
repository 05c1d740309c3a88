"""What tasks, threads, loops and signals do to calls and streams."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from opentelemetry import trace

import agenttrace
from agenttrace.testing.garbage import collect_garbage
from tests.instrumentation.given import CHAT, LONG, RESPONSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans

ABANDONED = ("abandoned", "gc")
CLOSED = ("abandoned", "close")
CANCELLED = ("cancelled", "cancel")


@pytest_asyncio.fixture(params=[CHAT, RESPONSES])
async def create(
    request: pytest.FixtureRequest,
    server: ModelServer,
    spans: Spans,  # noqa: ARG001 - traced from the start
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Return `create` of either API, on the test's own loop."""
    client = AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0)

    resource: Any = client.responses
    asked: dict[str, Any] = {"input": "hello"}
    if request.param == CHAT:
        resource = client.chat.completions
        asked = {"messages": [{"role": "user", "content": "hello"}]}

    def call(model: str = "ok", **options: Any) -> Awaitable[Any]:  # noqa: ANN401 - the library's parameters
        waiting: Awaitable[Any] = resource.create(model=model, **asked, **options)
        return waiting

    yield call
    await client.close()


async def read(stream: Any, begun: asyncio.Event | None = None) -> None:  # noqa: ANN401 - an AsyncStream
    """Read *stream* to its end, and say when it has begun."""
    async for _ in stream:
        if begun is not None:
            begun.set()


@pytest.mark.asyncio
async def test_a_call_that_is_cancelled_says_so(
    create: Callable[..., Awaitable[Any]], server: ModelServer, spans: Spans
) -> None:
    """The peers left it open: a cancellation is no `Exception`."""
    before = len(server.requests)
    task = asyncio.ensure_future(create("stall=head"))
    await asyncio.to_thread(server.wait_for_request, before + 1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert spans.one().ending == CANCELLED


@pytest.mark.asyncio
async def test_wait_for_cancels_and_says_so(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """`wait_for` is how most time-outs are written; afterwards nothing is current."""
    with agenttrace.span("caller") as caller:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(create("stall=head"), 0.2)
        current = trace.get_current_span()

    assert current is caller
    assert spans.named("chat stall=head").ending == CANCELLED


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_while_it_pulls(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """The library closes the body on the way out: that is not what ended it."""
    stream = await create("ok;chunks=8;stall=mid", stream=True)
    begun = asyncio.Event()
    task = asyncio.create_task(read(stream, begun))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    span = spans.one()
    assert span.ending == CANCELLED
    assert span["partial"] is True


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_between_two_pulls(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """The stream hears nothing of it; in a block it is closed, else it is dropped."""
    begun = asyncio.Event()

    async def consume() -> None:
        async with await create(LONG, stream=True) as stream:
            async for _ in stream:
                begun.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert spans.one().ending == CLOSED


@pytest.mark.asyncio
async def test_a_stream_that_a_cancelled_task_held_is_abandoned(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """Without a block only the garbage collector will know."""
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in await create(LONG, stream=True):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    del task
    collect_garbage()

    assert spans.one().ending == ABANDONED


@pytest.mark.asyncio
async def test_another_task_may_close_a_stream(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """Contexts are per task: what one attaches another cannot detach."""
    stream = await create(LONG, stream=True)
    await anext(stream)

    await asyncio.create_task(stream.close())

    assert spans.one().ending == CLOSED
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.asyncio
async def test_a_stream_may_be_read_by_one_task_after_the_other(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """Each pull activates the span in the task that pulls, and puts it away there."""
    stream = await create("ok", stream=True)
    current: list[trace.Span] = []

    async def pull() -> None:
        await anext(stream)
        current.append(trace.get_current_span())

    for _ in range(3):
        await asyncio.create_task(pull())
    await read(stream)

    assert current == [trace.INVALID_SPAN] * 3
    assert spans.one().ending == ("ok", "return")


@pytest.mark.asyncio
async def test_keep_alives_are_no_progress(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """A server that says only that it is there is as stuck as a silent one."""
    stream = await create("ok;chunks=8;stall=mid;comments=0.02", stream=True)
    (record,) = agenttrace.open_spans()
    for _ in range(4):
        await anext(stream)
    beat = record.last_beat

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream_to_its_stall(stream)), 0.6)

    assert record.last_beat - beat < 300_000_000  # one tick: what was there at first
    assert spans.one().ending == CANCELLED


async def stream_to_its_stall(stream: Any) -> AsyncIterator[None]:  # noqa: ANN401 - an AsyncStream
    """Read *stream*, and yield only when it is over."""
    await read(stream)
    yield


@pytest.mark.asyncio
async def test_a_coroutine_that_is_never_awaited_leaves_no_span(
    create: Callable[..., Awaitable[Any]], spans: Spans
) -> None:
    """Nothing was asked for; Python's own warning says what is wrong."""
    coroutine = create()

    with pytest.warns(RuntimeWarning, match="never awaited"):
        del coroutine

    assert spans.all() == []
    assert agenttrace.open_spans() == ()


def test_a_loop_that_is_shut_down_in_mid_stream_closes_it(
    server: ModelServer, spans: Spans
) -> None:
    """`asyncio.run` closes what is suspended; the stream itself may still be held."""
    held: list[Any] = []

    async def main() -> None:
        client = AsyncOpenAI(base_url=server.base_url, api_key="unused")
        held.append(await client.responses.create(model=LONG, input="x", stream=True))
        await anext(held[0])

    asyncio.run(main())

    assert spans.one().ending == CLOSED
    held.clear()
    collect_what_a_closed_loop_left()


def test_a_stream_that_outlives_its_loop_is_lost(
    server: ModelServer, spans: Spans
) -> None:
    """A loop that is closed without a shutdown: nobody can ever finish the stream."""
    loop = asyncio.new_event_loop()

    async def begin() -> Any:  # noqa: ANN401 - an AsyncStream
        client = AsyncOpenAI(base_url=server.base_url, api_key="unused")
        stream = await client.responses.create(model=LONG, input="x", stream=True)
        await anext(stream)
        return stream

    stream = loop.run_until_complete(begin())
    loop.close()
    del stream
    collect_what_a_closed_loop_left()

    span = spans.one()
    assert span.ending == ("lost", "gc")
    assert span["items"] == 1


def collect_what_a_closed_loop_left() -> None:
    """Collect clients and sockets that nobody can close any more, without a word."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(sys, "unraisablehook", print)
        collect_garbage()


def test_an_interrupt_ends_a_synchronous_call(
    server: ModelServer, spans: Spans
) -> None:
    """A signal raises wherever the main thread is: in the middle of the socket."""
    before = len(server.requests)
    client = OpenAI(base_url=server.base_url, api_key="unused", max_retries=0)

    def interrupt() -> None:
        server.wait_for_request(before + 1)
        # To the main thread itself: it sits in a system call.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, fail)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            client.responses.create(model="stall=head", input="x")
    finally:
        thread.join()
        signal.signal(signal.SIGINT, old)

    assert spans.one().ending == CANCELLED


def test_a_stream_of_another_thread_keeps_its_parent(
    server: ModelServer, spans: Spans
) -> None:
    """Frameworks ask in one thread and iterate in a pool of them."""
    client = OpenAI(base_url=server.base_url, api_key="unused")
    with agenttrace.span("request") as request:
        stream = client.responses.create(model="ok", input="x", stream=True)
    threads = [threading.Thread(target=next, args=(stream,)) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    list(stream)

    span = spans.named("chat ok")
    assert span.ending == ("ok", "return")
    assert span.span.parent is not None
    assert span.span.parent.span_id == request.get_span_context().span_id
