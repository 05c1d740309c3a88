"""The part of the desk that is made with the OpenAI Agents SDK.

Triage hands orders over to somebody who can look them up; an adviser answers word by
word; who is to pay money back asks a colleague as if that were a tool, and the
colleague waits for a yes that nobody gives.

Its runs are the SDK's own: there is not one word of tracing in here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    function_tool,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from openai import AsyncOpenAI

_ORDERS: Final = {"1042": "on its way, arrives on Friday"}
_MUST: Final = ModelSettings(tool_choice="required")
# Without a name of its own, every run is called "Agent workflow".
_ORDER: Final = RunConfig(workflow_name="find an order")
_ADVICE: Final = RunConfig(workflow_name="advise on a router")
_REFUND: Final = RunConfig(workflow_name="refund")
_DELTA: Final = "response.output_text.delta"


@function_tool
def find_order(number: str) -> str:
    """Look up an order."""
    return _ORDERS.get(number, "unknown")


@function_tool
async def ask_manager(amount: str) -> str:
    """Wait for somebody to say yes, which nobody ever does."""
    approved = asyncio.Event()
    await approved.wait()
    return f"{amount}: approved"


class Team:
    """The agents.

    Args:
        model: Name of the model that they all ask.
        client: How it is asked.
    """

    def __init__(self, model: str, client: AsyncOpenAI) -> None:
        # Chat completions: what compatible servers have, too.
        asked = OpenAIChatCompletionsModel(model, client)
        orders = Agent(
            name="orders",
            instructions="Look up orders.",
            handoff_description="Knows where orders are.",
            model=asked,
            tools=[find_order],
        )
        approver = Agent(
            name="approver",
            instructions="Ask the manager before you approve.",
            model=asked,
            model_settings=_MUST,
            tools=[ask_manager],
        )
        self._triage = Agent(
            name="triage",
            instructions="Hand questions about orders over.",
            model=asked,
            handoffs=[orders],
        )
        self._adviser = Agent(
            name="adviser",
            instructions="Advise in three hundred words or more.",
            model=asked,
        )
        self._refund = Agent(
            name="refund",
            instructions="Have refunds approved.",
            model=asked,
            model_settings=_MUST,
            tools=[approver.as_tool("approve", "Approves refunds.")],
        )

    async def triage(self, question: str) -> str:
        """Leave the answer to whoever knows it."""
        result = await Runner.run(self._triage, question, run_config=_ORDER)
        return str(result.final_output)

    async def advise(self, question: str) -> AsyncGenerator[str]:
        """Answer word by word."""
        result = Runner.run_streamed(self._adviser, question, run_config=_ADVICE)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == _DELTA:
                yield event.data.delta

    async def refund(self, question: str) -> str:
        """Leave it to a colleague, who hangs."""
        result = await Runner.run(self._refund, question, run_config=_REFUND)
        return str(result.final_output)
