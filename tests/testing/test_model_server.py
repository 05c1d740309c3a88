"""The model server speaks the OpenAI protocol well enough for the real clients."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.chat import (
    ChatCompletionMessageFunctionToolCall,
)
from pydantic import BaseModel

from agenttrace.testing.model_server import (
    Kind,
    ModelServer,
    Reply,
    Request,
    error,
    in_turn,
    json_value,
    text,
    tool_call,
)
from tests.testing.clients import HELLO, client_of


class City(BaseModel):
    """What a structured answer is read into."""

    name: str
    people: int


def async_client_of(server: ModelServer) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=server.base_url, api_key="unused", max_retries=0, timeout=10
    )


def test_without_a_script_it_echoes_politely() -> None:
    """The first thing a new user sees is an answer, not a set-up."""
    with ModelServer() as server, client_of(server) as client:
        completion = client.chat.completions.create(model="gpt-5", messages=HELLO)

    assert completion.choices[0].message.content == "You said: hello there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "gpt-5"
    assert completion.usage is not None


def test_a_stream_has_usage_only_when_it_was_asked_for(client: OpenAI) -> None:
    """As in the real API; a tracer that waits for usage would hang on the other one."""
    model = "text=one two three;usage=11/7"

    plain = list(
        client.chat.completions.create(model=model, messages=HELLO, stream=True)
    )
    counted = list(
        client.chat.completions.create(
            model=model,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    said = [chunk.choices[0].delta.content for chunk in plain if chunk.choices]
    assert said == ["", "one", " two", " three", None]
    assert all(chunk.usage is None for chunk in plain)
    assert plain[-1].choices[0].finish_reason == "stop"
    assert counted[-1].choices == []
    assert counted[-1].usage is not None
    assert counted[-1].usage.total_tokens == 18
    assert all(chunk.usage is None for chunk in counted[:-1])


def test_every_choice_is_answered(client: OpenAI) -> None:
    """A stream of two choices interleaves them; each has its own finish reason."""
    whole = client.chat.completions.create(model="text=a b", messages=HELLO, n=2)
    chunks = list(
        client.chat.completions.create(
            model="text=a b", messages=HELLO, n=2, stream=True
        )
    )

    assert [choice.message.content for choice in whole.choices] == ["a b", "a b"]
    said = {0: "", 1: ""}
    for chunk in chunks:
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == {0: "a b", 1: "a b"}
    finished = [chunk.choices[0].finish_reason for chunk in chunks]
    assert finished.count("stop") == 2


def test_a_tool_is_asked_for_until_its_result_is_there(client: OpenAI) -> None:
    """The loop of every agent, without a script of one's own."""
    model = 'tool=search;toolargs={"q": "tea"};tools=2;text=found'

    first = client.chat.completions.create(model=model, messages=HELLO).choices[0]
    calls = first.message.tool_calls or []
    answered = client.chat.completions.create(
        model=model,
        messages=[
            *HELLO,
            {"role": "tool", "tool_call_id": calls[0].id, "content": "a result"},
        ],
    )

    assert first.finish_reason == "tool_calls"
    assert len({call.id for call in calls}) == 2
    assert isinstance(calls[0], ChatCompletionMessageFunctionToolCall)
    assert calls[0].function.arguments == '{"q": "tea"}'
    assert answered.choices[0].message.content == "found"


def test_the_chat_stream_helper_puts_the_answer_together() -> None:
    """It checks the order of chunks more strictly than a plain stream does."""
    reply = text("Let me look. ") + tool_call("search", {"q": "tea"}) + tool_call("add")

    with (
        ModelServer(in_turn(reply)) as server,
        client_of(server) as client,
        client.chat.completions.stream(model="gpt-5", messages=HELLO) as stream,
    ):
        events = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message

    assert message.content == "Let me look. "
    assert [call.function.name for call in message.tool_calls or []] == [
        "search",
        "add",
    ]
    assert events.count("tool_calls.function.arguments.done") == 2


