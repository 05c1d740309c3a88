"""The application gets what it would have got without us: values, types, timing."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import agenttrace
from tests.instrumentation.given import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans, Way


# The client takes both and is typed for one.
LEGACY: Any = httpx.Client
LEGACY_ASYNC: Any = httpx.AsyncClient


def shape_of(way: Way) -> list[object]:
    """Return the types of everything that a client hands out."""
    stream = way.stream("ok")
    items = [way.pull(stream) for _ in range(2)]
    raw = way.wait(way.resource.with_raw_response.create(model="ok", **way.asked()))
    manager = way.resource.with_streaming_response.create(model="ok", **way.asked())
    response = way.enter(manager)
    way.leave(manager)
    objects = [way.create("ok"), stream, stream._iterator, stream.response]  # noqa: SLF001 - what is patched
    objects += [*items, raw, raw.parse(), raw.http_response, response]
    rest = way.read(stream)
    return [
        *[type(each) for each in objects],
        len(rest),
        stream._iterator.__qualname__,  # noqa: SLF001 - the same
        inspect.iscoroutinefunction(way.client.request),
        inspect.signature(way.client.request),
    ]


def test_what_is_returned_is_of_the_same_types(way: Way, spans: Spans) -> None:
    """Frameworks look at types, and some at private attributes."""
    traced = shape_of(way)
    ended = len(spans.all())
    agenttrace.uninstrument("openai")

    plain = shape_of(way)

    assert traced == plain
    assert ended == 4
    assert len(spans.all()) == ended


def test_a_stream_that_is_closed_says_the_same_to_its_reader(
    way: Way, spans: Spans
) -> None:
    """What comes of reading on is the library's business."""

    def read_on() -> str:
        stream = way.stream(LONG)
        way.pull(stream)
        way.wait(stream.close())
        try:
            return str(len(way.read(stream)))
        except Exception as error:  # noqa: BLE001 - whatever the library raises
            return repr(error)

    traced = read_on()
    agenttrace.uninstrument("openai")

    assert traced == read_on()
    assert spans.one().ending == ("abandoned", "close")


async def turns_of(act: Callable[[], Any]) -> int:
    """Return how often the loop turns until what *act* begins is done."""
    loop = asyncio.get_running_loop()
    turns = 0
    over = False

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not over:
            loop.call_soon(turn)

    loop.call_soon(turn)
    await act()
    over = True
    return turns


@pytest.mark.asyncio
async def test_closing_and_cancelling_take_as_many_turns_of_the_loop(
    server: ModelServer, spans: Spans
) -> None:
    """A turn more, and somebody's clean-up comes after somebody else's."""
    client = AsyncOpenAI(base_url=server.base_url, api_key="unused", max_retries=0)

    async def close() -> int:
        stream = await client.responses.create(model=LONG, input="x", stream=True)
        await anext(stream)
        return await turns_of(stream.close)

    async def cancel() -> int:
        stream = await client.responses.create(
            model="ok;chunks=8;stall=mid", input="x", stream=True
        )
        begun = asyncio.Event()

        async def read() -> None:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        await asyncio.sleep(0.05)  # now it waits for the server
        task.cancel()
        return await turns_of(lambda: asyncio.wait([task]))

    traced = await close(), await cancel()
    agenttrace.uninstrument("openai")
    plain = await close(), await cancel()
    await client.close()

    assert traced == plain
    assert len(spans.all()) == 2


@pytest.mark.parametrize("streamed", [True, False])
def test_a_legacy_httpx_client_is_traced_like_the_librarys_own(
    server: ModelServer, spans: Spans, *, is_async: bool, streamed: bool
) -> None:
    """The body must be one of httpx's then, and httpx2 need not be there."""

    async def asynchronous() -> int:
        async with AsyncOpenAI(
            base_url=server.base_url, api_key="unused", http_client=LEGACY_ASYNC()
        ) as client:
            if not streamed:
                return len(
                    (await client.responses.create(model="ok", input="x")).output
                )
            stream = await client.responses.create(model="ok", input="x", stream=True)
            return len([event async for event in stream])

    def synchronous() -> int:
        with OpenAI(
            base_url=server.base_url, api_key="unused", http_client=LEGACY()
        ) as client:
            if not streamed:
                return len(client.responses.create(model="ok", input="x").output)
            return len(
                list(client.responses.create(model="ok", input="x", stream=True))
            )

    count = asyncio.run(asynchronous()) if is_async else synchronous()

    span = spans.one()
    assert span.ending == ("ok", "return")
    assert span["items"] == (count if streamed else None)


def test_a_stream_of_a_legacy_client_that_is_left_is_abandoned(
    server: ModelServer, spans: Spans
) -> None:
    """The other half of it: the body that is closed from outside."""
    with (
        OpenAI(
            base_url=server.base_url, api_key="unused", http_client=LEGACY()
        ) as client,
        client.responses.create(model=LONG, input="x", stream=True) as stream,
    ):
        next(stream)

    assert spans.one().ending == ("abandoned", "close")


def test_exceptions_are_the_librarys_own(server: ModelServer, spans: Spans) -> None:
    """The same object, with the same cause and no context of ours."""
    client = OpenAI(base_url=server.base_url, api_key="unused", max_retries=0)

    def raised() -> BaseException:
        with pytest.raises(openai.APITimeoutError) as caught:
            client.responses.create(model="stall=head", input="x", timeout=0.1)
        return caught.value

    traced = raised()
    agenttrace.uninstrument("openai")
    plain = raised()
    client.close()

    for one, other in ((traced, plain), (traced.__cause__, plain.__cause__)):
        assert type(one) is type(other)
        assert type(one.__context__) is type(other.__context__)  # type: ignore[union-attr]  # both have one
    assert spans.one().ending == ("timed_out", "exception")


def test_subclasses_of_the_clients_are_traced(
    server: ModelServer, spans: Spans
) -> None:
    """Compatible providers ship clients that are made of these."""

    class Mine(OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the library's
            request: Any = super().request
            return request(*args, **kwargs)

    with Mine(base_url=server.base_url, api_key="unused") as client:
        client.responses.create(model="ok", input="x")

    assert spans.one()["operation.name"] == "chat"
