"""Who asks the model server: the real client of openai, and bare connections."""

from __future__ import annotations

import json
import socket
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


def request_bytes(*, stream: bool = True, head: str = "") -> bytes:
    body = json.dumps({"model": "gpt-5", "messages": HELLO, "stream": stream}).encode()
    start = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    return f"{start}{head}content-length: {len(body)}\r\n\r\n".encode() + body


def connect(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(65_536):
        received += data
    return bytes(received)
