"""What the tests of the Agents SDK are made of: a loop, a client, agents."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner
from openai import AsyncOpenAI

import agenttrace
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agents import RunResultStreaming, StreamEvent

T = TypeVar("T")

STALLED: Final = "ok;chunks=10;stall=mid"
"""A model that says half of its answer and then no more."""
PATIENCE: Final = 30.0
"""Seconds that a test waits for what must happen."""


class Desk:
    """A loop, a client, and agents that ask one server.

    Args:
        base_url: The server.
        use_responses: By which API: Responses, or else Chat Completions.
        runner: Runs coroutines; None makes one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        use_responses: bool = True,
        runner: asyncio.Runner | None = None,
    ) -> None:
        self.client = AsyncOpenAI(
            base_url=base_url, api_key="unused", max_retries=0, timeout=PATIENCE
        )
        self._provider = OpenAIProvider(
            openai_client=self.client, use_responses=use_responses
        )
        self._runner = runner or asyncio.Runner()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what comes of *coroutine*, run in the caller's context."""
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def stop(self) -> None:
        """Close client and loop."""
        self.wait(self.client.close())
        self._runner.close()

    @staticmethod
    def agent(model: str = "ok", **options: Any) -> Agent[Any]:  # noqa: ANN401 - those of an agent
        """Return an agent that asks *model*."""
        options.setdefault("name", "triage")
        options.setdefault("model_settings", ModelSettings(include_usage=True))
        return Agent(model=model, **options)

    def config(self, **options: Any) -> RunConfig:  # noqa: ANN401 - those of a RunConfig
        """Return how runs are run here."""
        return RunConfig(model_provider=self._provider, **options)

    async def run(self, agent: Agent[Any], **options: Any) -> Any:  # noqa: ANN401 - its result
        """Run *agent* to its end."""
        config = self.config(**options)
        return await Runner.run(agent, "hello", run_config=config)

    def stream(self, agent: Agent[Any]) -> RunResultStreaming:
        """Begin to run *agent*; to be called in the loop."""
        return Runner.run_streamed(agent, "hello", run_config=self.config())


def is_word(event: StreamEvent) -> bool:
    """Return whether *event* is a piece of what the model says."""
    kind: object = getattr(getattr(event, "data", None), "type", None)
    return kind == "response.output_text.delta"


async def hear(result: RunResultStreaming, words: int = 1) -> None:
    """Listen until so many words have come, and leave the loop."""
    async for event in result.stream_events():
        words -= is_word(event)
        if not words:
            break


async def hear_all(result: RunResultStreaming) -> None:
    """Listen to the end."""
    async for _ in result.stream_events():
        pass


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, with the garbage of the way there collected."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            collect_garbage()
            await asyncio.sleep(0.01)


def nothing_is_open() -> bool:
    """Return whether every span has ended."""
    return agenttrace.open_spans() == ()


def names_open() -> set[str]:
    """Return the names of the spans that are open."""
    return {span.name for span in agenttrace.open_spans()}
