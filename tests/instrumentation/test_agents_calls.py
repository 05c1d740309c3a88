"""A model call of the SDK's and the client's in it: one span, with the last word."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import openai
import pytest
from agents import generation_span, trace
from opentelemetry import context as otel
from opentelemetry import trace as api

from agenttrace.context.bound import bound_in
from tests.instrumentation.given_agents import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.testing.model_server import ModelServer
    from tests.instrumentation.given import Spans


pytestmark = pytest.mark.usefixtures("without_vendor")


@pytest.fixture
def desk(server: ModelServer) -> Iterator[Desk]:
    """Return a client."""
    one = Desk(server.base_url)
    yield one
    one.stop()


async def ask(desk: Desk, model: str) -> None:
    """Ask *model* with the client alone."""
    await desk.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "?"}]
    )


def test_a_model_call_that_succeeds_at_the_second_attempt_is_ok(
    desk: Desk, spans: Spans
) -> None:
    """Its usage is what the SDK says of it: that of the answer there is."""

    async def fallback() -> None:
        with trace("wf"), generation_span(model="second") as step:
            with pytest.raises(openai.BadRequestError):
                await ask(desk, "err=400")
            await ask(desk, "ok")
            step.span_data.usage = {"input_tokens": 7, "output_tokens": 9}

    desk.wait(fallback())

    owner = spans.named("chat err=400").span.attributes or {}
    assert owner["agenttrace.outcome"] == "ok"
    assert owner["gen_ai.usage.input_tokens"] == 7
    assert ("chat ok", "chat err=400") in spans.tree()


def test_what_a_model_call_does_below_a_span_of_the_application_is_beneath_it(
    spans: Spans,
) -> None:
    """A gateway that is traced by hand is no other tool that follows the SDK."""
    tracer = api.get_tracer("app")

    with (
        trace("wf"),
        tracer.start_as_current_span("gateway"),
        generation_span(model="m"),
        tracer.start_as_current_span("POST"),
    ):
        pass

    assert {("POST", "chat m"), ("chat m", "gateway")} <= spans.tree()


def test_a_call_after_the_end_of_a_model_call_is_a_span_of_its_own(
    desk: Desk, spans: Spans
) -> None:
    """Nothing can be said any more on the one that has ended."""
    inside: list[contextvars.Context] = []

    with trace("wf"), generation_span(model="none"):
        inside.append(contextvars.copy_context())
    inside[0].run(desk.wait, ask(desk, "late"))

    assert {span.name for span in spans.all()} >= {"chat none", "chat late"}


def test_a_group_that_no_exporter_could_encode_is_one_nevertheless(
    spans: Spans,
) -> None:
    """A whole batch would be lost with it."""
    with trace("wf", group_id="lone \ud800"):
        group = bound_in(otel.get_current())["gen_ai.conversation.id"]

    assert str(group).encode()
    assert spans.all()
