"""Fixtures of everything about web frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import safety
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.model_server import ModelServer
from tests.context.runners import RUNNERS, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Configure agenttrace, and return what returns the spans that have ended."""
    exporter = InMemorySpanExporter()
    before = safety.guard_hits()

    def ended() -> list[ReadableSpan]:
        assert runtime.flush(30)
        return list(exporter.get_finished_spans())

    with agenttrace.configure(span_exporter=exporter) as runtime:
        agenttrace.instrument("django", "openai")
        yield ended
        agenttrace.uninstrument()
        collect_garbage()
        PROCESS.sweep()
        assert runtime.open_spans() == ()
    assert safety.guard_hits() == before


@pytest.fixture
def loop() -> Runner:
    """Return the usual kind of event loop."""
    return RUNNERS[0]


@pytest.fixture(scope="session")
def models() -> Iterator[ModelServer]:
    """Serve models that do what their names say."""
    with ModelServer(ModelServer.by_model_name) as running:
        yield running
