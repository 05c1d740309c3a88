"""A chat call of the openai client, beside the same call uninstrumented."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks import harness
from tests.benchmarks.clients import clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

CALLS: Final = 50
"""Calls of a batch: an application's are all traced, or none is.  Where the two take
turns one by one, neither finds its own way warm, and tracing costs twice as much.
"""
TAKES: Final = 3
REQUEST: Final[dict[str, Any]] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0.5,
}


def microseconds(client: openai.OpenAI) -> float:
    """Return the CPU time of this thread for a call of a batch."""
    times: list[float] = []
    for _ in range(CALLS):
        began = time.thread_time_ns()
        client.chat.completions.create(**REQUEST)
        times.append((time.thread_time_ns() - began) / 1000)
    return harness.undisturbed(times)


async def async_microseconds(client: openai.AsyncOpenAI) -> float:
    """Return the CPU time of this thread for a call of a batch."""
    times: list[float] = []
    for _ in range(CALLS):
        began = time.thread_time_ns()
        await client.chat.completions.create(**REQUEST)
        times.append((time.thread_time_ns() - began) / 1000)
    return harness.undisturbed(times)


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what both colours come to."""
    with harness.tracing() as (runtime, _), clients() as all_of_them:

        def once(client: openai.AsyncOpenAI) -> float:
            return all_of_them.runner.run(async_microseconds(client))

        sides = {
            "chat": (
                partial(microseconds, all_of_them.traced),
                partial(microseconds, all_of_them.plain),
            ),
            "async_chat": (
                partial(once, all_of_them.async_traced),
                partial(once, all_of_them.async_plain),
            ),
        }
        for row, pair in sides.items():
            traced, plain = harness.in_turns(rounds * 4, *pair, takes=TAKES)
            yield harness.Figure(
                row, harness.ratios(traced, plain), harness.against(traced, plain)
            )
        assert runtime.status().started == 2 * CALLS * TAKES * (rounds * 4 + 1)


if __name__ == "__main__":
    harness.main(measure)
