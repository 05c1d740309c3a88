"""Content is captured when it was asked for, and only then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, ValidationError

import agenttrace
from tests.instrumentation.given import CHAT, LONG, Spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.instrumentation.given import Way

PRIVATE = "my number is 12345"
IN, OUT = "input.messages", "output.messages"


class Number(BaseModel):
    """What a structured output is asked to be."""

    number: int


@pytest.fixture
def captured(spans: Spans) -> Iterator[Spans]:  # noqa: ARG001 - the patches are its
    """Trace with content."""
    exporter = InMemorySpanExporter()
    with agenttrace.configure(span_exporter=exporter, capture_content=True) as runtime:
        yield Spans(exporter, runtime)


def text(content: str) -> dict[str, str]:
    """Return a text part."""
    return {"type": "text", "content": content}


def answer(*parts: dict[str, Any], reason: str = "stop") -> list[dict[str, Any]]:
    """Return an answer of the model."""
    return [{"role": "assistant", "parts": list(parts), "finish_reason": reason}]


def test_nothing_is_captured_unless_asked_for(way: Way, spans: Spans) -> None:
    """Prompts are the application's secrets, whole and in part."""
    asked = way.asked(PRIVATE)
    way.wait(way.resource.create(model=f"text={PRIVATE}", **asked))
    stream = way.wait(
        way.resource.create(model=f"text={PRIVATE}", stream=True, **asked)
    )
    way.read(stream)

    for span in spans.all():
        attributes = dict(span.attributes or {})
        del attributes["gen_ai.request.model"], attributes["gen_ai.response.model"]
        assert "12345" not in str(attributes)


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_answer_that_cannot_be_parsed_is_not_quoted(
    way: Way, spans: Spans, *, wrapped: bool
) -> None:
    """Pydantic quotes what it refuses, in its message and so in every stack."""
    kind = "response_format" if way.api == CHAT else "text_format"
    options: dict[str, Any] = {kind: Number}
    # Not in the call itself: a stack shows its lines.
    model_that_says = 'json={"number": "is 12345"}'

    @agenttrace.agent
    def ask() -> None:
        try:
            way.wait(
                way.resource.parse(model=model_that_says, **way.asked(), **options)
            )
        except ValidationError as error:
            if not wrapped:
                raise
            message = "no number"
            raise ValueError(message) from error

    with pytest.raises(ValueError, match="number"):
        ask()

    model, agent = spans.all()
    for span in (model, agent):
        (event,) = span.events
        assert "12345" not in str(event.attributes)
        assert "12345" not in str(span.status.description)
    assert "int_parsing" in str(model.status.description)


@pytest.mark.parametrize("streamed", [True, False])
def test_question_and_answer_are_captured(
    way: Way, captured: Spans, *, streamed: bool
) -> None:
    """In one form for both APIs, whole or streamed."""
    if streamed:
        way.read(way.stream("text=one two three"))
    else:
        way.create("text=one two three")

    span = captured.one()
    assert json.loads(span[IN]) == [{"role": "user", "parts": [text("hello there")]}]
    assert json.loads(span[OUT]) == answer(text("one two three"))
    assert span["partial"] is None


@pytest.mark.parametrize("streamed", [True, False])
def test_a_tool_call_is_captured(way: Way, captured: Spans, *, streamed: bool) -> None:
    """Its arguments come in pieces, and are told in one."""
    model = 'tool=search;toolargs={"query": "tea and cakes"}'
    if streamed:
        way.read(way.stream(model))
    else:
        way.create(model)

    (message,) = json.loads(captured.one()[OUT])
    (part,) = message["parts"]
    assert message["finish_reason"] == "tool_call"
    assert part.pop("id")
    assert part == {
        "type": "tool_call",
        "name": "search",
        "arguments": '{"query": "tea and cakes"}',
    }


def test_what_had_arrived_of_a_stream_that_was_left_is_captured(
    way: Way, captured: Spans
) -> None:
    """It is what the user has seen; that there was to be more is said."""
    stream = way.stream(LONG)
    while not (said := captured_characters(way, stream)):
        pass
    way.wait(stream.close())

    span = captured.one()
    assert json.loads(span[OUT]) == answer(text(said), reason="")
    assert span["partial"] is True
    assert span["output.characters"] == len(said)


def captured_characters(way: Way, stream: Any) -> str:  # noqa: ANN401 - a stream
    """Return what the next item says."""
    item = way.pull(stream)
    if way.api == CHAT:
        return item.choices[0].delta.content or ""
    return item.delta if item.type == "response.output_text.delta" else ""


def test_a_conversation_is_captured_with_all_its_roles(
    chat: Way, captured: Spans
) -> None:
    """System, tools and images: each in the conventions' words, images by reference."""
    call = {"name": "search", "arguments": '{"q": 1}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "nothing"},
    ]

    chat.wait(chat.resource.create(model="ok", messages=messages))

    assert json.loads(captured.one()[IN]) == [
        {"role": "system", "parts": [text("Be brief.")]},
        {
            "role": "user",
            "parts": [
                text("What is this?"),
                {"type": "uri", "modality": "image", "uri": "https://a.example/b.png"},
                {"type": "image_url"},
            ],
        },
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", **call}]},
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "c1", "response": "nothing"}
            ],
        },
    ]


def test_the_items_of_a_responses_request_are_captured(
    responses: Way, captured: Spans
) -> None:
    """Instructions stand beside them: they are no message."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}]},
        {"type": "reasoning", "id": "r", "summary": [{"text": "Hm.", "type": "x"}]},
        {"type": "function_call", "call_id": "c1", "name": "search", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "nothing"},
        {"type": "item_reference", "id": "m"},
    ]

    responses.wait(
        responses.resource.create(model="ok", input=items, instructions="Be brief.")
    )

    span = captured.one()
    assert json.loads(span["system_instructions"]) == [text("Be brief.")]
    called = {"type": "tool_call", "id": "c1", "name": "search", "arguments": "{}"}
    assert json.loads(span[IN]) == [
        {"role": "user", "parts": [text("What is this?")]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}]},
        {"role": "assistant", "parts": [called]},
        {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": "c1", "response": "nothing"}
            ],
        },
        {"role": "assistant", "parts": [{"type": "item_reference"}]},
    ]


def test_the_redaction_hook_sees_it_first(way: Way, spans: Spans) -> None:
    """And what it takes out is nowhere else on the span."""

    def redact(key: str, value: object) -> object:
        return None if key.endswith(OUT) else str(value).replace("12345", "***")

    exporter = InMemorySpanExporter()
    with agenttrace.configure(
        span_exporter=exporter, capture_content=True, redact=redact
    ) as runtime:
        way.wait(way.resource.create(model="ok", **way.asked(PRIVATE)))
        span = Spans(exporter, runtime).one()

    assert "my number is ***" in span[IN]
    assert span[OUT] is None
    assert spans.exporter.get_finished_spans() == ()


def test_content_is_bounded(way: Way, spans: Spans) -> None:
    """A span is no archive."""
    exporter = InMemorySpanExporter()
    with agenttrace.configure(
        span_exporter=exporter, capture_content=True, max_content_characters=100
    ) as runtime:
        way.wait(way.resource.create(model="ok", **way.asked("x" * 5000)))
        span = Spans(exporter, runtime).one()

    assert len(span[IN]) < 200
    assert "more characters" in span[IN]
    assert spans.exporter.get_finished_spans() == ()
