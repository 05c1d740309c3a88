"""One logical call is one span, with the facts of the request and of the answer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncAzureOpenAI, AzureOpenAI, OpenAI
from opentelemetry import trace
from pydantic import BaseModel

import agenttrace
from agenttrace import _otel, safety
from agenttrace.instrumentation.openai.recording import ModelRecorder
from agenttrace.registry import AtLeast
from agenttrace.testing import fresh_runtime
from tests.instrumentation.given import CHAT, HTTP, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans, Way

OK = ("ok", "return")


class Answer(BaseModel):
    """What a structured output is asked to be."""

    number: int


def test_a_call_is_one_client_span_under_its_caller(way: Way, spans: Spans) -> None:
    """The tree that every dashboard shows."""
    with agenttrace.span("caller") as caller:
        way.create("ok;usage=7/9")

    span = spans.named("chat ok;usage=7/9")
    assert span.ending == OK
    assert span.span.kind is trace.SpanKind.CLIENT
    assert span.span.parent is not None
    assert span.span.parent.span_id == caller.get_span_context().span_id
    assert span["operation.name"] == "chat"
    assert span["provider.name"] == "openai"
    assert span["request.model"] == span["response.model"] == "ok;usage=7/9"
    assert span["usage.input_tokens"] == 7
    assert span["usage.output_tokens"] == 9
    assert span["usage.cache_read.input_tokens"] == 0
    assert span["response.finish_reasons"] == ("stop",)


def test_the_server_is_told(way: Way, spans: Spans, server: ModelServer) -> None:
    """Compatible servers are told apart by where they are."""
    way.create()

    span = spans.one()
    assert (span["server.address"], span["server.port"]) == ("127.0.0.1", server.port)


def test_the_parameters_of_a_chat_are_told(chat: Way, spans: Spans) -> None:
    """What was asked for explains what came; `extra_body` has the last word."""
    chat.create(
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=50,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        stop="END",
        seed=7,
        n=2,
        response_format={"type": "json_object"},
        extra_body={"temperature": 0.25},
    )

    span = spans.one()
    assert span["request.temperature"] == 0.25
    assert span["request.top_p"] == 0.9
    assert span["request.max_tokens"] == 50
    assert span["request.frequency_penalty"] == 0.1
    assert span["request.presence_penalty"] == 0.2
    assert span["request.stop_sequences"] == ("END",)
    assert span["request.seed"] == 7
    assert span["request.choice.count"] == 2
    assert span["output.type"] == "json"
    assert span["response.finish_reasons"] == ("stop", "stop")
    assert span["request.stream"] is None


def test_the_parameters_of_a_response_are_told(responses: Way, spans: Spans) -> None:
    """The conversation is what dashboards group by."""
    responses.create(
        temperature=0.5,
        max_output_tokens=50,
        conversation="conv_1",
        text={"format": {"type": "text"}},
    )

    span = spans.one()
    assert span["request.temperature"] == 0.5
    assert span["request.max_tokens"] == 50
    assert span["conversation.id"] == "conv_1"
    assert span["output.type"] == "text"


def test_a_model_in_the_extra_body_is_the_model(chat: Way, spans: Spans) -> None:
    """It is what the server is asked for."""
    chat.create("never heard of", extra_body={"model": "ok"})

    assert spans.one()["request.model"] == "ok"


def test_embeddings_are_traced(chat: Way, spans: Spans) -> None:
    """They are asked for by the thousand, and cost."""
    chat.wait(
        chat.client.embeddings.create(model="ok", input=["a b", "c"], dimensions=4)
    )

    span = spans.one()
    assert span.span.name == "embeddings ok"
    assert span["operation.name"] == "embeddings"
    assert span["embeddings.dimension.count"] == 4
    assert span["response.model"] == "ok"
    assert span["usage.input_tokens"] > 0


def test_other_endpoints_are_not_traced(chat: Way, spans: Spans) -> None:
    """A list of models is no work of a model."""
    chat.wait(chat.client.models.list())

    assert spans.all() == []


@pytest.mark.parametrize("form", ["{}", "/{}?beta=true", "/{}/"])
def test_a_path_is_known_however_it_is_written(
    way: Way, spans: Spans, form: str
) -> None:
    """The client takes all of them, and its beta resources write one with a query."""
    path = form.format("chat/completions" if way.api == CHAT else "responses")
    body = {"model": "ok", **way.asked()}

    way.wait(way.client.post(path, body=body, cast_to=object))

    assert spans.one()["response.finish_reasons"] == ("stop",)


def test_a_parsed_answer_is_traced_as_any(way: Way, spans: Spans) -> None:
    """The client parses inside the call; the answer is what the call returns."""
    kind = "response_format" if way.api == CHAT else "text_format"
    options: dict[str, Any] = {kind: Answer}

    parsed = way.wait(
        way.resource.parse(model='json={"number": 7}', **way.asked(), **options)
    )

    value = (
        parsed.choices[0].message.parsed if way.api == CHAT else parsed.output_parsed
    )
    assert value == Answer(number=7)
    span = spans.one()
    assert span.ending == OK
    assert span["output.type"] == "json"


def test_an_answer_that_cannot_be_parsed_is_an_error(way: Way, spans: Spans) -> None:
    """It is what came out of the call."""
    kind = "response_format" if way.api == CHAT else "text_format"
    options: dict[str, Any] = {kind: Answer}

    with pytest.raises(ValueError, match="Answer"):
        way.wait(way.resource.parse(model='json={"n": 7}', **way.asked(), **options))

    assert spans.one().ending == ("error", "exception")


def test_retries_happen_inside_one_span(
    way: Way, spans: Spans, server: ModelServer
) -> None:
    """An attempt is no call: nobody asked three times."""
    before = len(server.requests)
    way.client = way.client.with_options(max_retries=1)

    with pytest.raises(openai.InternalServerError):
        way.create("err=500")

    assert len(server.requests) - before == 2
    span = spans.one()
    assert span.ending == ("error", "exception")
    assert span["error.type"] == "openai.InternalServerError"


def test_a_refusal_is_an_error_of_its_class(way: Way, spans: Spans) -> None:
    """The class is of low cardinality; the message is in the event."""
    with pytest.raises(openai.RateLimitError):
        way.create("err=429")

    span = spans.one()
    assert span["error.type"] == "openai.RateLimitError"
    assert span.span.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in span.span.events] == ["exception"]


def test_the_clients_time_out_is_a_time_out(way: Way, spans: Spans) -> None:
    """Not an error like any other: the model may just be slow."""
    with pytest.raises(openai.APITimeoutError):
        way.create("stall=head", timeout=0.2)

    assert spans.one().ending == ("timed_out", "exception")


def test_a_connection_that_is_cut_before_the_answer_is_an_error(
    way: Way, spans: Spans
) -> None:
    """There was no answer to be partial."""
    with pytest.raises(openai.APIConnectionError):
        way.create("cut=head")

    span = spans.one()
    assert span.ending == ("error", "exception")
    assert span["partial"] is None


def test_a_server_that_is_not_there_is_an_error(way: Way, spans: Spans) -> None:
    """Nothing was ever sent, and still somebody waited."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    way.client = way.client.with_options(base_url=f"http://127.0.0.1:{port}/v1")

    with pytest.raises(openai.APIConnectionError):
        way.create()

    assert spans.one().ending == ("error", "exception")


