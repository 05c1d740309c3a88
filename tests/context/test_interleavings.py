"""Many tasks and threads at many generators, in an order that nobody has thought of."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import agenttrace
from tests.context.trees import misplaced

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.context.runners import Runner

STREAMS = 6
WORKERS = 8
ACTS = 25
"""Of each worker."""


class Bustle:
    """Generators that anybody may advance, and what went wrong.

    Args:
        seed: Which order it is this time.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - no secret
        self.begun: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.children: list[asyncio.Task[None]] = []

    @contextmanager
    def span(self, name: str) -> Generator[None]:
        """Be in a span that is current, and count it."""
        self.begun[name] += 1
        with agenttrace.span(name):
            self.current_is(name)
            yield
            self.current_is(name)

    def current_is(self, name: str) -> None:
        """Take down if another span is current."""
        now = getattr(trace.get_current_span(), "name", None)
        if now != name:
            self.wrong.append(f"{now} is current and not {name}")

    async def pause(self) -> None:
        """Let others go first, some times."""
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    def stream(self, number: int) -> AsyncGenerator[int]:
        """Return a decorated asynchronous generator that starts all kinds of work."""
        own = f"stream{number}"

        async def child() -> None:
            with self.span(f"child<{own}"):
                await self.pause()

        async def body() -> AsyncGenerator[int]:
            self.begun[f"invoke_agent {own}"] += 1
            for item in range(self.random.randrange(1, 20)):
                await self.pause()
                self.current_is(f"invoke_agent {own}")
                match self.random.randrange(4):
                    case 0:
                        self.children.append(asyncio.create_task(child()))
                        yield item
                    case 1:
                        with self.span(f"across<{own}"):
                            await self.pause()
                            yield item
                    case 2:
                        await asyncio.to_thread(self.in_thread, own)
                        yield item
                    case _:
                        yield item

        body.__name__ = own
        stream: AsyncGenerator[int] = agenttrace.agent(body)()
        return stream

    def in_thread(self, own: str) -> None:
        """Be a span in another thread."""
        with self.span(f"thread<{own}"):
            pass

    async def work(
        self, number: int, streams: list[AsyncGenerator[int]], locks: list[Any]
    ) -> None:
        """Advance, close and exchange generators, some of them in the middle."""
        own = f"worker{number}"
        with self.span(own):
            for _ in range(ACTS):
                place = self.random.randrange(STREAMS)
                async with locks[place]:
                    if self.random.random() < 0.1:
                        await streams[place].aclose()
                    elif await anext(streams[place], None) is None:
                        streams[place] = self.stream(place)
                self.current_is(own)
                with self.span(f"between<{own}"):
                    await self.pause()

    async def tasks(self) -> None:
        """Let the workers loose."""
        streams = [self.stream(number) for number in range(STREAMS)]
        locks = [asyncio.Lock() for _ in range(STREAMS)]
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self.work(number, streams, locks))
        for stream in streams:
            await stream.aclose()
        await asyncio.gather(*self.children)

    def plain(self, number: int) -> Generator[int]:
        """Return a decorated plain generator that yields out of spans."""
        own = f"plain{number}"

        def body() -> Generator[int]:
            self.begun[f"invoke_agent {own}"] += 1
            for item in range(self.random.randrange(1, 20)):
                self.current_is(f"invoke_agent {own}")
                with self.span(f"across<{own}"):
                    yield item

        body.__name__ = own
        stream: Generator[int] = agenttrace.agent(body)()
        return stream

    def threads(self) -> None:
        """Let threads loose on plain generators."""
        locks = [threading.Lock() for _ in range(STREAMS)]

        streams = [self.plain(number) for number in range(STREAMS)]

        def work(number: int) -> None:
            own = f"worker{number}"
            with self.span(own):
                for _ in range(ACTS):
                    place = self.random.randrange(STREAMS)
                    with locks[place]:
                        if self.random.random() < 0.1:
                            streams[place].close()
                        elif next(streams[place], None) is None:
                            streams[place] = self.plain(place)
                    self.current_is(own)

        workers = [
            threading.Thread(target=work, args=(number,)) for number in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for stream in streams:
            stream.close()


def check(bustle: Bustle, ended: list[ReadableSpan]) -> None:
    """Hold what must hold in any order."""
    assert bustle.wrong == []
    assert misplaced(ended) == []
    assert Counter(span.name for span in ended) == bustle.begun
    assert len({span.context.span_id for span in ended if span.context}) == len(ended)


@pytest.mark.parametrize("seed", range(3))
def test_tasks_in_any_order(
    seed: int, runner: Runner, spans: Callable[[], list[ReadableSpan]]
) -> None:
    """Every span is closed once, below its parent, and current to nobody else."""
    bustle = Bustle(seed)

    runner.run(bustle.tasks())

    check(bustle, spans())


@pytest.mark.parametrize("seed", range(3))
def test_threads_in_any_order(
    seed: int, spans: Callable[[], list[ReadableSpan]]
) -> None:
    """A step in another thread has another context, and the same span in it."""
    bustle = Bustle(seed)

    bustle.threads()

    check(bustle, spans())
