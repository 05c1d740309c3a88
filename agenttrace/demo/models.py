"""Who answers the support desk: a scripted model on loopback, or a real one if asked.

The scripted model knows seven questions; one more never comes to a model.  Each stands
for something that happens to agents in production; how the desk copes is `scenarios`'
business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import openai

from agenttrace.testing.model_server import Reply, Request, error, in_turn, text
from agenttrace.testing.model_server import tool_call as calling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.testing.model_server import Script

ORDER: Final = "Where is order 1042?"
ROUTER: Final = "How do I set up my new router?"
COMPARE: Final = "Compare every router of the last ten years."
LIGHT: Final = "Why is the light on my router red?"
CALL: Final = "Sum up my last call."
NIGHT: Final = "Rebuild the search index."
REFUND: Final = "I want my money back."
_AMOUNT: Final = "12 euros, for a router"
LINE: Final = "Is my line working?"

SCRIPTED: Final = "demo-model"
_GAP: Final = 0.03
"""Seconds between two words, about as fast as a model on a good day."""
_PATIENCE: Final = 20.0
"""Seconds that the desk waits for the scripted model, which never needs so many."""

_HOW_TO: Final = (
    "Put the router where it can see the room, plug in the grey cable first and wait "
    "for the green light to stop blinking. Then open the page that is printed on its "
    "back, choose a name for your network, and choose a password that nobody guesses. "
    "Last, let it restart once, and connect your phone before anything else."
)
_LIGHT: Final = (
    "A red light means that the router has power but no line. Check the grey cable "
    "at both ends, and then the splitter behind it."
)


@dataclass(frozen=True, slots=True)
class Models:
    """Where the desk sends its questions.

    Args:
        model: The model's name.
        base_url: Its address; None = the client's own default.
        api_key: The key; None = `OPENAI_API_KEY`.
        scripted: Whether it is ours on loopback.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    scripted: bool = False

    def client(self) -> openai.AsyncOpenAI:
        """Return the real client for coroutines."""
        # A proxy of this machine has no business between us and loopback.
        http = (
            openai.DefaultAsyncHttpxClient(trust_env=False) if self.scripted else None
        )
        return openai.AsyncOpenAI(**self._options(), http_client=http)

    def sync_client(self) -> openai.OpenAI:
        """Return the real client for threads."""
        http = openai.DefaultHttpxClient(trust_env=False) if self.scripted else None
        return openai.OpenAI(**self._options(), http_client=http)

    def _options(self) -> Mapping[str, Any]:
        if not self.scripted:
            return {"base_url": self.base_url, "api_key": self.api_key}
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "timeout": _PATIENCE,
        }


def script() -> Script:
    """Return the answers of the scripted model, to be given once."""
    answers: dict[str, Script] = {
        ORDER: _order,
        # A run of the Agents SDK reads on whether or not anybody reads it: it must not
        # be over before the reader leaves, however slow this machine is.
        ROUTER: in_turn(text(_HOW_TO, gap=_GAP, stall="mid")),
        COMPARE: in_turn(text("Never said.", stall="head")),
        LIGHT: in_turn(text(_LIGHT, gap=_GAP, cut="mid")),
        CALL: in_turn(
            error(500, "the model is overloaded", headers={"retry-after-ms": "200"}),
            text("You asked about order 1042, and it is on its way.", delay=0.2),
        ),
        REFUND: in_turn(calling("approve", {"input": _AMOUNT})),
        _AMOUNT: in_turn(calling("ask_manager", {"amount": _AMOUNT})),
        NIGHT: in_turn(calling("rebuild_index", {}, delay=0.2)),
    }

    def answer(request: Request) -> Any:  # noqa: ANN401 - whatever the script returns
        return answers[request.text](request) if request.wants_answer else None

    return answer


def _order(request: Request) -> Reply:
    """Hand over, look up, answer."""
    said = "Order 1042 is on its way and arrives on Friday."
    steps = (
        calling("transfer_to_orders", {}, delay=0.25, usage=(38, 9)),
        calling("find_order", {"number": "1042"}, delay=0.25, usage=(61, 14)),
        text(said, delay=0.25, usage=(92, 13)),
    )
    return steps[len(request.tool_results)]
