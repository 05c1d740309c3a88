"""Every span of the Agents SDK is one of ours, in its place, with what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import (
    GuardrailFunctionOutput,
    custom_span,
    function_tool,
    input_guardrail,
    mcp_tools_span,
    output_guardrail,
    trace,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import agenttrace
from tests.instrumentation.given import Spans
from tests.instrumentation.given_agents import Desk, hear_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents import Agent, RunContextWrapper


WITH_TOOL = 'tool=search;toolargs={"query": "tea"};usage=7/9'
PLACES = (
    "invoke_workflow Agent workflow",
    "run Agent workflow",
    "invoke_agent triage",
    "turn 1",
)


pytestmark = pytest.mark.usefixtures("without_vendor")


@function_tool
def search(query: str) -> str:
    """Search for something."""
    return f"results for {query}"


def told(spans: Spans) -> dict[str, Any]:
    """Return the attributes of the spans by name; of several, of the last."""
    return {span.name: dict(span.attributes or {}) for span in spans.all()}


def test_a_run_is_one_tree(desk: Desk, spans: Spans) -> None:
    """Whoever looks for a run finds all of it in one place."""
    desk.wait(desk.run(desk.agent(WITH_TOOL, tools=[search])))

    assert spans.tree() == {
        ("invoke_workflow Agent workflow", None),
        ("run Agent workflow", "invoke_workflow Agent workflow"),
        ("invoke_agent triage", "run Agent workflow"),
        ("turn 1", "invoke_agent triage"),
        (f"chat {WITH_TOOL}", "turn 1"),
        ("execute_tool search", "turn 1"),
        ("turn 2", "invoke_agent triage"),
        (f"chat {WITH_TOOL}", "turn 2"),
    }
    assert {span.attributes["agenttrace.outcome"] for span in spans.all()} == {"ok"}  # type: ignore[index]  # all have some


def test_a_streamed_run_is_the_same_tree(desk: Desk, spans: Spans) -> None:
    """It runs in a task of the SDK's, which takes the context of its caller along."""

    async def listened() -> None:
        with agenttrace.span("request"):
            await hear_all(desk.stream(desk.agent(WITH_TOOL, tools=[search])))

    desk.wait(listened())

    found = spans.tree()
    assert ("invoke_workflow Agent workflow", "request") in found
    assert ("execute_tool search", "turn 1") in found
    assert (f"chat {WITH_TOOL}", "turn 2") in found
    assert len(spans.all()) == 9


@pytest.mark.parametrize(
    "installed", [("openai", "openai-agents"), ("openai-agents", "openai")]
)
def test_a_model_call_is_one_span_in_either_order(
    desk: Desk, spans: Spans, installed: tuple[str, ...]
) -> None:
    """Two would count its tokens twice, and tell of a call that nobody made."""
    agenttrace.uninstrument()
    for name in installed:
        agenttrace.instrument(name)

    desk.wait(desk.run(desk.agent("ok;usage=7/9")))

    chat = spans.named("chat ok;usage=7/9")
    assert len(spans.all()) == 5
    assert chat["usage.input_tokens"] == 7
    assert chat["server.address"] == "127.0.0.1"
    assert chat.span.kind is SpanKind.CLIENT


def test_without_the_openai_instrumentation_the_sdk_tells_of_model_calls(
    desk: Desk, spans: Spans
) -> None:
    """It knows model, usage and messages as well; other clients have nothing else."""
    agenttrace.uninstrument("openai")

    desk.wait(desk.run(desk.agent("ok;usage=7/9")))

    (chat,) = [span for span in spans.all() if span.name.startswith("chat")]
    attributes = chat.attributes or {}
    assert attributes["gen_ai.usage.input_tokens"] == 7
    assert attributes["gen_ai.usage.output_tokens"] == 9
    assert attributes["gen_ai.request.model"] == "ok;usage=7/9"
    assert attributes["gen_ai.provider.name"] == "openai"
    assert len(spans.all()) == 5


def test_a_call_of_the_client_inside_a_tool_is_a_span_of_its_own(
    desk: Desk, spans: Spans
) -> None:
    """It is another call than the one whose answer asked for the tool."""

    @function_tool
    async def ask() -> str:
        answer = await desk.client.chat.completions.create(
            model="inner", messages=[{"role": "user", "content": "?"}]
        )
        return str(answer.choices[0].message.content)

    desk.wait(desk.run(desk.agent("tool=ask", tools=[ask])))

    assert ("chat inner", "execute_tool ask") in spans.tree()


