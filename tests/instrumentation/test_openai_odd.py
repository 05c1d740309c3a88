"""What servers say beside the protocol, and what the client has no model for yet."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import BaseModel, OpenAI, Stream

import agenttrace
from agenttrace.testing import fresh_runtime
from tests.instrumentation.given import HTTP, Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans

OK = ("ok", "return")
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
}
USAGE = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}


def client_of(answer: dict[str, Any] | tuple[dict[str, Any], ...]) -> OpenAI:
    """Return a client whose server answers with events (a tuple) or with JSON."""
    if isinstance(answer, tuple):
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in answer).encode()
        kind = "text/event-stream"
    else:
        body, kind = json.dumps(answer).encode(), "application/json"

    def respond(_: object) -> object:
        # In parts, so that nothing is there before it is read.
        return HTTP.Response(200, headers={"content-type": kind}, content=iter([body]))

    http = HTTP.Client(transport=HTTP.MockTransport(respond))
    return OpenAI(
        base_url="http://odd/v1", api_key="unused", max_retries=0, http_client=http
    )


def completion(message: object) -> dict[str, Any]:
    """Return a chat completion of one choice."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "c_1", "object": "chat.completion", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
    return {**answer, "choices": [choice], "usage": usage}


def chunks(*deltas: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the chunks of a chat that is complete with them."""
    chunk = {"id": "c_1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return tuple(
        {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in [*[(each, None) for each in deltas], ({}, "stop")]
    )


def events_of(client: OpenAI) -> list[Any]:
    """Read a streamed response as the client's events."""
    return list(client.responses.create(model="m", input="x", stream=True))


def lines_of(client: OpenAI) -> list[Any]:
    """Read a streamed response as a proxy does."""
    with client.responses.with_streaming_response.create(
        model="m", input="x", stream=True
    ) as response:
        return list(response.iter_lines())


@pytest.mark.parametrize("read", [events_of, lines_of])
def test_a_last_event_the_client_has_no_model_for_is_the_last(
    spans: Spans, read: Callable[[OpenAI], object]
) -> None:
    """What it makes of it is plain JSON, and the response is cancelled all the same."""
    cancelled: dict[str, Any] = {
        **RESPONSE,
        "status": "cancelled",
        "output": [],
        "usage": USAGE,
    }
    event: dict[str, Any] = {
        "type": "response.cancelled",
        "sequence_number": 1,
        "response": cancelled,
    }

    with client_of((event,)) as client:
        read(client)

    span = spans.one()
    assert span.ending == ("cancelled", "cancel")
    assert span["response.id"] == "resp_1"
    assert span["usage.output_tokens"] == 9


def test_a_stream_in_the_background_that_was_cancelled_has_ended(spans: Spans) -> None:
    """Nobody will poll for it any more: it would stay open for ever."""
    begun: dict[str, Any] = {**RESPONSE, "status": "in_progress", "output": []}
    cancelled: dict[str, Any] = {**begun, "status": "cancelled"}
    events = (
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {"type": "response.cancelled", "sequence_number": 1, "response": cancelled},
    )

    with client_of(events) as client:
        stream = client.responses.create(
            model="m", input="x", stream=True, background=True
        )
        count = len(list(stream))

    assert count == 2
    assert agenttrace.open_spans() == ()
    assert spans.one().ending == ("cancelled", "cancel")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": "overloaded", "message": "too much"}, ("overloaded", "too much")),
        ({"code": None, "message": "too much"}, ("_OTHER", "too much")),
        ({"code": None, "message": None}, ("_OTHER", "the response failed")),
        (
            {"error": {"code": "overloaded", "message": "too much"}},
            ("overloaded", "too much"),
        ),
    ],
)
def test_an_error_event_is_told_by_what_it_has(
    spans: Spans, error: dict[str, Any], told: tuple[str, str]
) -> None:
    """The API documents one form and sends another; a code may be null in both."""
    with client_of(({"type": "error", "sequence_number": 1, **error},)) as client:
        lines_of(client)

    span = spans.one()
    assert span.ending == ("error", "return")
    assert (span.span.attributes or {})["error.type"] == told[0]
    assert span.span.status.description == told[1]


