"""What scripts see and say, and the wire forms: values and pure functions."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.errors import SettingError
from agenttrace.testing.model_server import (
    Kind,
    ModelServer,
    Options,
    Reply,
    Request,
    Text,
    ToolCall,
    error,
    in_turn,
    text,
    tool_call,
)
from agenttrace.testing.model_server.chat import ChatAnswer
from agenttrace.testing.model_server.embeddings import vector
from agenttrace.testing.model_server.encoding import (
    Frame,
    Ids,
    json_bytes,
    middle_of,
)
from agenttrace.testing.model_server.requests import read_request
from agenttrace.testing.model_server.responses import Status, StoredResponse

anything = st.text() | st.text(st.characters(categories=["Cs", "Zs", "Lu"]))
chunk_counts = st.none() | st.integers(1, 50)
parts = st.lists(st.builds(Text, anything) | st.builds(ToolCall, anything, anything))
replies = st.builds(
    Reply,
    parts=parts.map(tuple),
    chunks=chunk_counts,
    garbage=st.booleans(),
    fail=st.none() | st.just("overloaded"),
    finish_reason=st.sampled_from([None, "stop", "length", "content_filter"]),
)


def chat(**body: Any) -> Request:  # noqa: ANN401 - the body of a request is JSON
    return Request(kind=Kind.CHAT, method="POST", path="/v1", model="gpt-5", body=body)


def background(reply: Reply) -> StoredResponse:
    request = Request(
        kind=Kind.RESPONSES,
        method="POST",
        path="/v1/responses",
        model="gpt-5",
        body={"background": True, "input": "hi"},
    )
    return StoredResponse(request, reply, Ids(), created=0, started=100)


@given(anything, chunk_counts)
def test_the_pieces_of_a_stream_are_the_text(content: str, chunks: int | None) -> None:
    """No character is lost or added, and none of the pieces is empty."""
    reply = Reply() if chunks is None else Reply(chunks=chunks)

    pieces = reply.pieces(content)

    assert "".join(pieces) == content
    assert all(pieces)
    assert chunks is None or len(pieces) == min(chunks, len(content))


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_half_way_is_after_the_first_piece(paced: list[bool]) -> None:
    """A stall in the middle of an answer needs an answer to be in the middle of."""
    frames = [Frame(b"", paced=each) for each in paced]

    middle = middle_of(frames)

    assert 0 <= middle <= len(frames)
    if any(paced):
        assert any(paced[:middle])


@given(replies)
def test_the_events_of_a_response_are_numbered_without_a_gap(reply: Reply) -> None:
    """A client resumes a stream by this number."""
    opening, answer = background(reply).frames()

    numbers: list[int] = []
    for frame in [*opening, *answer]:
        line = frame.data.split(b"data: ")[1]
        if b"sequence_number" in line:
            numbers.append(json.loads(line)["sequence_number"])
    assert numbers == list(range(len(numbers)))


@given(anything)
def test_whatever_is_said_arrives(said: str) -> None:
    """Also a lone surrogate, which a client may have sent and an echo returns."""
    answer = ChatAnswer(chat(messages=[]), text(said), Ids(), created=0)

    decoded = json.loads(json_bytes(answer.whole()))

    # JSON itself makes one character of two surrogates that meet.
    expected = json.loads(json.dumps(said))
    assert decoded["choices"][0]["message"]["content"] == expected


@given(anything, st.integers(1, 64))
def test_a_vector_has_length_one_and_is_always_the_same(
    given_text: str, dimensions: int
) -> None:
    """Vector stores divide by the length, and compare across processes."""
    numbers = vector(given_text, dimensions)

    assert len(numbers) == dimensions
    assert math.hypot(*numbers) == pytest.approx(1)
    assert numbers == vector(given_text, dimensions)


@given(anything | st.lists(anything, max_size=4).map(";".join))
def test_every_model_name_gets_an_answer(model: str) -> None:
    """What cannot be read is a 400 that says so, never a script that raises."""
    request = Request(kind=Kind.CHAT, method="POST", path="/v1", model=model)

    reply = ModelServer.by_model_name(request)

    assert isinstance(reply, Reply)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5", text("word0 word1 word2 word3")),
        ("ok", text("word0 word1 word2 word3")),
        ("chunks=2", text("word0 word1", chunks=2)),
        ("text=a b;gap=0.5;stall=mid", text("a b", gap=0.5, stall="mid")),
        ("garbage", text("word0 word1 word2 word3", garbage=True)),
        ("json={};usage=3/4", text("{}", usage=(3, 4))),
        ("tool=t;toolargs=x;tools=2", tool_call("t", "x") + tool_call("t", "x")),
        ("err=503;delay=1", error(503, delay=1)),
        ("bg=2;comments=3;drip=0", text("word0 word1 word2 word3", background=2,
                                        keep_alive_comments=3, drip=0)),
    ],
)  # fmt: skip
def test_a_model_name_is_a_reply(model: str, expected: Reply) -> None:
    """The table in `model_names`, by example."""
    request = Request(kind=Kind.CHAT, method="POST", path="/v1", model=model)

    assert ModelServer.by_model_name(request) == expected


@pytest.mark.parametrize(
    "model",
    [
        "gap=soon",
        "ok;garbge",
        "stall=tail",
        "err=200",
        "chunks=0",
        "usage=3",
        "gap",
        "never=no",
    ],
)
def test_a_model_name_that_cannot_be_meant_is_a_bad_request(model: str) -> None:
    """A fault that silently does not happen makes a test pass for nothing."""
    request = Request(kind=Kind.CHAT, method="POST", path="/v1", model=f"{model};ok")

    reply = ModelServer.by_model_name(request)

    assert reply is not None
    assert reply.failure is not None
    assert reply.failure.status == 400


@pytest.mark.parametrize(
    "options",
    [
        Options(delay=-1),
        Options(gap=math.inf),
        Options(drip=math.nan),
        Options(keep_alive_comments=0),
        Options(chunks=0),
        Options(polls=0),
        {"stall": "tail"},
        {"finish_reason": "tired"},
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_where_it_is_written(
    options: Options,
) -> None:
    """In the script, with its name, not somewhere on the server's thread."""
    (name,) = options

    with pytest.raises(SettingError, match=f"{name}=.*must be"):
        text("hello", **options)


