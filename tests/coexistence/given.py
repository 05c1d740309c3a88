"""Runs a traced program beside another tool, with a backend of its own for each.

The tools are real, and are installed by the extra `coexistence` in an environment of
their own: some of them hook into every pytest run or every pydantic model of the
environment they are in.  So these tests are asked for by path; a tool that is not there
fails them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.delivery.collector import Collector, Received

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 30.0
"""Seconds that a program may take, imports and exit included, on a busy machine."""

WORK = """
import asyncio
import agenttrace

def work(theirs):
    @agenttrace.tool
    def search(query):
        with theirs("theirs inside"):
            return [query]

    @agenttrace.agent
    async def stream():
        for number in range(3):
            with theirs("theirs per item"):
                await asyncio.sleep(0)
            yield number

    async def read_one():
        numbers = stream()
        async for _ in numbers:
            break
        await numbers.aclose()

    with agenttrace.bind(conversation_id="c-1"):
        with theirs("theirs outside"):
            with agenttrace.span("plan"):
                search("x")
            asyncio.run(read_one())
            try:
                with theirs("theirs, stopped"):
                    raise asyncio.CancelledError
            except asyncio.CancelledError:
                pass
"""

TREE = {
    "theirs outside": ("", "ok"),
    "plan": ("theirs outside", "ok"),
    "execute_tool search": ("plan", "ok"),
    "theirs inside": ("execute_tool search", "ok"),
    "invoke_agent stream": ("theirs outside", "abandoned"),
    "theirs per item": ("invoke_agent stream", "ok"),
    "theirs, stopped": ("theirs outside", "cancelled"),
}
"""What `work` leaves: parents and outcomes by name."""


@dataclass(frozen=True)
class Ran:
    """What came of a program, and what the backends were sent, by path."""

    code: int
    out: str
    err: str
    seconds: float
    sent: dict[str, list[Received]]

    def tree(self, path: str) -> dict[str, tuple[str, object]]:
        """Return parent and outcome by name; a span that came twice fails the test."""
        spans = self.sent[path]
        ids = Counter(span.span_id for span in spans)
        assert {each: n for each, n in ids.items() if n > 1} == {}
        assert all(span.end_time >= span.start_time > 0 for span in spans)
        names = {span.span_id: span.name for span in spans}
        return {
            span.name: (
                names.get(span.parent_id, span.parent_id),
                span.attributes.get("agenttrace.outcome"),
            )
            for span in spans
        }

    def traces(self) -> set[str]:
        """Return the ids of all traces."""
        return {span.trace_id for spans in self.sent.values() for span in spans}


def run(directory: Path, program: str, *, own: bool) -> Ran:
    """Run *program*, a file for the tools that read it, and collect what is sent.

    Args:
        directory: Where to write it.
        program: Knows the backend as `BASE`, and its path for traces as `TRACES`.
        own: Whether OTel's variables name the backend, as for our own provider.
    """
    file = directory / "program.py"
    with Collector() as collector:
        base = collector.endpoint.removesuffix("/v1/traces")
        head = f"BASE, TRACES = {base!r}, {collector.endpoint!r}\n"
        file.write_text(head + WORK + textwrap.dedent(program))
        # Beside another program, each recovers its own and not what the other lost.
        env = os.environ | {"AGENTTRACE_STATE_DIR": str(directory / "state")}
        if own:
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = base
            env["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(file)],
            env=env,
            capture_output=True,
            text=True,
            timeout=4 * LONGEST,
            check=False,
        )
        seconds = time.monotonic() - started
        sent: dict[str, list[Received]] = {}
        for request in collector.requests:
            # Logs and metrics go to other paths.
            if request.path.endswith("/traces"):
                sent.setdefault(request.path, []).extend(request.spans)
    return Ran(done.returncode, done.stdout, done.stderr, seconds, sent)