def test_content_that_cannot_be_read_costs_no_other_fact(spans: Spans) -> None:
    """An answer without a message still has been paid for."""
    with (
        fresh_runtime(capture_content=True, swallows={"openai.content"}) as fresh,
        client_of(completion(None)) as client,
    ):
        client.chat.completions.create(model="m", messages=[])
        (span,) = map(Seen, fresh.exported())

    assert span.ending == OK
    assert span["response.id"] == "c_1"
    assert span["usage.output_tokens"] == 9
    assert spans.all() == []


class Unreadable(dict[str, object]):
    """A message that is sent as JSON and cannot be asked for anything."""

    def get(self, *_: object) -> object:
        """Refuse."""
        message = "not like that"
        raise TypeError(message)


def test_messages_that_cannot_be_read_have_a_span_all_the_same(spans: Spans) -> None:
    """It is the call that somebody looks for, and not its prompt."""
    given = [Unreadable(role="user", content="hello")]
    with (
        fresh_runtime(capture_content=True, swallows={"openai.content"}) as fresh,
        client_of(completion({"role": "assistant", "content": "hi"})) as client,
    ):
        client.chat.completions.create(
            model="m", messages=[], extra_body={"messages": given}
        )
        (span,) = map(Seen, fresh.exported())

    assert span.ending == OK
    assert span["input.messages"] is None
    assert "hi" in span["output.messages"]
    assert spans.all() == []


def test_a_tool_call_that_is_none_is_told_as_far_as_it_goes(spans: Spans) -> None:
    """The server is about to refuse it, and the span has to say what was sent."""
    del spans
    asked: Any = [{"role": "assistant", "tool_calls": [{"id": "c", "function": "f"}]}]
    with (
        fresh_runtime(capture_content=True) as fresh,
        client_of(completion({"role": "assistant", "content": "hi"})) as client,
    ):
        client.chat.completions.create(model="m", messages=asked)
        (span,) = map(Seen, fresh.exported())

    assert '"id": "c", "name": null' in span["input.messages"]


def test_an_answer_in_parts_is_the_text_of_its_parts(spans: Spans) -> None:
    """Compatible servers send them where a model reasons, whole and streamed."""
    del spans
    parts = [{"type": "text", "text": "hello"}]
    with fresh_runtime(capture_content=True) as fresh:
        with client_of(completion({"role": "assistant", "content": parts})) as client:
            client.chat.completions.create(model="m", messages=[])
        with client_of(chunks({"content": parts})) as client:
            list(client.chat.completions.create(model="m", messages=[], stream=True))
        seen = [Seen(span) for span in fresh.exported()]

    for span in seen:
        assert (
            '"parts": [{"type": "text", "content": "hello"}]'
            in (span["output.messages"])
        )
        assert span["response.finish_reasons"] == ("stop",)


class Mine(BaseModel):
    """What an application wants of an answer."""

    id: str


@pytest.mark.parametrize("cast_to", [Mine, object, dict[str, Any]])
def test_an_answer_in_a_model_of_the_applications_own_is_read(
    spans: Spans,
    cast_to: Any,  # noqa: ANN401 - any class
) -> None:
    """It has the fields that somebody wanted, and need have none of the API's."""
    asked: Any = {"body": {"model": "m"}, "cast_to": cast_to}
    streamed: Any = {**asked, "stream": True, "stream_cls": Stream[cast_to]}
    whole = completion({"role": "assistant", "content": "hi"})

    with client_of(whole) as client:
        client.post("/chat/completions", **asked)
    with client_of(chunks({"content": "hi"})) as client:
        items = list(client.post("/chat/completions", **streamed))

    seen = [Seen(span) for span in spans.all()]
    assert [span.ending for span in seen] == [OK, OK]
    assert [span["response.id"] for span in seen] == ["c_1", "c_1"]
    assert [span["response.finish_reasons"] for span in seen] == [("stop",)] * 2
    assert [span["partial"] for span in seen] == [None, None]
    assert seen[0]["usage.output_tokens"] == 9
    assert seen[1]["items"] == len(items)


