"""However a stream is left, its span tells how, and what had arrived."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openai
import pytest
from opentelemetry import trace

import agenttrace
from agenttrace.exceptions import class_name
from agenttrace.registry import Usual
from tests.instrumentation.given import CHAT, CUT, LONG, SILENT

if TYPE_CHECKING:
    from tests.instrumentation.given import Spans, Way

OK = ("ok", "return")


def test_a_stream_that_is_read_to_its_end_is_ok(way: Way, spans: Spans) -> None:
    """The body is closed before the iterator says so: that is not leaving it."""
    items = way.read(way.stream("ok;usage=7/9"))

    span = spans.one()
    assert span.ending == OK
    assert span["items"] == len(items)
    assert span["response.finish_reasons"] == ("stop",)
    assert span["response.id"] == (
        items[0].id if way.api == CHAT else items[0].response.id
    )
    assert 0 < span["response.time_to_first_chunk"] < 5
    assert span["partial"] is None


def test_a_span_lasts_as_long_as_its_stream(way: Way, spans: Spans) -> None:
    """A span of `create()` alone would be over before the model has said a word."""
    stream = way.stream(LONG)
    way.pull(stream)

    still_open = [span.name for span in agenttrace.open_spans()]
    way.wait(stream.close())

    assert still_open == [f"chat {LONG}"]
    assert agenttrace.open_spans() == ()
    assert spans.one().ending == ("abandoned", "close")


def test_a_stream_may_be_silent_for_longer_before_its_first_word(
    way: Way, spans: Spans
) -> None:
    """Models think first; and what is set for all chats is to count for streams too."""
    stream = way.stream(LONG)
    (record,) = agenttrace.open_spans()
    limits = [record.heartbeat_timeout]
    while record.heartbeat_timeout == limits[0]:
        way.pull(stream)
    limits.append(record.heartbeat_timeout)
    way.wait(stream.close())

    assert limits == [120, 60]
    assert {type(limit) for limit in limits} == {Usual}
    assert spans.one()["items"] < 10


def test_the_usage_of_a_stream_is_told_if_the_server_tells_it(
    chat: Way, spans: Spans
) -> None:
    """It comes in a chunk of its own, after the last choice has finished."""
    chat.read(chat.stream("usage=7/9", stream_options={"include_usage": True}))

    span = spans.one()
    assert span["usage.input_tokens"] == 7
    assert span["usage.output_tokens"] == 9


def test_the_usage_of_a_response_is_in_its_last_event(
    responses: Way, spans: Spans
) -> None:
    """It need not be asked for there."""
    responses.read(responses.stream("usage=7/9"))

    span = spans.one()
    assert span["usage.input_tokens"] == 7
    assert span["usage.output_tokens"] == 9
    assert span["usage.reasoning.output_tokens"] == 0


def test_a_loop_that_is_left_leaves_the_span_open(way: Way, spans: Spans) -> None:
    """Whoever keeps the stream may read on; nobody but its owner can know."""
    stream = way.stream("ok")
    way.take(stream, 2)

    between = len(agenttrace.open_spans())
    way.read(stream)

    assert between == 1
    assert spans.one().ending == OK


def test_a_stream_that_is_left_and_dropped_is_abandoned(way: Way, spans: Spans) -> None:
    """The garbage collector is the only one who notices."""
    taken = len(way.take(way.stream(LONG), 5))
    way.collect()

    span = spans.one()
    assert span.ending == ("abandoned", "gc")
    assert span["items"] == taken == 5
    assert span["partial"] is True
    assert span.span.status.status_code is trace.StatusCode.UNSET


def test_a_stream_that_is_dropped_unread_is_abandoned(way: Way, spans: Spans) -> None:
    """Its generator was never begun, so nothing in it runs when it is collected."""
    way.stream(LONG)
    way.collect()

    span = spans.one()
    assert span.ending == ("abandoned", "gc")
    assert span["stream.unread"] is True


def test_a_stream_that_is_kept_unread_stays_open(way: Way, spans: Spans) -> None:
    """It is told as lost when the process ends, and by the watchdog before."""
    stream = way.stream(LONG)

    still_open = len(agenttrace.open_spans())
    way.wait(stream.close())

    assert still_open == 1
    assert spans.one()["stream.unread"] is True


def test_leaving_a_with_block_closes_the_span(way: Way, spans: Spans) -> None:
    """It is how the library says a stream should be used."""
    stream = way.stream(LONG)
    way.enter(stream)
    way.pull(stream)
    way.leave(stream)

    span = spans.one()
    assert span.ending == ("abandoned", "close")
    assert span["items"] == 1


def test_closing_after_the_last_item_is_ok(way: Way, spans: Spans) -> None:
    """Many loops stop at `finish_reason`: nothing was abandoned then."""
    stream = way.stream("ok")
    last = None
    while last not in ("stop", "response.completed"):
        item = way.pull(stream)
        last = item.choices[0].finish_reason if way.api == CHAT else item.type
    way.wait(stream.close())

    span = spans.one()
    assert span.ending == OK
    assert span["partial"] is None


def test_one_finished_choice_of_two_is_not_the_end(chat: Way, spans: Spans) -> None:
    """With `n=2` the other choice may still be in the middle of a sentence."""
    stream = chat.stream("ok;chunks=3", n=2)
    while chat.pull(stream).choices[0].finish_reason is None:
        pass
    chat.wait(stream.close())

    span = spans.one()
    assert span["request.choice.count"] == 2
    assert span.ending == ("abandoned", "close")


def test_a_connection_that_is_cut_is_an_error(way: Way, spans: Spans) -> None:
    """What had arrived is told: it is what the user has seen."""
    stream = way.stream("ok;chunks=8;cut=mid")

    with pytest.raises(CUT) as caught:
        way.read(stream)

    span = spans.one()
    assert span.ending == ("error", "exception")
    assert span["error.type"] == class_name(caught.type)
    assert span["partial"] is True
    assert span["output.characters"] > 0


def test_a_stream_that_falls_silent_times_out(way: Way, spans: Spans) -> None:
    """The client's own time-out is a `timed_out`, whatever its class is called."""
    stream = way.stream("ok;chunks=8;stall=mid", timeout=0.3)

    with pytest.raises(SILENT):
        way.read(stream)

    span = spans.one()
    assert span.ending == ("timed_out", "exception")
    assert span["error.type"] == "timeout"
    assert span["partial"] is True


