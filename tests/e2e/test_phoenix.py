"""What Phoenix, which reads the GenAI conventions, makes of the spans that it is sent.

It translates them into conventions of its own, OpenInference's: the kind of a span, the
model, the tokens, the session.  It is sent nothing but what every backend is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from agenttrace import semconv
from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Span = dict[str, Any]
# To begin it imports hundreds of modules: a minute and more where others are at work.
pytestmark = pytest.mark.timeout(900)
PROGRAM = """
import asyncio
import contextlib
import threading

import agents
import openai

import agenttrace
from agenttrace.testing.model_server import ModelServer, error, text, tool_call

judged = threading.Event()
runtime = agenttrace.configure(
    stuck_hooks=[lambda report: judged.set()], capture_content=True
)
agenttrace.instrument("openai", "openai-agents")


@agents.function_tool
def find_order(number: str) -> str:
    \"\"\"Look up an order.\"\"\"
    return "on its way"


def script(request):
    if request.model == "refuses":
        return error(400, "no such thing")
    if request.model == "looks-up" and not request.tool_results:
        return tool_call("find_order", {"number": "1042"})
    return text("On its way.")


with ModelServer(script) as server:
    said = {"base_url": server.base_url, "api_key": "none", "max_retries": 0}
    ask = openai.OpenAI(**said).chat.completions.create
    question = "Where is 1042?"
    messages = [{"role": "user", "content": question}]
    model = agents.OpenAIChatCompletionsModel("looks-up", openai.AsyncOpenAI(**said))
    orders = agents.Agent(name="orders", model=model, tools=[find_order])
    with agenttrace.bind(conversation_id="c-17"):
        ask(model="answers", messages=messages)
        asyncio.run(agents.Runner.run(orders, question))
    with contextlib.suppress(openai.BadRequestError):
        ask(model="refuses", messages=messages)
with agenttrace.span("invoke_agent waits", operation="invoke_agent"):
    tool = {"operation": "execute_tool", "heartbeat_timeout": 1}
    with agenttrace.span("execute_tool hangs", **tool):
        assert judged.wait(60)
assert runtime.shutdown(60)
"""
PARENTS = (
    ("chat answers", None),
    ("invoke_workflow Agent workflow", None),
    ("run Agent workflow", "invoke_workflow Agent workflow"),
    ("invoke_agent orders", "run Agent workflow"),
    ("turn 1", "invoke_agent orders"),
    ("chat looks-up", "turn 1"),
    ("execute_tool find_order", "turn 1"),
    ("turn 2", "invoke_agent orders"),
    ("chat looks-up", "turn 2"),
    ("chat refuses", None),
    ("invoke_agent waits", None),
    ("execute_tool hangs", "invoke_agent waits"),
    ("agenttrace.late_finish: execute_tool hangs", "execute_tool hangs"),
)
"""Of each span its name, and its parent's."""


