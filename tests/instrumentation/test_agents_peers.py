"""Another tool that follows the SDK has its own tree, as without us, and we ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import agent_span, function_span, trace
from agents.tracing.processor_interface import TracingProcessor
from opentelemetry import context as otel
from opentelemetry import trace as otel_trace

import agenttrace

if TYPE_CHECKING:
    from agents.tracing import Span, Trace

    from tests.instrumentation.given import Spans

pytestmark = pytest.mark.usefixtures("spans", "without_vendor")

THEIRS = {
    ("workflow", None),
    ("agent", "workflow"),
    ("tool", "agent"),
    ("workflow", "tool"),
    ("agent", "workflow"),
}
OURS = {
    ("invoke_workflow wf", None),
    ("invoke_agent triage", "invoke_workflow wf"),
    ("execute_tool search", "invoke_agent triage"),
    ("fetch", "execute_tool search"),
    ("invoke_workflow inner", "execute_tool search"),
    ("invoke_agent inner", "invoke_workflow inner"),
}


class Peer(TracingProcessor):
    """Starts its spans beneath what is current, as OpenLLMetry does."""

    def __init__(self) -> None:
        self.tracer = otel_trace.get_tracer("peer.instrumentation.openai_agents")
        self.open: dict[object, tuple[Any, Any]] = {}

    def on_trace_start(self, trace: Trace) -> None:
        self.start(trace, "workflow")

    def on_trace_end(self, trace: Trace) -> None:
        self.end(trace)

    def on_span_start(self, span: Span[Any]) -> None:
        self.start(span, "tool" if span.span_data.type == "function" else "agent")

    def on_span_end(self, span: Span[Any]) -> None:
        self.end(span)

    def start(self, item: object, name: str) -> None:
        mine = self.tracer.start_span(name)
        self.open[item] = mine, otel.attach(otel_trace.set_span_in_context(mine))

    def end(self, item: object) -> None:
        mine, token = self.open.pop(item)
        mine.end()
        otel.detach(token)

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


def test_a_peer_that_goes_by_the_current_span_finds_its_own(spans: Spans) -> None:
    """Else its tools stand beside their agent, and its tree says what never was."""
    agents.set_trace_processors([Peer()])

    with trace("wf"), agent_span("triage"):
        with function_span("search"):
            with agenttrace.span("fetch"):
                pass
            with trace("inner"), agent_span("inner"):
                pass
        after = otel_trace.get_current_span()
    nothing = otel_trace.get_current_span()

    assert spans.tree() == THEIRS | OURS
    # What is current for everybody else is ours.
    assert getattr(after, "name", None) == "invoke_agent triage"
    assert nothing is otel_trace.INVALID_SPAN


def test_a_span_of_the_applications_is_their_parent_as_it_is_ours(
    spans: Spans,
) -> None:
    """It is what they find without us."""
    agents.set_trace_processors([Peer()])

    with trace("wf"), agenttrace.span("mine"), agent_span("triage"):
        pass

    assert {("agent", "mine"), ("invoke_agent triage", "mine")} < spans.tree()
