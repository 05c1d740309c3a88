"""The Agent Framework: off, beside another provider, taken out, as documented."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agenttrace
from agenttrace.delivery.store.reader import Reader
from agenttrace.instrumentation import agent_framework
from agenttrace.testing.model_server import ModelServer
from tests.docs.pages import ROOT, run
from tests.systems.framework import (
    LONG,
    STALLED,
    Desk,
    desk,
    framework,
    read,
    server,
    spans,
    tool,
)

if TYPE_CHECKING:
    import pytest

    from tests.instrumentation.given import Spans

__all__ = ["desk", "server", "spans"]

ATTACHED = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

import agenttrace
from agenttrace.testing.garbage import collect_garbage

agenttrace.configure()
agenttrace.instrument("agent-framework", "openai")

from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient
from agent_framework.observability import enable_instrumentation

enable_instrumentation()


def agent(model):
    client = OpenAIChatClient(model=model, base_url=sys.argv[1], api_key="unused")
    return Agent(client=client, name="keeper")


async def read(stream, updates):
    async for _ in stream:
        updates -= 1
        if not updates:
            break


async def main():
    long = agent("ok;chunks=8;gap=0.01")
    await read(long.run("?", stream=True), 3)
    for _ in range(3):
        collect_garbage()
        await asyncio.sleep(0)
    stream = long.run("?", stream=True)
    await asyncio.create_task(read(stream, 3))
    await asyncio.create_task(read(stream, -1))
    slow = agent("polls=2")
    options = {"background": True}
    reply = await slow.run("?", options=options)
    while reply.continuation_token:
        token = reply.continuation_token
        reply = await slow.run(options={**options, "continuation_token": token})


asyncio.run(main())
said = "agenttrace.outcome", "agenttrace.ended_by"
told = [
    [span.name, *map(span.attributes.get, said)]
    for span in exporter.get_finished_spans()
    if span.name.startswith(("chat", "invoke"))
]
print(json.dumps(told))
"""


