"""The real client of openai, pointed at the model server, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai import OpenAI

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

    from agenttrace.testing.model_server import ModelServer

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]


def client_of(
    server: ModelServer, *, max_retries: int = 0, timeout: float = 10
) -> OpenAI:
    return OpenAI(
        base_url=server.base_url,
        api_key="unused",
        max_retries=max_retries,
        timeout=timeout,
    )