def test_a_response_that_was_cut_short_says_why(responses: Way, spans: Spans) -> None:
    """It returned, so it is ok; that it is not whole is in the finish reason."""
    responses.create("finish=length")

    span = spans.one()
    assert span.ending == OK
    assert span["response.finish_reasons"] == ("length",)


def test_tool_calls_are_a_finish_reason_of_both_apis(way: Way, spans: Spans) -> None:
    """Only one of them has the word; a dashboard wants one."""
    way.create("tool=search")

    assert spans.one()["response.finish_reasons"] == ("tool_calls",)


@pytest.mark.parametrize("deployment", [None, "ok"])
def test_azure_is_told_apart(
    server: ModelServer, spans: Spans, way: Way, deployment: str | None
) -> None:
    """It is another provider with the same API."""
    client = AsyncAzureOpenAI if way.is_async else AzureOpenAI
    original = way.client
    way.client = client(
        azure_endpoint=server.url,
        azure_deployment=deployment,
        api_key="unused",
        api_version="2025-03-01",
    )

    way.create()
    way.wait(way.client.close())
    way.client = original

    span = spans.one()
    assert span["provider.name"] == "azure.ai.openai"
    assert span["request.model"] == "ok"


def test_azure_is_known_by_its_host(spans: Spans) -> None:
    """Its newer API is called with the plain client."""
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    transport = HTTP.MockTransport(
        _answering(HTTP.Response(200, json={**answer, "choices": []}))
    )
    with OpenAI(
        base_url="https://mine.openai.azure.com/openai/v1/",
        api_key="unused",
        http_client=HTTP.Client(transport=transport),
    ) as client:
        client.chat.completions.create(model="m", messages=[])

    span = spans.one()
    assert span["provider.name"] == "azure.ai.openai"
    assert span["server.port"] == 443


