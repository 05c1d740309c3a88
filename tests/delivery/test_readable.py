"""What speaks the SDK's interface reads our spans, and we read the SDK's."""

from __future__ import annotations

import json
import logging

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from agenttrace.delivery.otlp import decode, encode
from agenttrace.delivery.readable import from_readable, to_readable
from agenttrace.model import EventData, LinkData, ResourceData, ScopeData, SpanData

SPAN = SpanData(
    trace_id=bytes(range(16)),
    span_id=bytes(range(8)),
    parent_id=b"\7" * 8,
    parent_is_remote=True,
    trace_state="vendor=1,other=2",
    name="chat gpt-4o",
    kind=SpanKind.CLIENT,
    start_time=1_800_000_000_000_000_000,
    end_time=1_800_000_001_000_000_000,
    attributes={"mixed": (1, "a", None), "nested": {"k": b"\xff"}, "n": 17},
    events=(EventData(5, "exception", {"exception.type": "ValueError"}, 1),),
    links=(LinkData(b"\1" * 16, b"\2" * 8, True, {"n": 1}, 2),),  # noqa: FBT003 - the fields of a record
    status=StatusCode.ERROR,
    status_message="ValueError: no",
    dropped_attributes=3,
    dropped_events=4,
    dropped_links=5,
    resource=ResourceData({"service.name": "support"}, "https://example/1"),
    scope=ScopeData("agenttrace", "1.0", "https://example/2", {"beta": True}),
)


def test_an_exporter_reads_everything_that_the_sdk_lets_it_read() -> None:
    """A custom exporter must not notice that the span was not made by the SDK."""
    readable = to_readable(SPAN)

    assert isinstance(readable, ReadableSpan)
    assert readable.context is not None
    assert readable.context.is_valid
    assert readable.context.trace_flags.sampled
    assert readable.context.trace_state.to_header() == SPAN.trace_state
    assert readable.parent is not None
    assert readable.parent.is_remote
    assert readable.attributes == SPAN.attributes
    assert readable.status.description == "ValueError: no"
    assert readable.events[0].dropped_attributes == 1
    assert readable.links[0].dropped_attributes == 2
    assert readable.dropped_attributes == 3
    assert readable.dropped_events == 4
    assert readable.dropped_links == 5
    assert readable.resource.attributes["service.name"] == "support"
    assert readable.instrumentation_scope is not None
    assert readable.instrumentation_scope.name == "agenttrace"
    plain = to_readable(SPAN._replace(attributes={"n": 17}))
    assert json.loads(plain.to_json())["name"] == "chat gpt-4o"


def test_a_span_that_was_sent_reads_as_the_one_that_was_made() -> None:
    """Exporters are given what the spool kept, not what the application held."""
    (kept,) = decode(encode([SPAN]))

    assert from_readable(to_readable(kept)) == SPAN


def test_what_the_sdk_made_is_read_whole() -> None:
    """Other libraries' spans reach our encoder by this way only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "support"}, "https://example/1"),
        span_limits=SpanLimits(max_attributes=2),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("lib", "2.0", "https://example/2", {"beta": True})
    link = Link(SpanContext(1, 2, is_remote=True), {"why": "resumed"})

    with tracer.start_as_current_span("parent") as parent:
        span = tracer.start_span("child", kind=SpanKind.SERVER, links=[link])
        span.set_attributes({"gone": 0, "a": 1, "b": ("x", "y")})
        span.add_event("progress", {"page": 4}, timestamp=6)
        span.set_status(Status(StatusCode.ERROR, "no"))
        span.end(end_time=2**60)
    child = from_readable(exporter.get_finished_spans()[0])

    assert child == SpanData(
        trace_id=parent.get_span_context().trace_id.to_bytes(16, "big"),
        span_id=span.get_span_context().span_id.to_bytes(8, "big"),
        parent_id=parent.get_span_context().span_id.to_bytes(8, "big"),
        name="child",
        kind=SpanKind.SERVER,
        start_time=child.start_time,
        end_time=2**60,
        attributes={"a": 1, "b": ("x", "y")},
        events=(EventData(6, "progress", {"page": 4}),),
        links=(
            LinkData(
                (1).to_bytes(16, "big"),
                (2).to_bytes(8, "big"),
                is_remote=True,
                attributes={"why": "resumed"},
            ),
        ),
        status=StatusCode.ERROR,
        status_message="no",
        dropped_attributes=1,
        resource=ResourceData({"service.name": "support"}, "https://example/1"),
        scope=ScopeData("lib", "2.0", "https://example/2", {"beta": True}),
    )


def test_a_span_that_is_hardly_one_is_read_all_the_same() -> None:
    """Processors make spans by hand, with next to nothing in them."""
    span = from_readable(ReadableSpan("bare", resource=Resource({})))

    assert span.trace_id == bytes(16)
    assert span.parent_id == b""
    assert (span.start_time, span.end_time) == (0, 0)
    assert span.scope == ScopeData("")
    assert decode(encode([span])) == [span]


def test_values_that_are_not_clean_become_so() -> None:
    """A redacting processor sets what it likes; it must not reach the encoder."""
    span = ReadableSpan("s", resource=Resource({}), attributes={"l": ["a", "b"]})

    assert from_readable(span).attributes == {"l": ("a", "b")}


def test_resources_and_scopes_are_made_once() -> None:
    """They are on every span, and building one costs more than the span does."""
    first, second = to_readable(SPAN), to_readable(SPAN._replace(name="other"))

    assert first.resource is second.resource
    assert first.instrumentation_scope is second.instrumentation_scope
    assert from_readable(first).resource is from_readable(second).resource
    assert from_readable(first).scope is from_readable(second).scope


@pytest.mark.parametrize("status", StatusCode)
def test_a_message_without_an_error_is_left_out_in_silence(
    status: StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK would log a warning of its own for each span, about nothing of ours."""
    with caplog.at_level(logging.WARNING):
        readable = to_readable(SPAN._replace(status=status, status_message="why"))

    assert readable.status.status_code is status
    assert caplog.records == []
