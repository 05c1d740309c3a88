"""What following a stream of the openai client adds to each of its items."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import openai

from tests.benchmarks import harness, servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ITEMS: Final = 400
"""Items that are timed, from the second on: the call around them is another row."""
WORDS: Final = "word " * (ITEMS + 10)


def chunks(client: Any) -> Any:  # noqa: ANN401 - of either colour
    """Open a stream of chat chunks."""
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": WORDS}], stream=True
    )


def events(client: Any) -> Any:  # noqa: ANN401 - of either colour
    """Open a stream of Responses events."""
    return client.responses.create(model="gpt-4o", input=WORDS, stream=True)


def microseconds(stream: Iterator[object]) -> float:
    """Return the CPU time of this thread for one item."""
    next(stream)
    began = time.thread_time_ns()
    for _ in islice(stream, ITEMS):
        pass
    took = time.thread_time_ns() - began
    for _ in stream:
        pass
    return took / ITEMS / 1000


async def async_microseconds(
    client: openai.AsyncOpenAI, make: Callable[[openai.AsyncOpenAI], Any]
) -> float:
    """Return the CPU time of this thread for one item."""
    stream: AsyncIterator[object] = await make(client)
    await anext(stream)
    items = 0
    took = 0
    began = time.thread_time_ns()
    async for _ in stream:
        items += 1
        if items == ITEMS:
            took = time.thread_time_ns() - began
    return took / ITEMS / 1000


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what both APIs come to, in both colours."""
    with (
        servers.models() as url,
        harness.tracing() as (runtime, _),
        openai.OpenAI(base_url=url, api_key="unused") as client,
        asyncio.Runner() as runner,
    ):
        asynchronous = openai.AsyncOpenAI(base_url=url, api_key="unused")

        def plain(make: Callable[[Any], Any]) -> float:
            return microseconds(make(client))

        def plain_awaited(make: Callable[[Any], Any]) -> float:
            return runner.run(async_microseconds(asynchronous, make))

        sides: dict[str, Callable[[], float]] = {}
        for row, make in (("chunk", chunks), ("event", events)):
            for kind, take in (("", plain), ("async_", plain_awaited)):
                name = f"{kind}{row}"
                sides[f"{name} plain"] = lambda take=take, make=make: take(make)
                sides[f"{name} traced"] = lambda name=name: harness.traced(
                    runtime, sides[f"{name} plain"]
                )
        samples = harness.in_turns(rounds * 4, sides)
        runner.run(asynchronous.close())
        assert runtime.status().started == 4 * (rounds * 4 + 1)
    for row in ("chunk", "async_chunk", "event", "async_event"):
        traced, plain_ = samples[f"{row} traced"], samples[f"{row} plain"]
        yield harness.figure(
            row, harness.differences(traced, plain_), harness.against(traced, plain_)
        )


if __name__ == "__main__":
    harness.main(measure)
