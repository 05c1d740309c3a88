"""Providers to compare: the SDK's own, ours, the SDK's with agenttrace beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.spans.attached import Attachment
from agenttrace.spans.provider import Ended, Provider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, Tracer

    from agenttrace.model import SpanData

RESOURCE = Resource({"service.name": "given"})
STUCK = Ending(Outcome.STUCK, EndedBy.WATCHDOG, message="no progress for 60 s")


@dataclass
class Stock:
    """A provider of the SDK, and what its processors were handed."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    @property
    def tracer(self) -> Tracer:
        """A tracer with everything a scope can have."""
        return self.provider.get_tracer("lib", "1.2", "https://schema", {"k": "v"})

    def sent(self) -> list[ReadableSpan]:
        """Return what the processors were handed, in order."""
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        """Return the only span called *name*."""
        (span,) = [span for span in self.sent() if span.name == name]
        return span


@dataclass
class Registered(Stock):
    """A provider whose open spans are known."""

    registry: OpenSpans

    def record(self, name: str) -> OpenSpan:
        """Return the record of the open span called *name*."""
        (record,) = [each for each in self.registry if each.name == name]
        return record

    def judge(self, name: str) -> bool:
        """Tell of the open span called *name* that it is stuck."""
        return self.registry.judge(self.record(name), STUCK)


@dataclass
class Lean(Registered):
    """Our provider, a processor the application added, and what the sink was given."""

    sunk: list[SpanData]


@dataclass
class Beside(Registered):
    """The SDK's provider with agenttrace attached."""

    attachment: Attachment


def stock(**options: Any) -> Stock:  # noqa: ANN401 - as the SDK takes them
    """Return the SDK's provider."""
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False, **options)
    return Stock(provider, _exporter_of(provider))


def lean(**options: Any) -> Lean:  # noqa: ANN401 - as the SDK takes them
    """Return our provider, with nothing behind it but a list."""
    sunk: list[SpanData] = []

    def sink(ended: Ended) -> None:
        sunk.append(ended.data())
        ended.written()

    registry = OpenSpans()
    provider = Provider(registry, sink, resource=RESOURCE, **options)
    return Lean(provider, _exporter_of(provider), registry, sunk)


def waiting(given: Lean) -> list[Any]:
    """Have what ends wait in the list that is returned, as in a spooler's queue."""
    queue: list[Any] = []
    assert isinstance(given.provider, Provider)
    given.provider.sink = queue.append
    return queue


def beside(*, concurrent: bool = False, **options: Any) -> Beside:  # noqa: ANN401 - as the SDK takes them
    """Return the SDK's provider with agenttrace attached."""
    if concurrent:
        options["active_span_processor"] = ConcurrentMultiSpanProcessor()
    made = stock(**options)
    registry = OpenSpans()
    attachment = Attachment(made.provider, registry)
    return Beside(made.provider, made.exporter, registry, attachment)


def composite_of(provider: TracerProvider) -> object:
    """Return what the provider's spans are handed to."""
    return vars(provider)["_active_span_processor"]


def ended_as(span: ReadableSpan) -> tuple[object, object]:
    """Return how *span* ended, and by what."""
    values: Mapping[str, object] = span.attributes or {}
    return values.get("agenttrace.outcome"), values.get("agenttrace.ended_by")


def id_of(span: Span | ReadableSpan) -> int:
    """Return the span id of any span, as a number."""
    context = span.get_span_context()
    assert context is not None
    return int(context.span_id)


def _exporter_of(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter
