"""Peers that instrument openai or the Agents SDK too, in one process with agenttrace.

Each runs the same program alone, set up before us, and set up after us.  What it tells
has to be what it tells alone; what is added is what it could not know: how its spans
ended, and those that it never ends.  `docs/how-to/existing-opentelemetry.md` has the
table of what was found.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import pytest

from agenttrace.testing.model_server import ModelServer, text, tool_call
from tests.coexistence.given import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agenttrace.testing.model_server import Reply, Request
    from tests.coexistence.given import Ran
    from tests.delivery.collector import Received

TRACES: Final = "/v1/traces"
ORDERS: Final = {
    "alone": "theirs(); used_by(None)",
    "they first": "theirs(); ours(); used_by(agenttrace)",
    "we first": "ours(); theirs(); used_by(agenttrace)",
}
OURS: Final = "agenttrace"
PLAIN: Final = """
def provider():
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
        trace.get_tracer_provider().add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(TRACES))
        )
"""
PROGRAM: Final = """
import gc, os, signal, subprocess, sys
os.environ.update(OPENAI_BASE_URL=MODELS, OPENAI_API_KEY="unused")
import agents
import openai
agents.set_trace_processors([])  # none of them is to send anything to the vendor

def ours():
    agenttrace.configure(loop_blocked_after=float("inf"))
    agenttrace.instrument()

def streamed(client, model="m"):
    return client.chat.completions.create(model=model, messages=ASKED, stream=True)

@agents.function_tool
def search(query: str) -> str:
    return "garden"

ASKED = [{"role": "user", "content": "Where is Ada?"}]
kept = []

def used_by(agenttrace):
    client = openai.OpenAI(max_retries=0)
    if sys.argv[1:]:
        for _ in streamed(client, "killed"):
            os.kill(os.getpid(), signal.SIGKILL)
    if agenttrace is not None:
        worker = subprocess.Popen(
            [sys.executable, __file__, "worker"], stderr=subprocess.DEVNULL
        )
    client.chat.completions.create(model="m", messages=ASKED)
    for _ in streamed(client):
        pass
    dropped = streamed(client)
    for _ in dropped:
        break
    del dropped
    gc.collect()
    triage = agents.Agent(name="triage", model="m", tools=[search])
    agents.Runner.run_sync(triage, "Where is Ada?")
    kept.append(streamed(client, "kept"))
    for _ in kept[0]:
        break
    if agenttrace is not None:
        worker.wait()
        agenttrace.recover()
"""


@dataclass(frozen=True)
class Peer:
    """A peer, and in what it differs.

    Attributes:
        theirs: The source of `theirs()`, which sets it up.
        scopes: What its scopes begin with.
        path: Where its spans arrive.
        leaks: How many streams it leaves open and has told, killed ones included.
        says_first: Whether it says of a span that none is above it, which in an agents
            run is said of ours then.
        joins: Whether it has no tree of its own in an agents run: its model calls,
            which have a trace each alone, are in ours then.
        is_apart: Whether its spans are of a provider of its own when it comes second.
        told: What it makes the program say when it comes second.
    """

    theirs: str
    scopes: tuple[str, ...]
    path: str = TRACES
    leaks: int = 2
    says_first: bool = False
    joins: bool = False
    is_apart: bool = False
    told: str = ""


PEERS: Final = {
    "logfire": Peer(
        """
def theirs():
    import logfire
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    added = []
    if "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:  # or it sends there by itself
        added.append(BatchSpanProcessor(OTLPSpanExporter(TRACES)))
    logfire.configure(
        send_to_logfire=False, console=False, additional_span_processors=added
    )
    logfire.instrument_openai()
    logfire.instrument_openai_agents()
""",
        ("logfire",),
        leaks=0,
        is_apart=True,
        told="Overriding of current TracerProvider is not allowed\n",
    ),
    "openinference": Peer(
        PLAIN
        + """
def theirs():
    provider()
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
    OpenAIInstrumentor().instrument()
    OpenAIAgentsInstrumentor().instrument()
""",
        ("openinference",),
    ),
    "opentelemetry": Peer(
        PLAIN
        + """
def theirs():
    provider()
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument()
""",
        ("opentelemetry.instrumentation.genai",),
        joins=True,
    ),
    "openllmetry": Peer(
        PLAIN
        + """
def theirs():
    provider()
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry.instrumentation.openai_agents import OpenAIAgentsInstrumentor
    OpenAIInstrumentor().instrument()
    OpenAIAgentsInstrumentor().instrument()
""",
        ("opentelemetry.instrumentation.openai",),
    ),
    "langfuse": Peer(
        """
def theirs():
    from langfuse import Langfuse
    Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=BASE)
    import langfuse.openai
