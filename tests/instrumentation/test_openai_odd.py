"""What servers say beside the protocol, and what the client has no model for yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI

import agenttrace
from tests.instrumentation.given import HTTP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.instrumentation.given import Spans

OK = ("ok", "return")
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
}
USAGE = {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}


def client_of(answer: Any) -> OpenAI:  # noqa: ANN401 - any JSON, or events
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
