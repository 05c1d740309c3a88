"""A model server, spans to look at, and every way to call a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace.testing.model_server import ModelServer
from tests.instrumentation.given import CHAT, RESPONSES, Spans, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.instrumentation.given_agents import Desk


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    """Serve models that do what their names say."""
    with ModelServer(ModelServer.by_model_name) as running:
        yield running


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Trace into memory, with every instrumentation in place."""
    exporter = InMemorySpanExporter()
    with agenttrace.configure(span_exporter=exporter) as runtime:
        agenttrace.instrument()
        yield Spans(exporter, runtime)
        agenttrace.uninstrument()


@pytest.fixture
def without_vendor() -> Iterator[None]:
    """Send nothing to the vendor, in the way the Agents SDK's own docs say."""
    import agents  # noqa: PLC0415 - it takes a second, and few tests need it

    agents.set_trace_processors([])
    yield
    agents.set_trace_processors([])


@pytest.fixture(params=["responses", "chat"])
def desk(request: pytest.FixtureRequest, server: ModelServer) -> Iterator[Desk]:
    """Run the test of the Agents SDK with both APIs."""
    from tests.instrumentation.given_agents import Desk  # noqa: PLC0415 - the same

    one = Desk(server.base_url, use_responses=request.param == "responses")
    yield one
    one.stop()


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Run the test in both colours."""
    return bool(request.param == "async")


@pytest.fixture(params=[CHAT, RESPONSES])
def way(
    request: pytest.FixtureRequest,
    server: ModelServer,
    spans: Spans,  # noqa: ARG001 - traced from the start
    *,
    is_async: bool,
) -> Iterator[Way]:
    """Run the test in both colours, with both APIs."""
    one = Way(request.param, server.base_url, is_async=is_async)
    yield one
    one.stop()


@pytest.fixture
def chat(server: ModelServer, spans: Spans, *, is_async: bool) -> Iterator[Way]:  # noqa: ARG001 - traced from the start
    """Run the test in both colours, with chat completions."""
    one = Way(CHAT, server.base_url, is_async=is_async)
    yield one
    one.stop()


@pytest.fixture
def responses(server: ModelServer, spans: Spans, *, is_async: bool) -> Iterator[Way]:  # noqa: ARG001 - traced from the start
    """Run the test in both colours, with responses."""
    one = Way(RESPONSES, server.base_url, is_async=is_async)
    yield one
    one.stop()