class Told:
    """Spans as Phoenix has them."""

    def __init__(self, phoenix: servers.Phoenix, spans: Sequence[Span]) -> None:
        self.phoenix = phoenix
        self.spans = spans

    def named(self, name: str) -> list[Span]:
        return [each for each in self.spans if each["name"] == name]

    def one(self, name: str) -> Span:
        (found,) = self.named(name)
        return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Run the program once, and give what Phoenix has of it."""
    folder = tmp_path_factory.mktemp("phoenix")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        # Of another Phoenix, on the same machine: ours would not begin with it.
        patch.setenv("PHOENIX_ENABLE_AUTH", "true")
        phoenix = running.enter_context(servers.phoenix(folder))
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM)],
            env={
                **os.environ,
                "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix.base,
                # A marker or a blocked loop is a span more, on a slow machine.
                "AGENTTRACE_VISIBLE_AFTER": "inf",
                "AGENTTRACE_STATE_DIR": str(folder / "state"),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

        def arrived() -> list[Span]:
            spans = phoenix.spans()
            return spans if len(spans) >= len(PARENTS) else []

        # It has taken them, and writes them down by and by.
        yield Told(phoenix, servers.until("all spans", arrived))


def test_every_span_arrives_once_and_beneath_its_parent(told: Told) -> None:
    """What stands in one trace here stands in one trace there."""
    names = {each["context"]["span_id"]: each["name"] for each in told.spans}
    found = [(each["name"], names.get(each["parent_id"])) for each in told.spans]

    assert Counter(found) == Counter(PARENTS)
    assert len(names) == len(told.spans)
    assert len({each["context"]["trace_id"] for each in told.spans}) == 4


def test_it_knows_agents_models_and_tools_apart(told: Told) -> None:
    """By the name of the operation; a workflow, and what has none, it cannot place."""
    kinds = {each["name"]: each["span_kind"] for each in told.spans}

    assert kinds == {
        "chat answers": "LLM",
        "chat looks-up": "LLM",
        "chat refuses": "LLM",
        "invoke_agent orders": "AGENT",
        "invoke_agent waits": "AGENT",
        "execute_tool find_order": "TOOL",
        "execute_tool hangs": "TOOL",
        "agenttrace.late_finish: execute_tool hangs": "TOOL",
        "invoke_workflow Agent workflow": "UNKNOWN",
        "run Agent workflow": "UNKNOWN",
        "turn 1": "UNKNOWN",
        "turn 2": "UNKNOWN",
    }


def test_model_and_tokens_of_a_chat_are_what_the_model_said(told: Told) -> None:
    """Its columns of models and tokens are filled from the GenAI attributes."""
    for span in (told.one("chat answers"), *told.named("chat looks-up")):
        has: Mapping[str, Any] = span["attributes"]
        assert has["llm.model_name"] == has[semconv.GEN_AI_RESPONSE_MODEL]
        prompt = has[semconv.GEN_AI_USAGE_INPUT_TOKENS]
        completion = has[semconv.GEN_AI_USAGE_OUTPUT_TOKENS]
        assert (prompt > 0, completion > 0) == (True, True)
        assert has["llm.token_count.prompt"] == prompt
        assert has["llm.token_count.completion"] == completion
        assert has["llm.token_count.total"] == prompt + completion
    assert told.one("execute_tool find_order")["attributes"]["tool.name"] == (
        "find_order"
    )


def test_a_conversation_is_a_session(told: Told) -> None:
    """Runs of one conversation are read together there, with all of their tokens."""
    data = told.phoenix.ask(
        "{projects {edges {node {name sessions(first: 10) {edges {node {"
        " sessionId numTraces tokenUsage {total}}}}}}}}"
    )
    projects = {
        each["node"]["name"]: each["node"] for each in data["projects"]["edges"]
    }
    (session,) = [each["node"] for each in projects["default"]["sessions"]["edges"]]
    total = sum(
        each["attributes"].get("llm.token_count.total", 0) for each in told.spans
    )

    assert (session["sessionId"], session["numTraces"]) == ("c-17", 2)
    assert session["tokenUsage"]["total"] == total > 0


def test_what_failed_or_got_stuck_is_an_error_and_nothing_else_is(told: Told) -> None:
    """The status, its message, and the event that says where it hangs."""
    failed = told.one("chat refuses")
    stuck = told.one("execute_tool hangs")

    errors = {each["name"] for each in told.spans if each["status_code"] == "ERROR"}
    assert errors == {"chat refuses", "execute_tool hangs"}
    assert failed["status_message"].startswith("BadRequestError")
    assert [each["name"] for each in failed["events"]] == ["exception"]
    assert failed["attributes"][semconv.OUTCOME] == "error"
    assert stuck["status_message"].startswith("no progress for")
    assert stuck["attributes"][semconv.OUTCOME] == "stuck"
    assert stuck["attributes"][semconv.ENDED_BY] == "watchdog"
    (hang,) = stuck["events"]
    assert hang["name"] == semconv.HANG
    assert hang["attributes"][semconv.HANG_IDLE] >= 1


def test_what_was_said_is_shown_as_messages(told: Told) -> None:
    """With `capture_content`: what was asked, which tool was wanted, the answer."""
    wants, answers = sorted(
        told.named("chat looks-up"), key=lambda each: str(each["start_time"])
    )
    asked, answered = "llm.input_messages", "llm.output_messages.0.message"
    call = "message.tool_calls.0.tool_call.function"

    has: Mapping[str, Any] = wants["attributes"]
    assert has[f"{asked}.0.message.role"] == "user"
    assert has[f"{asked}.0.message.content"] == "Where is 1042?"
    assert has[f"llm.output_messages.0.{call}.name"] == "find_order"
    has = answers["attributes"]
    assert has[f"{asked}.1.{call}.name"] == "find_order"
    assert has[f"{asked}.2.message.content"] == "on its way"
    assert has[f"{answered}.role"] == "assistant"
    assert has[f"{answered}.content"] == "On its way."


def test_links_are_not_kept(told: Told) -> None:
    """Who looks for what a late end is linked to has its parent instead."""
    late = told.one("agenttrace.late_finish: execute_tool hangs")
    fields = told.phoenix.ask('{__type(name: "Span") {fields {name}}}')["__type"]
    names = {each["name"] for each in fields["fields"]}

    assert "events" in late.keys() & names
    assert "links" not in late.keys() | names
