"""The bare SDK, set up as in its documentation: what others are measured against."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agenttrace import _otel

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.benchmarks.servers import Receiver

_ROOM = 10_000
PATH = "/sdk/v1/traces"
"""Where the SDK's spans are sent, so that ours can be counted."""


class BareSdk:
    """A provider of the SDK with a batch processor and an OTLP exporter."""

    def __init__(self, receiver: Receiver) -> None:
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": "benchmark"}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{receiver.url}{PATH}")
        # With room for a batch of ours: what is dropped costs less than what is sent.
        processor = BatchSpanProcessor(exporter, max_queue_size=_ROOM)
        self.provider.add_span_processor(processor)
        self.tracer = self.provider.get_tracer("application")

    def flush(self) -> None:
        """Send what has ended."""
        assert self.provider.force_flush()

    @contextmanager
    def context(self) -> Generator[None]:
        """Give the SDK back its own runtime context: ours must not slow it down."""
        ours: Any = _otel.runtime_context()
        stock = ContextVarsRuntimeContext()
        # One variable for both, or spans would lose their parents.
        vars(stock)["_current_context"] = ours.variable
        _otel.set_runtime_context(stock)
        try:
            yield
        finally:
            _otel.set_runtime_context(ours)


@contextmanager
def bare_sdk(receiver: Receiver) -> Generator[BareSdk]:
    """Set the SDK up, and shut it down."""
    sdk = BareSdk(receiver)
    try:
        yield sdk
    finally:
        sdk.provider.shutdown()


def attributes(step: int) -> dict[str, str | int | float | bool]:
    """Return the ten attributes that a model call is usually told with."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": f"chatcmpl-{step}",
        "gen_ai.usage.input_tokens": 1234,
        "gen_ai.usage.output_tokens": 56,
        "server.address": "api.example.com",
        "step": step,
    }