def test_structured_outputs_are_parsed() -> None:
    """The script sees the schema, and its value comes out as the client's model."""
    seen: list[Request] = []

    def script(request: Request) -> Reply:
        seen.append(request)
        return json_value({"name": "Ulm", "people": 126_000})

    with ModelServer(script) as server, client_of(server) as client:
        chat = client.chat.completions.parse(
            model="gpt-5", messages=HELLO, response_format=City
        )
        response = client.responses.parse(model="gpt-5", input="hi", text_format=City)

    ulm = City(name="Ulm", people=126_000)
    assert chat.choices[0].message.parsed == ulm
    assert response.output_parsed == ulm
    assert [(each.json_schema or {}).get("name") for each in seen] == ["City", "City"]


def test_embeddings_come_in_both_encodings(client: OpenAI) -> None:
    """The client asks for base64 unless told otherwise; both must say the same."""
    usual = client.embeddings.create(model="ok", input=["tea", "coffee"], dimensions=8)
    floats = client.embeddings.create(
        model="ok", input=["tea", "coffee"], dimensions=8, encoding_format="float"
    )
    long = client.embeddings.create(model="ok", input="tea")

    for one, other in zip(usual.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
    assert usual.data[0].embedding != usual.data[1].embedding
    assert len(long.data[0].embedding) == 1536


def test_tokens_are_embedded_as_well(client: OpenAI) -> None:
    """Some libraries count tokens first, and send what they have counted."""
    one = client.embeddings.create(model="usage=5/0", input=[1, 2, 3], dimensions=4)
    two = client.embeddings.create(model="ok", input=[[1, 2, 3], [4]], dimensions=4)

    assert one.usage.total_tokens == 5
    assert len(two.data) == 2
    assert one.data[0].embedding == two.data[0].embedding


def test_models_are_listed() -> None:
    """Some clients ask before they use one."""
    with ModelServer(models=("gpt-5", "a/b")) as server, client_of(server) as client:
        listed = [model.id for model in client.models.list()]
        single = client.models.retrieve("a/b")

    assert listed == ["gpt-5", "a/b"]
    assert single.id == "a/b"


def test_raw_and_streaming_responses_show_the_head(client: OpenAI) -> None:
    """Frameworks call these, and read request ids and rate limits from the head."""
    raw = client.chat.completions.with_raw_response.create(model="ok", messages=HELLO)
    with client.chat.completions.with_streaming_response.create(
        model="text=one two", messages=HELLO, stream=True
    ) as streaming:
        lines = [line for line in streaming.iter_lines() if line]

    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse().choices[0].message.content
    assert lines[-1] == "data: [DONE]"


def test_azure_finds_the_deployment_in_the_path() -> None:
    """Azure's clients put the model there, and its streams begin with a filter."""
    with (
        ModelServer() as server,
        AzureOpenAI(
            azure_endpoint=server.url,
            azure_deployment="my-gpt",
            api_key="unused",
            api_version="2024-10-21",
            max_retries=0,
        ) as client,
    ):
        whole = client.chat.completions.create(model="ignored", messages=HELLO)
        chunks = list(
            client.chat.completions.create(model="ignored", messages=HELLO, stream=True)
        )
        response = client.responses.create(model="gpt-5", input="hi")
        request = server.requests[0].request

    assert whole.choices[0].message.content == "You said: hello there"
    assert chunks[0].choices == []
    assert request.path == "/openai/deployments/my-gpt/chat/completions"
    assert request.query == {"api-version": "2024-10-21"}
    assert request.azure
    assert response.output_text == "You said: hi"


def test_errors_are_retried_and_then_raised() -> None:
    """What is retried is counted here, where nobody can hide it."""
    broken = error(500, "out of order", headers={"retry-after-ms": "1"})

    with ModelServer(in_turn(broken)) as server:
        with (
            client_of(server, max_retries=2) as client,
            pytest.raises(openai.InternalServerError, match="out of order"),
        ):
            client.chat.completions.create(model="gpt-5", messages=HELLO)

        retries = [
            exchange.request.headers["x-stainless-retry-count"]
            for exchange in server.requests
        ]
    assert retries == ["0", "1", "2"]


def test_an_answer_after_an_error_is_a_success() -> None:
    """`in_turn` is how a test says: fail once."""
    script = in_turn(error(429, headers={"retry-after-ms": "1"}), text("fine"))

    with ModelServer(script) as server, client_of(server, max_retries=1) as client:
        completion = client.chat.completions.create(model="gpt-5", messages=HELLO)

    assert completion.choices[0].message.content == "fine"


def test_what_the_api_would_refuse_is_refused(
    server: ModelServer, client: OpenAI
) -> None:
    """A test double that accepts everything hides the mistakes of its user."""
    with pytest.raises(openai.NotFoundError, match="Unknown request URL"):
        client.post("/no/such/thing", cast_to=object)
    with pytest.raises(openai.BadRequestError, match="'messages'"):
        client.post("/chat/completions", body={"model": "ok"}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="'model'"):
        client.post("/responses", body={"input": "hi"}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="known options"):
        client.chat.completions.create(model="ok;garbge", messages=HELLO)

    kinds = [exchange.request.kind for exchange in server.requests]
    assert kinds == [Kind.UNKNOWN, Kind.CHAT, Kind.RESPONSES, Kind.CHAT]


@pytest.mark.asyncio
async def test_the_async_client_works_the_same_way(server: ModelServer) -> None:
    """Chat, stream, response and poll on one event loop."""
    async with async_client_of(server) as client:
        whole = await client.chat.completions.create(model="text=a b", messages=HELLO)
        stream = await client.chat.completions.create(
            model="text=a b;gap=0.001", messages=HELLO, stream=True
        )
        said = [
            chunk.choices[0].delta.content async for chunk in stream if chunk.choices
        ]
        made = await client.responses.create(model="ok", input="hi", background=True)
        polled = await client.responses.retrieve(made.id)

    assert whole.choices[0].message.content == "a b"
    assert "".join(piece or "" for piece in said) == "a b"
    assert (made.status, polled.status) == ("queued", "completed")


@pytest.mark.asyncio
async def test_fifty_streams_run_at_once(server: ModelServer) -> None:
    """Each gets its own answer, and they wait for their gaps together."""

    async def read(client: AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model=f"text=stream number {number};gap=0.02", messages=HELLO, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with async_client_of(server) as client:
        said = await asyncio.gather(*(read(client, number) for number in range(50)))

    assert said == [f"stream number {number}" for number in range(50)]
    for exchange in server.requests:
        exchange.wait("done")


def test_a_script_may_be_a_coroutine_function() -> None:
    """One that must wait for something does so without stopping the server."""

    async def script(request: Request) -> Reply:
        await asyncio.sleep(0)
        return text(request.text.upper())

    with ModelServer(script) as server, client_of(server) as client:
        completion = client.chat.completions.create(model="gpt-5", messages=HELLO)

    assert completion.choices[0].message.content == "HELLO THERE"


def test_a_script_may_leave_a_request_to_the_server() -> None:
    """None is the ordinary answer, so a script says only what it cares about."""
    with ModelServer(lambda _: None) as server, client_of(server) as client:
        completion = client.chat.completions.create(model="gpt-5", messages=[])

    assert completion.choices[0].message.content == "Hello!"


def test_a_script_that_raises_is_told_to_the_client_and_to_the_test() -> None:
    """Once: the client must not retry somebody's typing error away."""

    def script(request: Request) -> Reply:
        raise KeyError(request.model)

    with ModelServer(script) as server, client_of(server, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError, match="KeyError"):
            client.chat.completions.create(model="gpt-5", messages=HELLO)
        (exchange,) = server.requests

    assert isinstance(exchange.script_error, KeyError)