def test_a_chat_that_fails_half_way_is_an_error(chat: Way, spans: Spans) -> None:
    """The server sends the error as an event; the client raises it."""
    stream = chat.stream("fail=the model fell over")

    with pytest.raises(openai.APIError):
        chat.read(stream)

    assert spans.one().ending == ("error", "exception")


def test_a_response_that_fails_half_way_is_an_error(
    responses: Way, spans: Spans
) -> None:
    """The client raises nothing: it is just an event, and then the end."""
    responses.read(responses.stream("fail=the model fell over"))

    span = spans.one()
    assert span.ending == ("error", "return")
    assert span["error.type"] == "server_error"
    assert span.span.status.description == "the model fell over"


def test_garbage_in_a_stream_is_an_error(way: Way, spans: Spans) -> None:
    """The peers left such spans open, or said that all was well."""
    stream = way.stream("garbage")

    with pytest.raises(json.JSONDecodeError):
        way.read(stream)

    assert spans.one().ending == ("error", "exception")


def test_an_exception_in_the_consumer_is_not_the_streams(
    way: Way, spans: Spans
) -> None:
    """It is the consumer that failed; the stream was closed by its block."""
    stream = way.stream(LONG)
    way.enter(stream)

    with pytest.raises(LookupError):
        _fail_on(way.pull(stream))
    way.leave(stream)

    span = spans.one()
    assert span.ending == ("abandoned", "close")
    assert span["error.type"] is None


def test_two_streams_do_not_mix(way: Way, spans: Spans) -> None:
    """Each counts its own items and keeps the parent it was asked under."""
    with agenttrace.span("first"):
        one = way.stream("text=a b c d e f")
    with agenttrace.span("second"):
        two = way.stream("text=u v")
    for _ in range(3):
        way.pull(one)
        way.pull(two)
    counts = 3 + len(way.read(one)), 3 + len(way.read(two))

    seen = spans.named("chat text=a b c d e f"), spans.named("chat text=u v")
    assert tuple(span["items"] for span in seen) == counts
    parents = spans.named("first"), spans.named("second")
    for child, parent in zip(seen, parents, strict=True):
        assert child.span.parent is not None
        assert parent.span.context is not None
        assert child.span.parent.span_id == parent.span.context.span_id


def test_nothing_is_current_between_the_items(way: Way, spans: Spans) -> None:
    """What the consumer does between two items is not the model's work."""
    with agenttrace.span("consumer") as consumer:
        stream = way.stream("ok")
        after_create = trace.get_current_span()
        between = [trace.get_current_span() for _ in range(3) if way.pull(stream)]
        way.read(stream)

    assert after_create is consumer
    assert between == [consumer] * 3
    assert spans.named("consumer").ending == OK


@pytest.mark.parametrize("whole", [True, False])
def test_the_stream_helper_is_one_span(way: Way, spans: Spans, *, whole: bool) -> None:
    """It is a stream over a stream; only the inner one is the model's."""
    manager = way.resource.stream(model="ok" if whole else LONG, **way.asked())
    stream = way.enter(manager)
    if whole:
        way.read(stream)
    else:
        way.take(stream, 2)
    way.leave(manager)

    assert spans.one().ending == (OK if whole else ("abandoned", "close"))


def _fail_on(item: object) -> None:
    raise LookupError(str(type(item)))
