"""Responses of the model server: whole, streamed, and in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from openai import OpenAI

from agenttrace.testing.model_server import (
    Kind,
    ModelServer,
    Reply,
    Request,
    error,
    in_turn,
    text,
)
from tests.testing.clients import client_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openai.types.responses import ResponseStreamEvent


def read_until_broken(
    stream: Iterable[ResponseStreamEvent],
) -> list[ResponseStreamEvent]:
    """Return what came before the connection broke."""
    events: list[ResponseStreamEvent] = []
    # openai 3 wraps it, openai 2 lets the HTTP library's own exception out.
    with pytest.raises(Exception, match=r"incomplete|[Cc]onnection"):
        events.extend(stream)
    return events


def test_a_response_is_streamed_with_all_its_events(client: OpenAI) -> None:
    """Events are numbered without a gap, and come in the order of the real API."""
    events = list(
        client.responses.create(model="text=one two", input="hi", stream=True)
    )

    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "one two"
    assert last.response.usage is not None


def test_the_response_stream_helper_puts_calls_together(client: OpenAI) -> None:
    """Its state machine refuses an event whose item was never added."""
    model = 'tool=search;toolargs={"q": "green tea"}'

    with client.responses.stream(model=model, input="hi") as stream:
        deltas = [
            event.delta
            for event in stream
            if event.type == "response.function_call_arguments.delta"
        ]
        final = stream.get_final_response()

    assert len(deltas) > 1
    call = final.output[0]
    assert call.type == "function_call"
    assert call.arguments == "".join(deltas) == '{"q": "green tea"}'


def test_a_response_goes_on_after_the_output_of_a_function(client: OpenAI) -> None:
    """Responses name tool results differently from Chat; a script need not care."""
    response = client.responses.create(
        model="tool=search;text=found",
        input=[
            {"role": "user", "content": "look"},
            {"type": "function_call_output", "call_id": "call_1", "output": "result"},
        ],
    )

    assert response.output_text == "found"
    assert response.status == "completed"


def test_a_background_response_completes_at_the_poll_that_was_scripted(
    client: OpenAI,
) -> None:
    """By polls, not by time, so that a test of polling need not sleep."""
    made = client.responses.create(
        model="polls=2;text=done", input="hi", background=True
    )

    polls = [client.responses.retrieve(made.id) for _ in range(3)]

    assert made.status == "queued"
    assert [poll.status for poll in polls] == ["in_progress", "completed", "completed"]
    assert polls[0].output == []
    assert polls[1].output_text == polls[2].output_text == "done"


def test_a_background_response_is_cancelled(client: OpenAI) -> None:
    """Also one that never completes, and as often as one likes."""
    made = client.responses.create(model="never", input="hi", background=True)

    before = client.responses.retrieve(made.id)
    cancelled = client.responses.cancel(made.id)
    again = client.responses.cancel(made.id)

    assert before.status == "in_progress"
    assert cancelled.status == again.status == "cancelled"


def test_release_lets_a_background_response_complete(
    server: ModelServer, client: OpenAI
) -> None:
    """How a test ends the hang that it has watched for long enough."""
    made = client.responses.create(
        model="never;text=at last", input="hi", background=True
    )
    assert client.responses.retrieve(made.id).status == "in_progress"

    server.release()
    # Told to the server's loop before this request is.
    polled = client.responses.retrieve(made.id)

    assert polled.output_text == "at last"


def test_a_background_stream_is_resumed_where_it_broke() -> None:
    """A cut strikes once; what comes after it is the rest of the same stream."""
    script = in_turn(text("one two three four", cut="mid"))

    with ModelServer(script) as server, client_of(server) as client:
        stream = client.responses.create(
            model="gpt-5", input="hi", background=True, stream=True
        )
        first = read_until_broken(stream)
        created = first[0]
        assert created.type == "response.created"
        rest = list(
            client.responses.retrieve(
                created.response.id,
                stream=True,
                starting_after=first[-1].sequence_number,
            )
        )

    numbers = [event.sequence_number for event in first + rest]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"


def test_a_background_stream_waits_for_its_turn(
    server: ModelServer, client: OpenAI
) -> None:
    """It says `in_progress` at once, and the answer when it has come."""
    stream = iter(
        client.responses.create(
            model="never;text=at last", input="hi", background=True, stream=True
        )
    )

    before = [next(stream).type.removeprefix("response.") for _ in range(3)]
    server.release()
    after = list(stream)
    timed = list(
        client.responses.create(
            model="bg=0.01", input="hi", background=True, stream=True
        )
    )

    assert before == ["created", "queued", "in_progress"]
    assert after[-1].type == timed[-1].type == "response.completed"


def test_a_synchronous_response_can_be_read_again_but_not_cancelled(
    client: OpenAI,
) -> None:
    """As the real API has it."""
    made = client.responses.create(model="text=kept", input="hi")

    again = client.responses.retrieve(made.id)

    assert again == made
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(made.id)
    with pytest.raises(openai.NotFoundError, match="resp_unknown"):
        client.responses.retrieve("resp_unknown")


@pytest.mark.parametrize(
    ("option", "status"),
    [("fail=overloaded", "failed"), ("finish=length", "incomplete")],
)
def test_a_response_can_come_to_another_end(
    client: OpenAI, option: str, status: str
) -> None:
    """Plain and streamed alike: both are an HTTP success, and no success."""
    model = f"text=one two three;{option}"

    whole = client.responses.create(model=model, input="hi")
    events = list(client.responses.create(model=model, input="hi", stream=True))

    assert whole.status == status
    assert events[-1].type == f"response.{status}"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_script_decides_also_how_a_poll_ends() -> None:
    """A poll that fails, of a response that does not, is what agents get wrong."""

    def script(request: Request) -> Reply | None:
        return error(503) if request.kind is Kind.RETRIEVE else None

    with ModelServer(script) as server, client_of(server) as client:
        made = client.responses.create(model="gpt-5", input="hi", background=True)
        with pytest.raises(openai.InternalServerError):
            client.responses.retrieve(made.id)


def test_old_responses_are_forgotten() -> None:
    """A server that runs for days in somebody's test bed must not grow."""
    with ModelServer(remember=1) as server, client_of(server) as client:
        first = client.responses.create(model="gpt-5", input="one")
        second = client.responses.create(model="gpt-5", input="two")

        assert client.responses.retrieve(second.id).output_text == "You said: two"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)
