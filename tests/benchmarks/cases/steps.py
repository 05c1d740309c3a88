"""How many steps of the interpreter tracing adds, which no neighbour can change.

A step is one instruction of byte code.  So these rows are judged in continuous
integration as strictly as in a release, and what makes a call dearer by a hundredth is
seen in the change that did it.  What a step costs, the rows of times tell.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

from tests.benchmarks import harness
from tests.benchmarks.cases import chat, stream
from tests.benchmarks.clients import clients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import FrameType

    from tests.benchmarks.clients import Clients

WARM: Final = 4
"""Calls before the first that counts: the first ones import, and fill caches."""
TAKES: Final = 9
"""Of them the least counts: the others have woken one of our threads."""


class Steps:
    """Counts the steps of this thread in the frames that are entered meanwhile."""

    def __init__(self) -> None:
        self.taken = 0

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - itself
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self.taken += event == "opcode"
        return self._trace


def of_call(client: Any) -> int:  # noqa: ANN401 - of either colour
    """Return the steps of a chat call."""
    with Steps() as steps:
        client.chat.completions.create(**chat.REQUEST)
    return steps.taken


async def of_async_call(client: Any) -> int:  # noqa: ANN401 - of either colour
    """Return the steps of a chat call."""
    with Steps() as steps:
        await client.chat.completions.create(**chat.REQUEST)
    return steps.taken


def of_items(make: Callable[[Any], Any], client: object) -> int:
    """Return the steps of a hundred items of a stream."""
    items: Iterator[object] = make(client)
    next(iter(items))
    with Steps() as steps:
        for _ in islice(items, stream.ITEMS):
            pass
    for _ in items:
        pass
    return steps.taken


async def of_async_items(make: Callable[[Any], Any], client: object) -> int:
    """Return the steps of a hundred items of a stream."""
    items: AsyncIterator[object] = await make(client)
    await anext(aiter(items))
    with Steps() as steps:
        for _ in range(stream.ITEMS):
            await anext(items)
    async for _ in items:
        pass
    return steps.taken


def measure(_: int) -> Iterator[harness.Figure]:
    """Yield what is counted of calls, chunks and events, in both colours."""
    # Counted, a call takes a hundred times as long, and blocks its loop for that time.
    os.environ["AGENTTRACE_LOOP_BLOCKED_AFTER"] = "inf"
    with harness.tracing(), clients("whole") as all_of_them:
        for row, count in _counts(all_of_them):
            traced, plain = (
                min([count(which) for _ in range(WARM + TAKES)][WARM:])
                for which in (0, 1)
            )
            added = (traced - plain) / plain * 100
            yield harness.Figure(row, [added], f"{traced} against {plain}")


def _counts(all_of_them: Clients) -> Iterator[tuple[str, Callable[[int], int]]]:
    run = all_of_them.runner.run
    sync = all_of_them.traced, all_of_them.plain
    asynchronous = all_of_them.async_traced, all_of_them.async_plain
    yield "chat_steps", lambda which: of_call(sync[which])
    yield "async_chat_steps", lambda which: run(of_async_call(asynchronous[which]))
    yield "chunk_steps", lambda which: of_items(stream.chunks, sync[which])
    yield (
        "async_chunk_steps",
        lambda which: run(of_async_items(stream.chunks, asynchronous[which])),
    )
    yield "event_steps", lambda which: of_items(stream.events, sync[which])
    yield (
        "async_event_steps",
        lambda which: run(of_async_items(stream.events, asynchronous[which])),
    )


if __name__ == "__main__":
    harness.main(measure)
