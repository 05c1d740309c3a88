"""Model servers, and a client of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agenttrace.testing.model_server import ModelServer, Reply, in_turn
from tests.testing.clients import client_of

if TYPE_CHECKING:
    from openai import OpenAI

Serve = Callable[[Reply], ModelServer]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """Serve models that do what their names say."""
    with ModelServer(ModelServer.by_model_name) as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[OpenAI]:
    with client_of(server) as connected:
        yield connected


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that give one reply, and stop them after the test."""
    with ExitStack() as running:
        yield lambda reply: running.enter_context(ModelServer(in_turn(reply)))
