"""The public verbs: what an application writes to say what it does.

They hold no state: spans go to the port (`tracing`), and what is current is OTel's.
All of them are legal before `configure()`, and cheap when tracing is disabled.
"""

from agenttrace.api.decorators import agent, tool, traced, workflow
from agenttrace.api.verbs import background, continue_trace, heartbeat, hold, span
from agenttrace.context.bound import bind
from agenttrace.context.carriers import carrier, carry

__all__ = [
    "agent",
    "background",
    "bind",
    "carrier",
    "carry",
    "continue_trace",
    "heartbeat",
    "hold",
    "span",
    "tool",
    "traced",
    "workflow",
]
