"""What goes wrong with model servers, one reply each, for tests to go through.

    @pytest.mark.parametrize("fault", FAULTS)
    def test_the_agent_comes_to_an_end(fault, agenttrace_model_server):
        agenttrace_model_server.script = in_turn(FAULTS[fault])

Whoever wants another pace or another moment makes a reply of their own.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agenttrace.testing.model_server.replies import error, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.testing.model_server.replies import Reply

_WORDS: Final = "one two three"

FAULTS: Final[Mapping[str, Reply]] = MappingProxyType(
    {
        "never answers": text(_WORDS, stall="head"),
        "stalls half way": text(_WORDS, stall="mid"),
        "stalls with comments": text(_WORDS, stall="mid", keep_alive_comments=0.05),
        "hangs up": text(_WORDS, cut="head"),
        "is cut half way": text(_WORDS, cut="mid"),
        "slow headers": text(_WORDS, delay=0.2),
        "drips": text(_WORDS, drip=0.001),
        "sends garbage": text(_WORDS, garbage=True),
        "fails half way": text(_WORDS, fail="the model failed"),
        "status 429": error(429, headers={"retry-after": "0"}),
        "status 500": error(500),
    }
)
"""Replies that are at fault, by what they do.  The first three never come to an end:
their requests are released with `ModelServer.release`, or when the server stops."""
