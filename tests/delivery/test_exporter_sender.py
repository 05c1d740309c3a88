"""Whatever speaks OpenTelemetry's interface for exporters can be a destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import opentelemetry.context as otel
import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agenttrace.delivery.senders import Delivered, Later
from agenttrace.delivery.senders.exporter import ExporterSender
from tests.delivery.given import frame, put, spooling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

HIDDEN = "s3cr3t"


class Exporter(SpanExporter):
    """Does with the spans what it is told to."""

    def __init__(self, does: Callable[[Sequence[ReadableSpan]], object]) -> None:
        self._does = does
        self.is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> Any:  # noqa: ANN401 - what some return is no result
        """Do it."""
        return self._does(spans)

    def shutdown(self) -> None:
        """Take note."""
        self.is_shut_down = True


def test_the_exporter_is_given_the_spans_of_the_frame() -> None:
    """With ids, attributes, resource and scope, as the SDK would give them."""
    exporter = InMemorySpanExporter()

    answer = ExporterSender(exporter).send(frame("plan", "chat gpt-5"), 10)

    first, second = exporter.get_finished_spans()
    assert answer == Delivered()
    assert [first.name, second.name] == ["plan", "chat gpt-5"]
    assert dict(first.attributes or {}) == {"key": "value"}
    assert first.resource.attributes["service.name"] == "support"
    assert first.instrumentation_scope is not None
    assert first.instrumentation_scope.name == "agenttrace"


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, False])
def test_what_is_no_success_is_tried_later(result: object) -> None:
    """The interface knows no refusal."""
    sender = ExporterSender(Exporter(lambda _: result))

    assert sender.send(frame(), 10) == Later("Exporter failed")


def test_an_exporter_that_returns_nothing_is_given_every_span_once() -> None:
    """The SDK never looks at the result, so many an exporter has none."""
    got: list[str] = []
    exporter = Exporter(lambda spans: got.extend(span.name for span in spans))

    with spooling(ExporterSender(exporter)) as running:
        put(running)
        settled = running.flush(30)

    assert settled
    assert got == ["chat gpt-5"]


def test_an_exporter_that_raises_is_tried_later_and_not_quoted() -> None:
    """Its message may hold what the spans hold."""

    def fail(spans: Sequence[ReadableSpan]) -> object:
        raise ValueError(HIDDEN, spans)

    answer = ExporterSender(Exporter(fail)).send(frame(attribute=HIDDEN), 10)

    assert answer == Later("Exporter raised ValueError")


def test_closing_the_sender_shuts_the_exporter_down() -> None:
    """It may hold the last batch back until then."""
    exporter = Exporter(lambda _: SpanExportResult.SUCCESS)

    ExporterSender(exporter).close()

    assert exporter.is_shut_down


def test_what_an_exporter_does_is_not_traced() -> None:
    """A traced export makes a span, which is exported, which makes a span."""
    seen: list[object] = []

    def look(_: Sequence[ReadableSpan]) -> object:
        seen.append(otel.get_value("suppress_instrumentation"))
        return SpanExportResult.SUCCESS

    ExporterSender(Exporter(look)).send(frame(), 10)

    assert seen == [True]
