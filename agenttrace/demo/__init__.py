"""`agenttrace demo`: eight runs of a real application, and the account of every span.

The application is a small support desk: FastAPI under uvicorn, with the real openai
client and the OpenAI Agents SDK, against a model server on loopback.  `play` drives it
through what happens to agents in production, `close` reads back what the store has of
it and compares.
Between the two nothing is kept but what an independent listener has counted.

| module | owns |
|---|---|
| `models` | who answers the desk, and what |
| `desk` | the application: routes, and agents that are plain functions |
| `team` | the agents of the OpenAI Agents SDK |
| `web` | uvicorn in a thread, and the visitor who talks to it |
| `worker` | the process that is killed |
| `scenarios` | the eight runs and what each must come to |
| `tally` | the independent count of what has started |
| `account` | what the store has of it, and the comparison |
| `backend` | where the traces can be looked at, and what a Jaeger there has |
| `screen` | what is shown, to people and to programs |
| `stage` | the order of it all |

Importing this imports nothing that comes with the extra `demo`.
"""

from __future__ import annotations

from agenttrace.demo.stage import Played, check_extra, close, play

__all__ = ["Played", "check_extra", "close", "play"]