def test_options_are_given_to_the_sum() -> None:
    """Of two different gaps neither can hold, so neither is guessed."""
    both = (text("look: ") + tool_call("search")).with_options(gap=0.5)

    assert both.text == "look: "
    assert [call.name for call in both.tool_calls] == ["search"]
    assert both.gap == 0.5
    with pytest.raises(ValueError, match="options to the sum"):
        _ = text("a") + text("b", gap=0.5)
    with pytest.raises(ValueError, match="options to the sum"):
        _ = error(500) + text("b")


def test_a_turn_needs_replies() -> None:
    """An empty script is a mistake, and it is better told before the first request."""
    with pytest.raises(ValueError, match="at least one"):
        in_turn()


def test_neither_keys_nor_prompts_are_in_the_repr_of_a_request() -> None:
    """It is what a failing test prints into a log."""
    request, _ = read_request(
        "POST",
        "/v1/responses",
        {"authorization": "Bearer sk-secret"},
        b'{"model": "gpt-5", "input": "my diary"}',
    )

    assert request.text == "my diary"
    assert "secret" not in repr(request)
    assert "diary" not in repr(request)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_a_bad_request(body: bytes) -> None:
    """Of whatever kind; the request is seen all the same."""
    request, problem = read_request("POST", "/v1/responses", {}, body)

    assert request.kind is Kind.RESPONSES
    assert problem is not None
    assert problem.status == 400


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/openai/deployments/d/chat/completions?api-version=1", None),
        ("/openai/deployments/d/chat/completions", 404),
        ("/openai/v1/chat/completions", 400),
        ("/chat/completions", 400),
        ("/v1/chat", 404),
        ("/", 404),
    ],
)
def test_the_path_says_what_is_wanted(target: str, status: int | None) -> None:
    """Of OpenAI and of Azure; a deployment stands for the model that is missing."""
    _, problem = read_request("POST", target, {}, b'{"messages": []}')

    assert (problem.status if problem else None) == status


def test_only_the_tool_results_of_this_turn_count() -> None:
    """Else the second question of a conversation would get no tool call."""
    request = chat(
        messages=[
            {"role": "user", "content": "first"},
            {"role": "tool", "content": "old"},
            {"role": "user", "content": [{"type": "text", "text": "second"}]},
            {"role": "tool", "content": "one"},
            {"role": "tool", "content": "two"},
            "not a message",
        ]
    )

    assert request.text == "second"
    assert request.tool_results == ("one", "two")
    assert chat(messages=[]).text == ""
    assert chat(messages="x" * 3).messages[0]["content"] == "xxx"


def test_a_response_in_the_background_takes_its_time() -> None:
    """Queued for a third of it, then in progress, then complete."""
    stored = background(text("done", background=3))

    assert stored.status(100) is Status.QUEUED
    assert stored.status(101.5) is Status.IN_PROGRESS
    assert stored.status(103) is Status.COMPLETED
    assert stored.left(101) == 2


def test_a_response_that_has_completed_cannot_be_cancelled() -> None:
    """Cancelling comes too late, and the answer stays."""
    stored = background(text("done", background=3))

    stored.cancel(now=104)

    assert stored.status(104) is Status.COMPLETED


def test_a_response_that_never_completes_waits_for_its_release() -> None:
    """However often it is polled."""
    stored = background(text("done", never=True))

    polled = [stored.poll(now=10.0**power) for power in range(2, 9)]
    stored.release()

    assert set(polled) == {Status.IN_PROGRESS}
    assert stored.left(100) == 0
    assert stored.status(100) is Status.COMPLETED