def test_the_vendors_id_of_a_run_is_on_it(desk: Desk, spans: Spans) -> None:
    """By it the same run is found on the vendor's dashboard."""
    with trace("intake", trace_id="trace_1234"):
        desk.wait(desk.run(desk.agent()))

    attributes = told(spans)["invoke_workflow intake"]
    assert attributes["agenttrace.agents.trace_id"] == "trace_1234"
    assert attributes["gen_ai.workflow.name"] == "intake"
    assert attributes["gen_ai.operation.name"] == "invoke_workflow"


def test_a_group_is_a_conversation_on_every_span(desk: Desk, spans: Spans) -> None:
    """Sessions are told by `group_id`; a dashboard asks each span for it."""
    desk.wait(
        desk.run(desk.agent(WITH_TOOL, tools=[search]), group_id="c-17"),
    )

    found = told(spans)
    assert len(found) >= 7
    assert {each["gen_ai.conversation.id"] for each in found.values()} == {"c-17"}


def test_agents_tools_and_turns_say_who_they_are(desk: Desk, spans: Spans) -> None:
    """By the names that the GenAI conventions have for that."""
    desk.wait(desk.run(desk.agent(WITH_TOOL, tools=[search])))

    found = told(spans)
    agent, tool = found["invoke_agent triage"], found["execute_tool search"]
    assert agent["gen_ai.operation.name"] == "invoke_agent"
    assert agent["gen_ai.agent.name"] == "triage"
    assert agent["gen_ai.output.type"] == "text"
    assert tool["gen_ai.operation.name"] == "execute_tool"
    assert tool["gen_ai.tool.name"] == "search"
    assert found["turn 2"]["agenttrace.turn"] == 2


def test_no_content_is_told_unless_it_was_asked_for(desk: Desk, spans: Spans) -> None:
    """Neither what was said, nor arguments, nor results, nor data of the user's own."""
    with trace("wf", metadata={"secret": "tea"}), custom_span("x", {"secret": "tea"}):
        desk.wait(desk.run(desk.agent(WITH_TOOL, tools=[search], instructions="tea")))

    for span in spans.all():
        values = [
            str(value)
            for key, value in (span.attributes or {}).items()
            if key not in {"gen_ai.request.model", "gen_ai.response.model"}
        ]
        assert "tea" not in " ".join(values)


@pytest.fixture
def telling(spans: Spans) -> Iterator[Callable[..., Spans]]:
    """Return what makes everything be told from then on."""
    made: list[agenttrace.Runtime] = []

    def tell(*instrumented: str) -> Spans:
        agenttrace.uninstrument()
        agenttrace.instrument(*instrumented)
        exporter = InMemorySpanExporter()
        runtime = agenttrace.configure(span_exporter=exporter, capture_content=True)
        made.append(runtime)
        return Spans(exporter, runtime)

    assert spans.runtime.is_running
    yield tell
    for runtime in made:
        runtime.shutdown()


@pytest.mark.parametrize("installed", [("openai-agents",), ("openai-agents", "openai")])
def test_content_is_told_if_it_was_asked_for(
    desk: Desk, telling: Callable[..., Spans], installed: tuple[str, ...]
) -> None:
    """In the same form, whoever tells it."""
    spans = telling(*installed)

    desk.wait(desk.run(desk.agent(WITH_TOOL, tools=[search])))

    tool = told(spans)["execute_tool search"]
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"query": "tea"}
    assert tool["gen_ai.tool.call.result"] == "results for tea"
    chat = [span for span in spans.all() if span.name.startswith("chat")][-1]
    attributes: Any = chat.attributes
    asked = json.loads(attributes["gen_ai.input.messages"])
    said = json.loads(attributes["gen_ai.output.messages"])
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert said[0]["role"] == "assistant"
    assert said[0]["parts"][0]["content"] == "word0 word1 word2 word3"


def test_a_hand_off_says_from_whom_to_whom(desk: Desk, spans: Spans) -> None:
    """And the agent that takes over is a span beside the one that handed over."""
    billing = desk.agent("ok", name="billing")

    desk.wait(desk.run(desk.agent("tool=transfer_to_billing", handoffs=[billing])))

    handoff = told(spans)["handoff"]
    assert handoff["agenttrace.handoff.from"] == "triage"
    assert handoff["agenttrace.handoff.to"] == "billing"
    assert ("invoke_agent billing", "run Agent workflow") in spans.tree()


def test_an_agent_that_is_a_tool_runs_below_it(desk: Desk, spans: Spans) -> None:
    """Its run is part of the one that asked for it."""
    billing = desk.agent("ok", name="billing")
    ask = billing.as_tool("ask", "Ask billing.")

    model = 'tool=ask;toolargs={"input": "x"}'
    desk.wait(desk.run(desk.agent(model, tools=[ask])))

    found = spans.tree()
    assert ("run Agent workflow", "execute_tool ask") in found
    assert ("invoke_agent billing", "run Agent workflow") in found
    assert spans.traces() == 1


