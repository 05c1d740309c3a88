"""Another tool that follows the SDK has its own tree, as without us, and we ours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import (
    agent_span,
    function_span,
    generation_span,
    trace,
    transcription_span,
)
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


def test_beneath_a_span_that_is_not_made_current_all_is_as_it_is_without_it(
    spans: Spans,
) -> None:
    """Voice has such spans: whatever starts beneath one is in the trace of its run."""
    agents.set_trace_processors([Peer()])

    with trace("wf"), agent_span("triage"):
        heard = transcription_span("whisper")
        heard.start()
        inside = otel_trace.get_current_span()
        with agenttrace.span("app"):
            pass
        with function_span("f"):
            pass
        heard.finish()
        after = otel_trace.get_current_span()

    traces: dict[int, set[str]] = {}
    for span in spans.all():
        assert span.context is not None
        traces.setdefault(span.context.trace_id, set()).add(span.name)
    assert sorted(traces.values(), key=len) == [
        {"workflow", "agent", "tool"},
        {
            "invoke_workflow wf",
            "invoke_agent triage",
            "transcription",
            "app",
            "execute_tool f",
        },
    ]
    assert {("app", "invoke_agent triage"), ("tool", "agent")} < spans.tree()
    names = [getattr(span, "name", None) for span in (inside, after)]
    assert names == ["invoke_agent triage"] * 2


def test_their_span_of_a_model_call_is_current_in_it(spans: Spans) -> None:
    """Their instrumentation of the client asks for it, or tells the call twice."""
    agents.set_trace_processors([Peer()])

    with trace("wf"), agent_span("triage"):
        before = otel_trace.get_current_span()
        with generation_span(model="m"):
            inside = otel_trace.get_current_span()

    assert getattr(before, "name", None) == "invoke_agent triage"
    assert getattr(inside, "name", None) == "agent"
    assert len(spans.all()) == 6


class Odd(otel_trace.NonRecordingSpan):
    """A span of another library, which says anything of its scope."""

    def __init__(self, scope: object) -> None:
        flags = otel_trace.TraceFlags(otel_trace.TraceFlags.SAMPLED)
        super().__init__(otel_trace.SpanContext(1, 2, False, flags))  # noqa: FBT003 - OTel's signature
        self.instrumentation_scope = scope


@pytest.mark.parametrize("scope", [None, object(), SimpleNamespace(name=None)])
def test_a_current_span_of_any_library_is_borne(spans: Spans, scope: object) -> None:
    """What it says of its scope is its own business."""
    with otel_trace.use_span(Odd(scope)), trace("wf"), agent_span("triage"):
        pass

    told = [span.name for span in spans.all()]
    assert told == ["invoke_agent triage", "invoke_workflow wf"]
