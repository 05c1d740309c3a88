"""Beside another provider: its processors carry our spans, a gate watches all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk import trace as sdk

    from agenttrace.registry import OpenSpans


class Attachment:
    """A gate in the provider of an application."""

    def __init__(self, provider: sdk.TracerProvider, registry: OpenSpans) -> None:
        self._provider = provider
        self.tracer = tracing.ApiTracer(provider.get_tracer("agenttrace"), registry.find)

    def detach(self) -> None:
        """Take the gate out."""
