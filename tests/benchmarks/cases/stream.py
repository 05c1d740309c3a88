"""What following a stream of the openai client adds to each of its items."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks import harness
from tests.benchmarks.clients import clients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ITEMS: Final = 100
"""Items that are timed, from the second on: the call around them is another row."""
TAKES: Final = 60
"""Many: what is added to an item is a hundredth of what the item costs."""
WORDS: Final = "word " * (ITEMS + 10)


def chunks(client: Any) -> Any:  # noqa: ANN401 - of either colour
    """Open a stream of chat chunks."""
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": WORDS}], stream=True
    )


def events(client: Any) -> Any:  # noqa: ANN401 - of either colour
    """Open a stream of Responses events."""
    return client.responses.create(model="gpt-4o", input=WORDS, stream=True)


def microseconds(make: Callable[[Any], Any], client: object) -> float:
    """Return the CPU time of this thread for one item."""
    stream: Iterator[object] = make(client)
    next(iter(stream))
    began = time.thread_time_ns()
    for _ in islice(stream, ITEMS):
        pass
    took = time.thread_time_ns() - began
    for _ in stream:
        pass
    return took / ITEMS / 1000


async def async_microseconds(make: Callable[[Any], Any], client: object) -> float:
    """Return the CPU time of this thread for one item."""
    stream: AsyncIterator[object] = await make(client)
    await anext(aiter(stream))
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
    samples = max(1, rounds // 2)
    with harness.tracing() as (runtime, _), clients("whole") as all_of_them:

        def awaited(make: Callable[[Any], Any], client: object) -> float:
            return all_of_them.runner.run(async_microseconds(make, client))

        for row, make in (("chunk", chunks), ("event", events)):
            sides = {
                row: (
                    partial(microseconds, make, all_of_them.traced),
                    partial(microseconds, make, all_of_them.plain),
                ),
                f"async_{row}": (
                    partial(awaited, make, all_of_them.async_traced),
                    partial(awaited, make, all_of_them.async_plain),
                ),
            }
            for name, pair in sides.items():
                traced, plain = harness.in_turns(samples, *pair, takes=TAKES)
                yield harness.Figure(
                    name,
                    harness.differences(traced, plain),
                    harness.against(traced, plain),
                )
        assert runtime.status().started == 4 * TAKES * (samples + 1)


if __name__ == "__main__":
    harness.main(measure)
