"""A model server on loopback that speaks the OpenAI protocol, scripted in Python.

    from agenttrace.testing.model_server import ModelServer, text, tool_call

    def script(request):
        if not request.tool_results:
            return tool_call("search", {"query": request.text})
        return text("Found it.", gap=0.05, stall="mid")

    with ModelServer(script) as server:
        client = OpenAI(base_url=server.base_url, api_key="unused")

Real clients talk to it over real sockets: Chat Completions, Responses (background ones
too), Embeddings and Models, plain and streamed, also under Azure's paths.  A script is
a callable that is given a `Request` and returns a `Reply`; a reply carries what to say
and every fault of a model server that an agent must survive: slow, silent, cut off,
broken.  What happened is on `ModelServer.requests`, and can be waited for.

It is no model and no emulator: it remembers no conversation, counts no real tokens,
checks no API key, and never listens beyond 127.0.0.1.

| module | owns |
|---|---|
| `server` | the thread, the loop, the port |
| `answering` | which request gets which answer |
| `requests`, `replies`, `scripts`, `model_names` | what a script sees and says |
| `exchanges` | what a test sees |
| `faults` | what goes wrong, one reply each |
| `chat`, `responses`, `embeddings`, `encoding` | the wire forms, as pure functions |
| `connection`, `sending` | HTTP, and the pace and the faults of one answer |
"""

from __future__ import annotations

from agenttrace.testing.model_server.exchanges import End, Exchange, State
from agenttrace.testing.model_server.faults import FAULTS
from agenttrace.testing.model_server.replies import (
    Failure,
    Options,
    Part,
    Reply,
    Text,
    ToolCall,
    error,
    json_value,
    text,
    tool_call,
)
from agenttrace.testing.model_server.requests import Kind, Request
from agenttrace.testing.model_server.scripts import Script, echo, in_turn
from agenttrace.testing.model_server.server import ModelServer

__all__ = [
    "FAULTS",
    "End",
    "Exchange",
    "Failure",
    "Kind",
    "ModelServer",
    "Options",
    "Part",
    "Reply",
    "Request",
    "Script",
    "State",
    "Text",
    "ToolCall",
    "echo",
    "error",
    "in_turn",
    "json_value",
    "text",
    "tool_call",
]
