"""Fixtures of everything about web frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrace.testing.model_server import ModelServer
from tests.context.recorded import recorded
from tests.context.runners import RUNNERS, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Configure agenttrace, and return what returns the spans that have ended."""
    with recorded("django", "openai") as ended:
        yield ended


@pytest.fixture
def loop() -> Runner:
    """Return the usual kind of event loop."""
    return RUNNERS[0]


@pytest.fixture(scope="session")
def models() -> Iterator[ModelServer]:
    """Serve models that do what their names say."""
    with ModelServer(ModelServer.by_model_name) as running:
        yield running
