"""What the tests of Microsoft's Agent Framework are made of: agents and spans."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
from openai import AsyncOpenAI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import semconv
from agenttrace.testing.model_server import ModelServer
from tests.instrumentation.given import Spans

framework: Final[Any] = pytest.importorskip(
    "agent_framework", reason="agent-framework-core is not installed (extra `systems`)"
)
clients: Final[Any] = pytest.importorskip(
    "agent_framework.openai",
    reason="agent-framework-openai is not installed (extra `systems`)",
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

OK: Final = ("ok", "return")
LONG: Final = "ok;chunks=8;gap=0.01"
"""A model whose stream can be left in the middle."""
STALLED: Final = "ok;chunks=8;stall=mid"
"""A model that says half of its answer and then no more."""
APIS: Final = {
    "responses": clients.OpenAIChatClient,
    "chat": clients.OpenAIChatCompletionClient,
}
PATIENCE: Final = 30.0
"""Seconds that a test waits for what must happen."""


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    """Serve models that do what their names say."""
    with ModelServer(ModelServer.by_model_name) as running:
        yield running


@pytest.fixture(
    params=[("agent-framework",), ("agent-framework", "openai")],
    ids=["alone", "with_its_client"],
)
def spans(request: pytest.FixtureRequest) -> Iterator[Spans]:
    """Trace into memory, the framework alone and beside the client it asks with."""
    settings = framework.observability.OBSERVABILITY_SETTINGS
    if not settings.ENABLED:  # as it comes with the first versions
        framework.observability.enable_instrumentation()
    exporter = InMemorySpanExporter()
    with agenttrace.configure(span_exporter=exporter) as runtime:
        agenttrace.instrument(*request.param)
        yield Spans(exporter, runtime)
        agenttrace.uninstrument()


def tool(fn: Callable[[], object]) -> Any:  # noqa: ANN401 - the library's
    """Return *fn* as a tool that needs nobody's approval."""
    return framework.tool(approval_mode="never_require")(fn)


class Desk:
    """A loop, a client, and agents that ask one server by one of its APIs.

    Args:
        server: The server.
        api: One of `APIS`.
        timeout: Seconds that the client waits for an answer.
    """

    def __init__(
        self, server: ModelServer, api: str, *, timeout: float = PATIENCE
    ) -> None:
        self.openai = AsyncOpenAI(
            base_url=server.base_url, api_key="unused", timeout=timeout, max_retries=0
        )
        self._api = APIS[api]
        self._runner = asyncio.Runner()

    def agent(self, model: str = "ok", **options: Any) -> Any:  # noqa: ANN401 - the library's
        """Return an agent that asks *model*."""
        options.setdefault("name", "keeper")
        client = self._api(model=model, async_client=self.openai)
        return framework.Agent(client=client, instructions="Be brief.", **options)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what comes of *coroutine*, run in the caller's context."""
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def stop(self) -> None:
        """Close client and loop."""
        self.wait(self.openai.close())
        self._runner.close()


@pytest.fixture(params=list(APIS))
def desk(
    request: pytest.FixtureRequest,
    server: ModelServer,
    spans: Spans,  # noqa: ARG001 - traced from the start
) -> Iterator[Desk]:
    """Ask by each API."""
    one = Desk(server, request.param)
    yield one
    one.stop()


@pytest.fixture
def responses(server: ModelServer, spans: Spans) -> Iterator[Desk]:  # noqa: ARG001 - traced from the start
    """Ask by the API that has responses in the background."""
    one = Desk(server, "responses")
    yield one
    one.stop()


def endings(spans: Spans) -> set[tuple[str, tuple[str, str]]]:
    """Return how each span ended, by the first word of its name."""
    return {
        (
            span.name.partition(" ")[0],
            (
                str((span.attributes or {})["agenttrace.outcome"]),
                str((span.attributes or {})["agenttrace.ended_by"]),
            ),
        )
        for span in spans.all()
        if semconv.MARKER not in (span.attributes or {})
    }


def both(outcome: str, ended_by: str) -> set[tuple[str, tuple[str, str]]]:
    """Return that a run and its question ended alike."""
    return {("invoke_agent", (outcome, ended_by)), ("chat", (outcome, ended_by))}


async def read(stream: Any, updates: int | None = None) -> int:  # noqa: ANN401 - a ResponseStream
    """Read *updates* of a stream, or all of them, and return how many there were."""
    read = 0
    async for _ in stream:
        read += 1
        if read == updates:
            break
    return read


async def until_asked(model: str) -> None:
    """Wait until a question to *model* is open."""
    async with asyncio.timeout(PATIENCE):
        while f"chat {model}" not in [span.name for span in agenttrace.open_spans()]:  # noqa: ASYNC110 - the span is started in the library
            await asyncio.sleep(0.01)
