"""Raw and streaming responses: what nobody parses, the span reads for itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import agenttrace
from tests.instrumentation.given import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.instrumentation.given import Spans, Way

OK = ("ok", "return")


def test_a_raw_response_that_nobody_parses_has_its_usage(
    way: Way, spans: Spans
) -> None:
    """Frameworks take the headers and parse later, or never."""
    raw = way.wait(
        way.resource.with_raw_response.create(model="usage=7/9", **way.asked())
    )

    span = spans.one()
    assert span.ending == OK
    assert span["usage.input_tokens"] == 7
    assert span["usage.output_tokens"] == 9
    assert span["response.id"] == json.loads(raw.content)["id"]
    assert span["response.finish_reasons"] == ("stop",)


def test_a_raw_embedding_has_its_usage(chat: Way, spans: Spans) -> None:
    """The large frameworks call it so."""
    resource = chat.client.embeddings.with_raw_response
    chat.wait(resource.create(model="ok", input="a b"))

    assert spans.one()["usage.input_tokens"] == 2


@pytest.mark.parametrize("read_all", [True, False])
def test_a_stream_out_of_a_raw_response_is_followed(
    way: Way, spans: Spans, *, read_all: bool
) -> None:
    """The stream object is made long after the request, by `parse()`."""
    raw = way.wait(
        way.resource.with_raw_response.create(
            model="ok" if read_all else LONG, stream=True, **way.asked()
        )
    )
    stream = raw.parse()
    if read_all:
        count = len(way.read(stream))
    else:
        count = len(way.take(stream, 4))
        way.wait(stream.close())

    span = spans.one()
    assert span.ending == (OK if read_all else ("abandoned", "close"))
    assert span["items"] == count


READERS: dict[str, Callable[[Way, Any], object]] = {
    "json": lambda way, response: way.wait(response.json()),
    "read": lambda way, response: way.wait(response.read()),
    "parse": lambda way, response: way.wait(response.parse()),
    "iter_lines": lambda way, response: way.read(response.iter_lines()),
    "iter_bytes": lambda way, response: way.read(response.iter_bytes(16)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_streaming_response_lasts_until_its_body_is_read(
    way: Way, spans: Spans, reader: str
) -> None:
    """However the bytes are taken: the usage is among them."""
    manager = way.resource.with_streaming_response.create(
        model="usage=7/9", **way.asked()
    )
    response = way.enter(manager)
    still_open = len(agenttrace.open_spans())

    READERS[reader](way, response)
    ended = len(agenttrace.open_spans()) == 0
    way.leave(manager)

    assert still_open == 1
    assert ended
    span = spans.one()
    assert span.ending == OK
    assert span["usage.output_tokens"] == 9


def test_a_streaming_response_that_nobody_reads_is_abandoned(
    way: Way, spans: Spans
) -> None:
    """The model has worked for nothing, and that is worth knowing."""
    manager = way.resource.with_streaming_response.create(model="ok", **way.asked())
    way.enter(manager)
    way.leave(manager)

    span = spans.one()
    assert span.ending == ("abandoned", "close")
    assert span["stream.unread"] is True


def test_events_that_are_read_as_lines_are_read_by_the_span_too(
    way: Way, spans: Spans
) -> None:
    """A proxy passes the lines on and never parses one."""
    manager = way.resource.with_streaming_response.create(
        model="ok", stream=True, **way.asked()
    )
    response = way.enter(manager)
    lines = way.read(response.iter_lines())
    way.leave(manager)

    span = spans.one()
    assert span.ending == OK
    assert span["items"] == sum(
        line.startswith("data:") and "[DONE]" not in line for line in lines
    )
    assert span["response.finish_reasons"] == ("stop",)
    assert span["response.time_to_first_chunk"] > 0


def test_lines_that_are_left_in_the_middle_are_abandoned(
    way: Way, spans: Spans
) -> None:
    """The proxy's own client went away."""
    manager = way.resource.with_streaming_response.create(
        model=LONG, stream=True, **way.asked()
    )
    response = way.enter(manager)
    way.take(response.iter_lines(), 4)
    way.leave(manager)

    span = spans.one()
    assert span.ending == ("abandoned", "close")
    assert span["partial"] is True


def test_a_stream_out_of_a_streaming_response_is_followed(
    way: Way, spans: Spans
) -> None:
    """It is what the Agents SDK does for every streamed turn."""
    manager = way.resource.with_streaming_response.create(
        model="ok", stream=True, **way.asked()
    )
    response = way.enter(manager)
    stream = way.wait(response.parse())
    items = way.read(stream)
    way.leave(manager)

    span = spans.one()
    assert span.ending == OK
    assert span["items"] == len(items)


def test_a_streaming_response_that_is_dropped_is_abandoned(
    way: Way, spans: Spans
) -> None:
    """Entered and never left: only the garbage collector can tell."""
    way.enter(
        way.resource.with_streaming_response.create(
            model=LONG, stream=True, **way.asked()
        )
    )
    way.collect()

    assert spans.one().ending == ("abandoned", "gc")


@pytest.mark.parametrize("raw", [True, False])
def test_a_stream_whose_response_is_read_instead_is_read(
    way: Way, spans: Spans, *, raw: bool
) -> None:
    """A proxy asks for a stream and passes on the lines of the response under it."""
    if raw:
        stream = way.wait(
            way.resource.with_raw_response.create(
                model="ok", stream=True, **way.asked()
            )
        ).parse()
    else:
        stream = way.stream("ok")

    response = stream.response
    lines = way.read(response.aiter_lines() if way.is_async else response.iter_lines())

    span = spans.one()
    assert span.ending == OK
    assert span["items"] == sum(
        line.startswith("data:") and "[DONE]" not in line for line in lines
    )
    assert span["response.finish_reasons"] == ("stop",)
