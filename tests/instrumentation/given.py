"""What the tests of instrumentations are made of: spans to look at, ways to call."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import openai
from openai import AsyncOpenAI, OpenAI

from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    import agenttrace

CHAT: Final = "chat"
RESPONSES: Final = "responses"
HTTP: Final[Any] = import_module("httpx2" if openai.VERSION >= "3" else "httpx")
"""The HTTP library of the client."""
CUT: Final = (openai.APIConnectionError, HTTP.TransportError)
SILENT: Final = (openai.APITimeoutError, HTTP.TimeoutException)
"""What comes of a stream that breaks; before 3.0 the HTTP library's own."""
LONG: Final = "ok;chunks=40;gap=0.02"
"""A stream that takes long enough to be left in the middle."""


@dataclass
class Spans:
    """The spans of one test.

    Args:
        exporter: Where they are sent.
        runtime: The runtime that sends them.
    """

    exporter: InMemorySpanExporter
    runtime: agenttrace.Runtime

    def all(self) -> list[ReadableSpan]:
        """Return those that have ended, in the order of their ends."""
        assert self.runtime.flush(30)
        return list(self.exporter.get_finished_spans())

    def traces(self) -> int:
        """Return how many traces they are of."""
        return len({span.context.trace_id for span in self.all() if span.context})

    def tree(self) -> set[tuple[str, str | None]]:
        """Return each of them by name, with the name of its parent."""
        ended = self.all()
        names = {span.context.span_id: span.name for span in ended if span.context}
        return {
            (span.name, names[span.parent.span_id] if span.parent else None)
            for span in ended
        }

    def one(self) -> Seen:
        """Return the only one there is."""
        spans = self.all()
        assert [span.name for span in spans] == [spans[0].name] if spans else []
        assert len(spans) == 1
        return Seen(spans[0])

    def named(self, name: str) -> Seen:
        """Return the one with that name."""
        (span,) = [span for span in self.all() if span.name == name]
        return Seen(span)


@dataclass
class Seen:
    """One span, with its attributes by short names."""

    span: ReadableSpan
    told: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Name the attributes without their namespaces."""
        self.told = {
            name.removeprefix("gen_ai.").removeprefix("agenttrace."): value
            for name, value in (self.span.attributes or {}).items()
        }

    @property
    def ending(self) -> tuple[str, str]:
        """Outcome and what ended it."""
        return self.told["outcome"], self.told["ended_by"]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - any attribute
        return self.told.get(name)


class Way:
    """One of the four ways to a model: an API and a colour, told apart nowhere else.

    Args:
        api: `CHAT` or `RESPONSES`.
        is_async: Whether the client is asynchronous.
        base_url: The server.
    """

    def __init__(self, api: str, base_url: str, *, is_async: bool) -> None:
        self.api = api
        self.is_async = is_async
        self._runner = asyncio.Runner()
        client = AsyncOpenAI if is_async else OpenAI
        self.client: Any = client(
            base_url=base_url, api_key="unused", max_retries=0, timeout=10
        )

    @property
    def resource(self) -> Any:  # noqa: ANN401 - the library's
        """What has `create`, `parse` and `stream`."""
        return (
            self.client.chat.completions if self.api == CHAT else self.client.responses
        )

    def asked(self, text: str = "hello there") -> dict[str, Any]:
        """Return the parameters that say *text*."""
        if self.api == CHAT:
            return {"messages": [{"role": "user", "content": text}]}
        return {"input": text}

    def create(self, model: str = "ok", **options: Any) -> Any:  # noqa: ANN401 - what the client returns
        """Call `create` and wait for it."""
        return self.wait(self.resource.create(model=model, **self.asked(), **options))

    def stream(self, model: str = "ok", **options: Any) -> Any:  # noqa: ANN401 - a Stream or AsyncStream
        """Call `create` for a stream."""
        return self.create(model, stream=True, **options)

    def wait(self, value: Any) -> Any:  # noqa: ANN401 - whatever it is
        """Return *value*, or what comes of awaiting it."""
        if not self.is_async:
            return value
        # In the caller's context: a runner has one of its own.
        context = contextvars.copy_context()
        return self._runner.run(_awaited(value), context=context)

    def pull(self, stream: Any) -> Any:  # noqa: ANN401 - an item
        """Return the next item of *stream*."""
        return self.wait(anext(stream)) if self.is_async else next(stream)

    def read(self, stream: Any) -> list[Any]:  # noqa: ANN401 - any iterable
        """Return all items of *stream*."""
        return self.wait(_all(stream)) if self.is_async else list(stream)

    def take(self, stream: Any, items: int) -> list[Any]:  # noqa: ANN401 - any iterable
        """Leave a loop over *stream* after so many items."""
        if self.is_async:
            taken: list[Any] = self.wait(_some(stream, items))
            return taken
        taken = []
        for item in stream:
            taken.append(item)
            if len(taken) == items:
                break
        return taken

    def enter(self, manager: Any) -> Any:  # noqa: ANN401 - any context manager
        """Enter a context manager of either colour."""
        if self.is_async:
            return self.wait(manager.__aenter__())
        return manager.__enter__()

    def leave(self, manager: Any) -> None:  # noqa: ANN401 - any context manager
        """Leave it."""
        if self.is_async:
            self.wait(manager.__aexit__(None, None, None))
        else:
            manager.__exit__(None, None, None)

    def collect(self) -> None:
        """Collect garbage, and let the loop do what that asks of it."""
        for _ in range(2):  # a generator that is closed lets go of its stream
            collect_garbage()
            self.wait(asyncio.sleep(0) if self.is_async else None)

    def stop(self) -> None:
        """Close client and loop."""
        self.wait(self.client.close())
        self._runner.close()


async def _awaited(value: Any) -> Any:  # noqa: ANN401 - whatever it is
    return await value


async def _all(stream: Any) -> list[Any]:  # noqa: ANN401 - any iterable
    return [item async for item in stream]


async def _some(stream: Any, items: int) -> list[Any]:  # noqa: ANN401 - any iterable
    taken: list[Any] = []
    async for item in stream:
        taken.append(item)
        if len(taken) == items:
            break
    return taken
