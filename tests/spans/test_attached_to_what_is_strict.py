"""Beside another provider, what it cannot take costs no span and no batch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link

import agenttrace
from agenttrace import safety, tracing
from agenttrace.model import RETURNED, Opening
from tests.delivery.collector import Collector
from tests.spans.given import Beside, beside, ended_as

if TYPE_CHECKING:
    from collections.abc import Iterator

UNDECODED = "caf\udce9"
"""What `os.listdir` makes of a name that is not UTF-8; it cannot be encoded."""


class UnreadableError(Exception):
    """An exception whose message is a mistake of its own."""

    def __str__(self) -> str:
        """Fail."""
        raise LookupError


@pytest.fixture
def port() -> Iterator[Beside]:
    """Give the SDK's provider, agenttrace attached, with the public verbs going there.

    The provider stays as strict as it is.
    """
    given = beside()
    previous = tracing.install(given.attachment.tracer)
    yield given
    tracing.install(previous)


def test_an_exception_that_cannot_be_read_ends_its_span(port: Beside) -> None:
    """The SDK raises where it records one; the span would stay open until collected."""
    with pytest.raises(UnreadableError), agenttrace.span("work"):
        raise UnreadableError

    span = port.one("work")
    assert ended_as(span) == ("error", "exception")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    assert len(port.registry) == 0


def test_text_that_cannot_be_encoded_costs_no_batch(port: Beside) -> None:
    """One such name or message, and the exporter loses all spans that go with it."""
    with Collector() as collector:
        processor = BatchSpanProcessor(OTLPSpanExporter(collector.endpoint))
        port.provider.add_span_processor(processor)

        with pytest.raises(ValueError, match="caf"), agenttrace.span("load"):
            raise ValueError(UNDECODED)
        with agenttrace.span(UNDECODED):
            pass
        assert processor.force_flush()

        sent = {span.name for span in collector.spans()}

    assert sent == {"load", "caf\\udce9"}


@pytest.mark.parametrize("name", [None, 7, b"bytes"], ids=repr)
def test_a_name_of_any_type_is_a_name(
    port: Beside,
    name: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """The SDK takes it and its exporter fails on it."""
    with agenttrace.span(name):
        pass

    assert [type(span.name) for span in port.sent()] == [str]


@pytest.mark.parametrize(
    "links", [["text"], [None], [trace.INVALID_SPAN_CONTEXT]], ids=repr
)
def test_links_that_are_none_cost_no_span(
    port: Beside,
    links: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """Where a link belongs, many hand over a span context."""
    with agenttrace.span("linked", links=links):
        pass

    assert not port.one("linked").links


def test_a_link_keeps_its_attributes(port: Beside) -> None:
    """Of any type, as those of spans."""
    with agenttrace.span("cause") as cause:
        link = Link(cause.get_span_context(), {"k": 1, "nested": {"a": [1]}})

    with agenttrace.span("effect", links=[link]):
        pass

    (seen,) = port.one("effect").links
    assert seen.context == cause.get_span_context()
    assert dict(seen.attributes or {}) == {"k": 1, "nested": '{"a": [1]}'}


@pytest.mark.parametrize("instant", [1.7e18, -5, 1 << 70], ids=repr)
def test_a_span_that_starts_at_an_odd_time_is_watched(
    port: Beside,
    instant: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """`time.time() * 1e9` is a float, and many write it."""
    with pytest.raises(LookupError):
        end_in_failure(port.tracer.start_span("step", start_time=instant), port)

    assert ended_as(port.one("step")) == ("error", "exception")


def end_in_failure(span: trace.Span, given: Beside) -> NoReturn:
    """End *span* without a word while an exception comes out of it."""
    assert [record.name for record in given.registry] == ["step"]
    try:
        raise LookupError
    finally:
        span.end()


def test_a_block_that_is_entered_twice_at_once_says_so(port: Beside) -> None:
    """As with our own provider; the outer span would be current for ever."""
    block = agenttrace.span("one at a time")

    with pytest.raises(RuntimeError, match="entered already"), block, block:
        pass
    with block:
        pass

    outcomes = [ended_as(span)[0] for span in port.sent()]
    assert outcomes == ["error", "ok"]
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert len(port.registry) == 0


def test_a_span_is_a_decorator_whichever_provider_there_is(port: Beside) -> None:
    """Modules are decorated before anybody knows which, and before `configure()`."""
    tracing.install(None)
    decorate: Any = agenttrace.span("step")
    tracing.install(port.attachment.tracer)

    def step() -> int:
        with agenttrace.span("within"):
            return 1

    async def later() -> int:
        with agenttrace.span("within"):
            return 2

    traced, traced_later = decorate(step), decorate(later)

    assert (traced(), traced(), asyncio.run(traced_later())) == (1, 1, 2)

    names = [span.name for span in port.sent()]
    assert names == ["within", "step"] * 3
    assert port.sent()[0].parent is not None


def test_a_span_of_ours_that_is_not_sampled_is_counted() -> None:
    """Beside another provider as with our own: else the sums do not come out."""
    given = beside(sampler=sampling.ALWAYS_OFF)
    before = safety.counts()["spans_unsampled"]

    given.attachment.tracer.start(Opening("quiet"), Context()).finish(RETURNED)

    assert safety.counts()["spans_unsampled"] == before + 1