def test_without_its_own_tracing_there_are_no_spans_of_it(
    desk: Desk, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its switch is the application's to use; a client's span stands alone then."""
    settings = framework.observability.OBSERVABILITY_SETTINGS
    switch = "_enable_instrumentation"
    if not hasattr(settings, switch):
        switch = switch[1:]
    monkeypatch.setattr(settings, switch, False)

    @tool
    def look_up() -> str:
        framework.observability.get_tracer().start_span("the application's").end()
        return "42"

    desk.wait(desk.agent("tool=look_up", tools=[look_up]).run("hello"))
    desk.wait(read(desk.agent(LONG).run("hello", stream=True)))

    assert "invoke_agent keeper" not in [span.name for span in spans.all()]
    own = spans.named("the application's").span.attributes or {}
    assert "gen_ai.operation.name" not in own


def test_where_its_calls_cannot_be_followed_the_framework_goes_on(
    desk: Desk, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows them is imported at the first one, inside of the application."""

    def broken() -> None:
        raise ImportError

    monkeypatch.setenv("AGENTTRACE_STRICT", "0")
    for module in ("_calls", "_sessions"):
        monkeypatch.setattr(agent_framework, module, broken)
    session = framework.AgentSession()

    desk.wait(desk.agent(LONG).run("hello", session=session))
    updates = desk.wait(read(desk.agent(LONG).run("hello", stream=True)))

    assert updates
    assert session.to_dict()
    assert "invoke_agent keeper" in [span.name for span in spans.all()]


def test_it_can_be_taken_out(spans: Spans) -> None:
    """The very functions and variables are back, and what they are is unchanged."""
    layer = framework.observability.AgentTelemetryLayer
    variable = framework.observability.INNER_ACCUMULATED_USAGE
    with_it = (layer.run, variable)

    agenttrace.uninstrument("agent-framework")
    without = (layer.run, framework.observability.INNER_ACCUMULATED_USAGE)
    agenttrace.instrument("agent-framework")

    assert inspect.isfunction(without[0])
    assert type(without[1]).__name__ == "ContextVar"
    assert with_it[0] is not without[0]
    assert with_it[1] is not without[1]
    assert spans.all() == []


ONE_OF_EACH = dict.fromkeys(
    itertools.product(("invoke_agent", "chat"), ("ok", "abandoned", "cancelled")), 1
)


def outcomes(spans: Spans) -> Counter[tuple[str, object]]:
    """Return how many runs and questions ended in which way."""
    return Counter(
        (span.name.split()[0], (span.attributes or {})["agenttrace.outcome"])
        for span in spans.all()
    )


async def open_when_taken_out(
    desk: Desk,
) -> list[Any]:
    """Return two streams that go on and one that stalls, open as it is taken out."""
    models = (LONG, LONG, STALLED)
    streams = [desk.agent(model).run("hello", stream=True) for model in models]
    for stream in streams:
        await read(stream, 1)
    agenttrace.uninstrument("agent-framework")
    return streams


def test_streams_that_are_open_when_it_is_taken_out_end_as_they_do(
    desk: Desk, spans: Spans
) -> None:
    """Who reads on knows nothing of it, and a run that was read is not abandoned."""

    async def work() -> None:
        whole, left, cut = await open_when_taken_out(desk)
        await read(whole)
        await left.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await read(cut)

    desk.wait(work())
    agenttrace.instrument("agent-framework")

    assert [span.name for span in agenttrace.open_spans()] == []
    assert outcomes(spans) == ONE_OF_EACH


def test_what_the_application_handles_as_it_closes_a_stream_did_not_end_that(
    desk: Desk, spans: Spans
) -> None:
    """A run that is left, or read on, because another one failed has not failed."""

    async def work() -> None:
        whole, left, cut = await open_when_taken_out(desk)
        try:
            async with asyncio.timeout(0):
                await read(cut)
        except TimeoutError:
            await left.close()
            await read(whole)

    desk.wait(work())
    agenttrace.instrument("agent-framework")

    assert outcomes(spans) == ONE_OF_EACH


def test_its_spans_are_corrected_beside_another_provider(server: ModelServer) -> None:
    """Agents are often traced already, by a plain SDK set-up or another tool's."""
    ran = subprocess.run(
        [sys.executable, "-c", ATTACHED, server.base_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ran.returncode == 0, ran.stderr
    assert sorted(json.loads(ran.stdout)) == [
        ["chat ok;chunks=8;gap=0.01", "abandoned", "gc"],
        ["chat ok;chunks=8;gap=0.01", "ok", "return"],
        ["chat polls=2", "ok", "return"],
        ["invoke_agent keeper", "abandoned", "gc"],
        ["invoke_agent keeper", "ok", "return"],
        ["invoke_agent keeper", "ok", "return"],
    ]


def test_the_python_of_its_page_runs(tmp_path: Path) -> None:
    """What is copied from a page is the first thing that a reader tries."""
    page = ROOT / "docs/how-to/trace-agent-framework.md"

    with ModelServer() as models:
        ran = run(
            page.read_text(),
            tmp_path,
            OPENAI_BASE_URL=models.base_url,
            OPENAI_API_KEY="unused",
            ENABLE_INSTRUMENTATION="true",
        )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""


def test_its_example_goes_on_where_a_worker_was_killed(tmp_path: Path) -> None:
    """What the page says of it is what a reader will see."""
    ran = subprocess.run(
        [
            sys.executable,
            ROOT / "examples/agent_framework_session.py",
            tmp_path / "kept.json",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "the first worker ended with -9, and left kept.json",
        "word0 word1 word2 word3",
    ]
    reader = Reader(Path(os.environ["AGENTTRACE_STATE_DIR"]) / "traces.db")
    heir, broken = reader.runs(2, service="keepers")
    assert (broken.outcome, heir.outcome) == ("lost", "ok")
