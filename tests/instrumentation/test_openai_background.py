"""A response in the background is one span, from the request to its last poll."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import agenttrace
from agenttrace.boundary import pending
from tests.instrumentation.given import Seen

if TYPE_CHECKING:
    import pytest

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans, Way

OK = ("ok", "return")


def begin(way: Way, model: str) -> Any:  # noqa: ANN401 - a Response
    """Ask for a response in the background."""
    return way.create(model, background=True)


def poll(way: Way, identity: str) -> Any:  # noqa: ANN401 - a Response
    """Ask how it goes."""
    return way.wait(way.resource.retrieve(identity))


def test_polls_make_no_spans_of_their_own(responses: Way, spans: Spans) -> None:
    """One question, one answer: how often somebody looked is a number."""
    with agenttrace.span("caller") as caller:
        first = begin(responses, "polls=3;usage=7/9")
    statuses = [first.status]
    while statuses[-1] in ("queued", "in_progress"):
        statuses.append(poll(responses, first.id).status)

    span = spans.named("chat polls=3;usage=7/9")
    assert statuses[-1] == "completed"
    assert span.ending == OK
    assert span["response.polls"] == 3
    assert span["response.status"] == "completed"
    assert span["response.id"] == first.id
    assert span["usage.output_tokens"] == 9
    assert span["response.finish_reasons"] == ("stop",)
    assert span.span.parent is not None
    assert span.span.parent.span_id == caller.get_span_context().span_id
    assert len(spans.all()) == 2


def test_a_failure_in_the_background_is_an_error(responses: Way, spans: Spans) -> None:
    """The client raises nothing: the answer itself says it."""
    first = begin(responses, "fail=out of memory;polls=1")
    poll(responses, first.id)

    span = spans.one()
    assert span.ending == ("error", "return")
    assert span["error.type"] == "server_error"
    assert span.span.status.description == "out of memory"


def test_a_response_that_is_cancelled_is_cancelled(
    responses: Way, spans: Spans
) -> None:
    """Nobody's task was cancelled; the work was."""
    first = begin(responses, "never")
    responses.wait(responses.resource.cancel(first.id))

    assert spans.one().ending == ("cancelled", "cancel")


def test_an_incomplete_response_is_the_end_too(responses: Way, spans: Spans) -> None:
    """There will be nothing more of it."""
    first = begin(responses, "finish=length;polls=1")
    poll(responses, first.id)

    span = spans.one()
    assert span.ending == OK
    assert span["response.finish_reasons"] == ("length",)


def test_only_another_status_is_progress(responses: Way, spans: Spans) -> None:
    """However often it is asked, a response that stays where it is is stuck."""
    first = begin(responses, "never")
    (record,) = agenttrace.open_spans()
    poll(responses, first.id)  # from queued to in progress
    record.words[record.word] = 0

    poll(responses, first.id)
    unchanged = record.words[record.word]
    responses.wait(responses.resource.cancel(first.id))

    assert unchanged == 0
    assert spans.one()["response.polls"] == 2


def test_silence_counts_from_the_first_poll_on(responses: Way, spans: Spans) -> None:
    """Another process may poll, or a webhook bring it: that is not being stuck."""
    first = begin(responses, "never")
    (record,) = agenttrace.open_spans()
    unpolled = record.holds
    poll(responses, first.id)
    polled = record.holds
    responses.wait(responses.resource.cancel(first.id))

    assert (unpolled, polled) == (1, 0)
    assert record.heartbeat_timeout == pending.SILENCE
    assert spans.one().ending == ("cancelled", "cancel")


def test_silence_does_not_count_while_no_stream_is_open(
    responses: Way, spans: Spans
) -> None:
    """A stream that was left is nobody's, and a webhook may bring the rest."""
    stream = responses.stream("ok;chunks=12;gap=0.01", background=True)
    first, *_ = responses.take(stream, 6)
    (record,) = agenttrace.open_spans()
    holds = [record.holds]
    responses.wait(stream.close())
    holds.append(record.holds)
    again = responses.wait(responses.resource.retrieve(first.response.id, stream=True))
    holds.append(record.holds)
    responses.read(again)

    assert holds == [0, 1, 0]
    assert spans.one().ending == OK