def test_a_stream_out_of_a_raw_response_is_read_in_any_class(spans: Spans) -> None:
    """Which one is said when it is parsed."""
    with client_of(chunks({"content": "hi"})) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=[], stream=True
        )
        items = list(raw.parse(to=Stream[Mine]))

    span = spans.one()
    assert isinstance(items[0], Mine)
    assert span["response.finish_reasons"] == ("stop",)


def test_an_answer_of_another_kind_is_no_failure(spans: Spans) -> None:
    """Where a gateway answers in its own way there is nothing to read."""
    with client_of({"foo": 1}) as client:
        client.post("/chat/completions", body={"model": "m"}, cast_to=Mine)

    assert spans.one().ending == OK


def test_a_number_of_choices_that_is_none_is_one(spans: Spans) -> None:
    """Lenient servers take it, and the stream is complete with its only choice."""
    with client_of(chunks({"content": "hi"})) as client:
        body: Any = {"n": "1"}
        list(
            client.chat.completions.create(
                model="m", messages=[], stream=True, extra_body=body
            )
        )

    span = spans.one()
    assert span.ending == OK
    assert span["partial"] is None


REFUSED: dict[str, Any] = {"error": {"code": 429, "message": "too much"}}


def test_an_error_in_place_of_an_answer_is_an_error(spans: Spans) -> None:
    """Gateways send one with a status of 200, and the client returns it as it is."""
    with client_of(REFUSED) as client:
        client.chat.completions.create(model="m", messages=[])

    span = spans.one()
    assert span.ending == ("error", "return")
    assert (span.span.attributes or {})["error.type"] == "429"
    assert span.span.status.description == "too much"
    assert span["response.finish_reasons"] is None


def test_an_error_among_the_lines_of_a_chat_is_an_error(spans: Spans) -> None:
    """To whoever reads events the client raises it; a proxy passes it on."""
    with (
        client_of((*chunks({"content": "hi"})[:1], REFUSED)) as client,
        client.chat.completions.with_streaming_response.create(
            model="m", messages=[], stream=True
        ) as response,
    ):
        lines = list(response.iter_lines())

    span = spans.one()
    assert "too much" in str(lines)
    assert span.ending == ("error", "return")
    assert (span.span.attributes or {})["error.type"] == "429"
    assert span["partial"] is True
    # The error has no id, which takes nothing from what the chunks have said.
    assert span["response.id"] is not None


def test_an_empty_list_of_choices_is_no_error(spans: Spans) -> None:
    """Usage comes so at the end of a stream, and word on content filters before it."""
    with client_of({**completion(None), "choices": [], "error": None}) as client:
        client.chat.completions.create(model="m", messages=[])

    assert spans.one().ending == OK


def test_the_server_is_the_one_that_the_module_has_been_given(
    spans: Spans, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client behind `openai.chat` looks each time, and is made only once."""
    monkeypatch.setattr(openai, "api_key", "unused")
    monkeypatch.setattr(openai, "max_retries", 0)
    monkeypatch.setattr(openai, "base_url", "http://127.0.0.1:1/v1/")
    with pytest.raises(openai.APIConnectionError):
        openai.chat.completions.create(model="m", messages=[])

    monkeypatch.setattr(openai, "base_url", f"{server.base_url}/")
    openai.chat.completions.create(model="ok", messages=[])

    ports = [Seen(span)["server.port"] for span in spans.all()]
    assert ports == [1, server.port]


def test_where_a_client_keeps_its_url_it_is_read_there(spans: Spans) -> None:
    """From openai 3 on the property imports a module each time, for every call."""
    askers: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "base_url" and frame.f_back:
            askers.add(frame.f_back.f_globals["__name__"])

    with client_of(completion({"role": "assistant", "content": "Hi"})) as client:
        sys.setprofile(note)
        try:
            client.chat.completions.create(model="m", messages=[])
        finally:
            sys.setprofile(None)

    assert (spans.one().span.attributes or {})["server.address"] == "odd"
    assert {name.partition(".")[0] for name in askers} == {"openai"}