def test_guardrails_say_whether_they_found_anything(desk: Desk, spans: Spans) -> None:
    """One that does is no failure of its own: it did what it is for."""

    @input_guardrail
    def polite(
        _: RunContextWrapper[Any], __: Agent[Any], ___: object
    ) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    @output_guardrail
    def true(
        _: RunContextWrapper[Any], __: Agent[Any], ___: object
    ) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    agent = desk.agent(input_guardrails=[polite], output_guardrails=[true])
    with pytest.raises(agents.OutputGuardrailTripwireTriggered):
        desk.wait(desk.run(agent))

    found = told(spans)
    assert found["guardrail polite"]["agenttrace.guardrail.triggered"] is False
    assert found["guardrail true"]["agenttrace.guardrail.triggered"] is True
    assert found["guardrail true"]["agenttrace.outcome"] == "ok"
    failed = found["invoke_agent triage"]
    assert failed["agenttrace.outcome"] == "error"
    assert failed["error.type"].endswith("OutputGuardrailTripwireTriggered")


def test_custom_and_mcp_spans_are_told(spans: Spans) -> None:
    """What an application opens by hand stands where it was opened."""
    with trace("wf"):
        with custom_span("outer"), agenttrace.span("ours"), custom_span("inner"):
            pass
        with mcp_tools_span(server="files") as span:
            span.span_data.result = ["read", "write"]

    assert spans.tree() == {
        ("invoke_workflow wf", None),
        ("outer", "invoke_workflow wf"),
        ("ours", "outer"),
        ("inner", "ours"),
        ("list_tools files", "invoke_workflow wf"),
    }
    assert told(spans)["list_tools files"]["agenttrace.mcp.tools"] == ("read", "write")


def test_voice_spans_are_told(spans: Spans) -> None:
    """Of a pipeline that speaks and listens, without what was said."""
    with (
        trace("call"),
        agents.speech_group_span("hello"),
        agents.speech_span(model="tts", input="hello"),
    ):
        pass
    with trace("call"), agents.transcription_span(model="stt"):
        pass

    found = told(spans)
    assert found["speech"]["gen_ai.request.model"] == "tts"
    assert found["transcription"]["gen_ai.request.model"] == "stt"
    assert found["speech_group"]["agenttrace.outcome"] == "ok"
    assert "hello" not in str(found)


def test_a_span_that_names_its_parent_is_its_child(spans: Spans) -> None:
    """Whatever is current where it starts."""
    with trace("first") as first:
        pass
    with trace("second"):
        with (
            custom_span("named") as named,
            custom_span("between"),
            custom_span("below named", parent=named),
        ):
            pass
        with custom_span("below first", parent=first):
            pass

    found = spans.tree()
    assert ("below named", "named") in found
    assert ("below first", "invoke_workflow first") in found


def test_a_run_that_is_resumed_is_linked_to_the_one_that_waited(
    desk: Desk, spans: Spans
) -> None:
    """The SDK goes on in the trace of before, and tells nobody that it does."""

    @function_tool(needs_approval=True)
    def delete() -> str:
        return "deleted"

    agent = desk.agent("tool=delete", tools=[delete])

    async def resumed() -> object:
        config = desk.config(group_id="c-17", trace_id="trace_1234")
        waiting = await agents.Runner.run(agent, "hello", run_config=config)
        state = waiting.to_state()
        state.approve(waiting.interruptions[0])
        done = await agents.Runner.run(agent, state, run_config=config)
        return done.final_output

    assert desk.wait(resumed()) is not None
    ended = spans.all()
    (first,) = [span for span in ended if span.name.startswith("invoke_workflow")]
    again = [span for span in ended if span.name == "run Agent workflow"][-1]
    assert [link.context.span_id for link in again.links] == [
        first.context and first.context.span_id
    ]
    told: Any = again.attributes
    assert told["agenttrace.agents.trace_id"] == "trace_1234"
    for span in ended:
        each: Any = span.attributes
        assert each["gen_ai.conversation.id"] == "c-17"


def test_where_tracing_is_disabled_the_sdk_is_left_alone(
    desk: Desk, spans: Spans
) -> None:
    """Its switch is the application's; model calls have their client's spans still."""
    desk.wait(desk.run(desk.agent("ok"), tracing_disabled=True))

    assert [span.name for span in spans.all()] == ["chat ok"]
