"""An agent framework runs against the model server as against the real thing."""

from __future__ import annotations

import pytest
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI

from agenttrace.testing.model_server import (
    ModelServer,
    Reply,
    Request,
    text,
    tool_call,
)

# Its own tracing would post to the real API.
QUIET = RunConfig(tracing_disabled=True)


def script(request: Request) -> Reply:
    if not request.tool_results:
        return tool_call("weather", {"city": request.text})
    return text(f"The tool says: {request.tool_results[0]}")


@function_tool
def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"rain in {city}"


def agent_on(client: AsyncOpenAI, model: type[Model]) -> Agent[None]:
    if model is OpenAIResponsesModel:
        return Agent(
            name="triage", tools=[weather], model=OpenAIResponsesModel("gpt-5", client)
        )
    return Agent(
        name="triage",
        tools=[weather],
        model=OpenAIChatCompletionsModel("gpt-5", client),
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("model", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def test_an_agent_calls_its_tool_and_answers(model: type[Model]) -> None:
    """Two rounds with the model, in either protocol, with one script."""
    with ModelServer(script) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:
            result = await Runner.run(agent_on(client, model), "Ulm", run_config=QUIET)
        for exchange in server.requests:
            exchange.wait("done")
        rounds = len(server.requests)

    assert result.final_output == "The tool says: rain in Ulm"
    assert rounds == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("model", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def test_a_streamed_run_calls_its_tool_and_answers(model: type[Model]) -> None:
    """The framework builds its items out of the single events."""
    with ModelServer(script) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:
            run = Runner.run_streamed(agent_on(client, model), "Ulm", run_config=QUIET)
            items = [
                event.item.type
                async for event in run.stream_events()
                if event.type == "run_item_stream_event"
            ]

    assert run.final_output == "The tool says: rain in Ulm"
    assert items == ["tool_call_item", "tool_call_output_item", "message_output_item"]