def _answering(response: object) -> Callable[[object], object]:
    return lambda _: response


def test_only_a_request_that_declares_patience_is_given_more(
    spans: Spans, server: ModelServer
) -> None:
    """The client's own 600 seconds nobody asked for."""
    limits: list[float | None] = []

    def look(_: object) -> None:
        (record,) = agenttrace.open_spans()
        limits.append(record.heartbeat_timeout)

    http = HTTP.Client(event_hooks={"request": [look]})
    with OpenAI(base_url=server.base_url, api_key="unused", http_client=http) as client:
        for timeout in (None, 20, 900, HTTP.Timeout(5, read=1200)):
            client.with_options(timeout=timeout).responses.create(model="ok", input="x")
        client.responses.create(model="ok", input="x")

    assert limits == [None, None, 900, 1200, None]
    assert [type(limit) for limit in limits[2:4]] == [AtLeast, AtLeast]
    assert len(spans.all()) == 5


def test_what_is_suppressed_is_not_traced(way: Way, spans: Spans) -> None:
    """Whoever suppresses instrumentation has a span for this already."""
    with _otel.suppress_instrumentation():
        way.create()

    assert spans.all() == []


def test_a_disabled_runtime_traces_nothing(way: Way, spans: Spans) -> None:
    """The patches are still there, and let everything pass."""
    with fresh_runtime(disabled=True):
        way.create()
        streamed = way.read(way.stream())

    assert streamed
    assert spans.exporter.get_finished_spans() == ()


def test_before_configure_calls_go_to_the_global_provider(
    server: ModelServer,
) -> None:
    """Legal, and cheap: with no provider there is nothing to record."""
    agenttrace.instrument("openai")
    try:
        with OpenAI(base_url=server.base_url, api_key="unused") as client:
            answer = client.responses.create(model="ok", input="x")
            items = list(client.responses.create(model="ok", input="x", stream=True))
    finally:
        agenttrace.uninstrument("openai")

    assert answer.output_text
    assert items


def test_a_recorder_that_fails_never_reaches_the_application(
    way: Way, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API may send tomorrow what no recorder has seen today."""

    def fail(*_: object) -> None:
        message = "no such field"
        raise AttributeError(message)

    monkeypatch.setenv("AGENTTRACE_STRICT", "")
    for name in ("result", "facts"):
        monkeypatch.setattr(ModelRecorder, name, fail)
    for cls in ModelRecorder.__subclasses__():
        monkeypatch.setattr(cls, "item", fail)
    monkeypatch.setattr(safety.logger, "disabled", True)

    whole = way.create()
    items = way.read(way.stream())

    assert whole.id
    assert items
    assert [Seen(span).ending for span in spans.all()] == [OK, OK]


@pytest.mark.parametrize("cast_to", [object, dict[str, Any], HTTP.Response, str])
def test_an_answer_in_a_form_of_the_callers_choice_is_read_quietly(
    way: Way, spans: Spans, caplog: pytest.LogCaptureFixture, cast_to: object
) -> None:
    """`client.post` is the documented way to what a library does not know yet."""
    path = "/chat/completions" if way.api == CHAT else "/responses"
    body = {"model": "ok", **way.asked()}

    way.wait(way.client.post(path, body=body, cast_to=cast_to))

    seen = spans.one()
    assert seen.ending == ("ok", "return")
    assert (seen["response.model"] == "ok") is (cast_to is not str)
    assert (seen["usage.output_tokens"] == 4) is (cast_to is not str)
    assert not caplog.records
