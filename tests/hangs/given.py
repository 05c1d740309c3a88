"""What the programs of the catalogue share: servers that others run, and clients."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

MODELS: Final = "AGENTTRACE_TEST_MODELS"
"""The variable that says where the model server is; its models are scripts."""
SILENCE: Final = "AGENTTRACE_TEST_SILENCE"
"""The variable with the port of a server that accepts, and never says a word."""
LONG: Final = 600.0
"""Seconds: a time-out that no program lives to see."""
REFUSED_ONCE: Final = "refused "
"""What the name of a model begins with that is refused once, and then answers."""
WARM: Final = "ok"
"""The model that answers at once."""
QUESTION: Final[list[Any]] = [{"role": "user", "content": "What is the time?"}]


def silent_port() -> int:
    """Return the port of the server that never says a word, on 127.0.0.1."""
    return int(os.environ[SILENCE])


def silent_url() -> str:
    """Return where that server would speak HTTP."""
    return f"http://127.0.0.1:{silent_port()}"


def client(**options: Any) -> OpenAI:  # noqa: ANN401 - the client's own
    """Return a client that has made its first requests.

    With these the library imports, and builds, for a good part of a second: which is
    silence, and where it happens on a loop, blocks that.
    """
    from openai import OpenAI  # noqa: PLC0415 - by the programs that use it alone

    made = OpenAI(base_url=os.environ[MODELS], api_key="-", **options)
    made.chat.completions.create(model=WARM, messages=QUESTION)
    for _ in made.chat.completions.create(model=WARM, messages=QUESTION, stream=True):
        pass
    return made


def client_of_responses(**options: Any) -> OpenAI:  # noqa: ANN401 - the client's own
    """Return a client that has made its first requests for responses."""
    made = client(**options)
    made.responses.create(model=WARM, input="?")
    for _ in made.responses.create(model=WARM, input="?", stream=True):
        pass
    return made


async def async_client(**options: Any) -> AsyncOpenAI:  # noqa: ANN401 - the client's own
    """Return an asynchronous client, after another one's first requests in a thread."""
    await asyncio.to_thread(client)
    return await _async_client(**options)


async def async_client_of_responses() -> AsyncOpenAI:
    """Return an asynchronous client, after another one's first for responses."""
    await asyncio.to_thread(client_of_responses)
    return await _async_client()


async def _async_client(**options: Any) -> AsyncOpenAI:  # noqa: ANN401 - the client's own
    from openai import AsyncOpenAI  # noqa: PLC0415 - by the programs that use it alone

    made = AsyncOpenAI(base_url=os.environ[MODELS], api_key="-", **options)
    await made.chat.completions.create(model=WARM, messages=QUESTION)
    return made