def test_a_poll_that_fails_is_not_the_end(
    responses: Way, spans: Spans, server: ModelServer
) -> None:
    """The response goes on at the server, whatever became of the question."""
    first = begin(responses, "polls=1")
    before = responses.client
    responses.client = before.with_options(base_url=f"{server.url}/nowhere", timeout=5)
    failed = False
    try:
        poll(responses, first.id)
    except Exception:  # noqa: BLE001 - any of the client's
        failed = True
    responses.client = before
    still_open = len(agenttrace.open_spans())
    poll(responses, first.id)

    assert failed
    assert still_open == 1
    assert spans.one().ending == OK


def test_a_raw_poll_is_read_too(responses: Way, spans: Spans) -> None:
    """A framework that polls takes the raw response."""
    first = responses.wait(
        responses.resource.with_raw_response.create(
            model="polls=1", input="x", background=True
        )
    ).parse()
    responses.wait(responses.resource.with_raw_response.retrieve(first.id))

    assert spans.one().ending == OK


def test_a_poll_is_known_by_its_path_alone(responses: Way, spans: Spans) -> None:
    """The client's beta resources ask with a query behind it."""
    first = begin(responses, "polls=1")
    path = f"/responses/{first.id}?beta=true"
    responses.wait(responses.client.get(path, cast_to=object))

    assert spans.one().ending == OK


def test_a_stream_in_the_background_is_one_span(responses: Way, spans: Spans) -> None:
    """Read to its end it is like any other stream."""
    items = responses.read(responses.stream("ok", background=True))

    span = spans.one()
    assert span.ending == OK
    assert span["items"] == len(items)
    assert span["response.status"] == "completed"


def test_a_stream_that_is_taken_up_again_goes_on_in_its_span(
    responses: Way, spans: Spans
) -> None:
    """Leaving the stream leaves the response running; its span must not lie."""
    stream = responses.stream("ok;chunks=12;gap=0.01", background=True)
    taken = responses.take(stream, 6)
    responses.wait(stream.close())
    still_open = len(agenttrace.open_spans())

    identity = taken[0].response.id
    rest = responses.read(
        responses.wait(
            responses.resource.retrieve(
                identity, stream=True, starting_after=taken[-2].sequence_number
            )
        )
    )

    assert still_open == 1
    assert rest[0].sequence_number == taken[-1].sequence_number
    span = spans.one()
    assert span.ending == OK
    assert span["items"] == len(taken) + len(rest)
    assert span["response.polls"] == 1


def test_one_that_nobody_polls_is_told_at_the_end_of_the_process(
    responses: Way, spans: Spans
) -> None:
    """What became of it cannot be known here, and what it was can."""
    first = begin(responses, "never")
    spans.runtime.shutdown()

    (span,) = [Seen(span) for span in spans.exporter.get_finished_spans()]
    responses.wait(responses.resource.cancel(first.id))  # and is waited for no more
    assert span.ending == ("lost", "exit")
    assert span["response.id"] == first.id
    assert span["response.status"] == "queued"


def test_what_is_waited_for_is_bounded(
    responses: Way, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that never polls must not remember every response it asked for."""
    monkeypatch.setattr(pending, "MOST", 1)
    first = begin(responses, "never")
    second = begin(responses, "never")
    responses.collect()

    ended = spans.one()
    responses.wait(responses.resource.cancel(second.id))

    assert ended["response.id"] == first.id
    assert ended.ending == ("abandoned", "gc")


def test_a_response_of_another_process_is_not_traced(
    responses: Way, spans: Spans
) -> None:
    """Its span is there, and a poll from here says nothing about the work."""
    agenttrace.uninstrument("openai")
    first = begin(responses, "polls=2")
    agenttrace.instrument("openai")
    poll(responses, first.id)

    assert spans.all() == []
