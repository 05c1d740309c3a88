"""A run of the Agents SDK with a tool, eight spans, beside the same run uninstrumented.

The SDK's own spans are made on both sides, and sent nowhere: what they cost is not what
agenttrace adds.  Patches are put in and taken out between the turns, and each side runs
once before it is measured: the interpreter has to learn the patched classes anew.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import agents
from openai import AsyncOpenAI

import agenttrace
from tests.benchmarks import harness, servers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

TAKES: Final = 5
SPANS: Final = 8
MODEL: Final = "tool=search"


@agents.function_tool
async def search() -> str:
    """Search."""
    return "found"


async def microseconds(agent: agents.Agent[Any], config: agents.RunConfig) -> float:
    """Return the CPU time of this thread for a run."""
    await agents.Runner.run(agent, "What is a lighthouse for?", run_config=config)
    began = time.thread_time_ns()
    await agents.Runner.run(agent, "What is a lighthouse for?", run_config=config)
    return (time.thread_time_ns() - began) / 1000


@contextmanager
def desk() -> Generator[tuple[agents.Agent[Any], agents.RunConfig, asyncio.Runner]]:
    """Run a model server, and have an agent that asks it."""
    agents.set_trace_processors([])
    with servers.models("scripted") as url, asyncio.Runner() as runner:
        client = AsyncOpenAI(base_url=url, api_key="unused")
        provider = agents.OpenAIProvider(openai_client=client)
        try:
            yield (
                agents.Agent(name="triage", model=MODEL, tools=[search]),
                agents.RunConfig(model_provider=provider),
                runner,
            )
        finally:
            runner.run(client.close())
            agenttrace.uninstrument()


def measure(rounds: int) -> Iterator[harness.Figure]:
    """Yield what a run comes to."""
    with harness.tracing() as (runtime, _), desk() as (agent, config, runner):

        def once(*, is_traced: bool) -> float:
            (agenttrace.instrument if is_traced else agenttrace.uninstrument)()
            return runner.run(microseconds(agent, config))

        sides = partial(once, is_traced=True), partial(once, is_traced=False)
        traced, plain = harness.in_turns(rounds, *sides, takes=TAKES)
        yield harness.Figure(
            "agents", harness.ratios(traced, plain), harness.against(traced, plain)
        )
        assert runtime.status().started == 2 * SPANS * TAKES * (rounds + 1)


if __name__ == "__main__":
    harness.main(measure)