""",
        ("langfuse",),
        path="/api/public/otel/v1/traces",
        leaks=0,
        says_first=True,
        joins=True,
    ),
}
_VARYING: Final = re.compile(
    r"[0-9a-f]{8,}(_\d+)?|127\.0\.0\.1:\d+|\d+\.\d+(e-\d+)?(?=s\b)"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"
)
_OF_THE_MOMENT: Final = ("server.port", "net.peer.port")
# It tells the caller's frame by where packages are installed, which a checkout is not.
_OF_THE_CALLER: Final = ("code.filepath", "code.function", "code.lineno")
_OF_THE_FIRST: Final = ("langfuse.internal.is_app_root",)


def script(request: Request) -> Reply:
    """Answer in words, an agent after it has used its tool."""
    if "tools" in request.body and not request.tool_results:
        return tool_call("search", {"query": "Ada"})
    return text("In the garden, behind the house.")


def said(value: object) -> str:
    """Return a value of an attribute without what is another one in every process."""
    if isinstance(value, float):
        return "a float"
    return _VARYING.sub("#", json.dumps(value, default=str))


def form(
    span: Received,
    by_id: dict[str, Received],
    trace: Sequence[str],
    *,
    says_first: bool,
) -> str:
    """Return what is compared of *span*: all that is not different every time.

    Its parent is the nearest span above it that is theirs, its trace the names of those
    that are theirs in it.
    """
    attributes = {
        key: said(value)
        for key, value in sorted(span.attributes.items())
        if not key.startswith("agenttrace.")
        and key not in _OF_THE_MOMENT + _OF_THE_CALLER
        and not (says_first and key in _OF_THE_FIRST)
        and (key, value) != ("error.type", "_OTHER")
    }
    parent = by_id.get(span.parent_id)
    while parent is not None and parent.scope == OURS:
        parent = by_id.get(parent.parent_id)
    above = "" if parent is None else parent.name
    events = [(name, {k: said(v) for k, v in of.items()}) for name, of in span.events]
    whose = (span.scope, span.name, above, trace, span.kind)
    return json.dumps([*whose, span.status, span.status_message, attributes, events])


def told_by(peer: Peer, spans: Sequence[Received]) -> list[Received]:
    return [span for span in spans if span.scope.startswith(peer.scopes)]


def is_cut_short(span: Received) -> bool:
    """Return whether *span* is of a stream that the program never comes back to."""
    lost = span.attributes.get("agenttrace.outcome") == "lost"
    return lost or any(f'"{word}"' in said(span.attributes) for word in CUT_SHORT)


CUT_SHORT: Final = ("kept", "killed")


def forms(peer: Peer, spans: Sequence[Received]) -> list[str]:
    by_id = {span.span_id: span for span in spans}
    compared = [span for span in told_by(peer, spans) if not is_cut_short(span)]
    traces: dict[str, list[str]] = {}
    if not peer.joins:
        for span in sorted(compared, key=attrgetter("name")):
            traces.setdefault(span.trace_id, []).append(span.name)
    return sorted(
        form(span, by_id, traces.get(span.trace_id, ()), says_first=peer.says_first)
        for span in compared
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PEERS)
def test_what_a_peer_tells_is_what_it_tells_alone(tmp_path: Path, name: str) -> None:
    """One process for each order, and all that is to hold of it.

    Its spans are the same; each has one form; each has an outcome; and those that it
    leaves open, in a worker that was killed as well, are told.
    """
    peer = PEERS[name]

    def ran_in(order: str) -> Ran:
        directory = tmp_path / order.replace(" ", "_")
        directory.mkdir()
        with ModelServer(script) as models:
            head = f"MODELS = {models.base_url!r}\n"
            program = head + peer.theirs + PROGRAM + ORDERS[order]
            return run(directory, program, own=order == "we first")

    with ThreadPoolExecutor(len(ORDERS)) as pool:
        ran = dict(zip(ORDERS, pool.map(ran_in, ORDERS), strict=True))

    alone = ran.pop("alone")
    assert (alone.code, alone.err) == (0, "")
    expected = forms(peer, alone.sent[peer.path])
    assert len(expected) >= 3
    for order, beside in ran.items():
        told = peer.told if order == "we first" else ""
        assert (beside.code, beside.err) == (0, told), order
        spans = beside.sent[peer.path]
        assert forms(peer, spans) == expected, order
        for sent in beside.sent.values():
            ids = [span.span_id for span in sent]
            assert len(ids) == len(set(ids)), order
        if order == "we first" and peer.is_apart:
            continue
        theirs = told_by(peer, spans)
        assert all("agenttrace.outcome" in span.attributes for span in theirs), order
        lost = [s for s in theirs if s.attributes["agenttrace.outcome"] == "lost"]
        assert len(lost) == peer.leaks, order
