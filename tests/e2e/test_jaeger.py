"""The demo's runs as users see them in Jaeger: whole, closed, and with the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from agenttrace import semconv
from agenttrace.demo import backend
from agenttrace.demo.account import Act, Sent
from agenttrace.demo.scenarios import SCENARIOS
from agenttrace.demo.tally import Started
from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Span = dict[str, Any]
MARKER = semconv.MARKER_NAME
LINKED = """
import asyncio
import sys
import threading

import agenttrace

judged = threading.Event()
runtime = agenttrace.configure(stuck_hooks=[lambda report: judged.set()])


async def job():
    with agenttrace.span("part of the job"):
        await asyncio.sleep(0)


async def request():
    with agenttrace.span("request"):
        task = agenttrace.background(job(), name="job")
        with agenttrace.span("first part"):
            token = agenttrace.checkpoint()
    await task
    return token


token = asyncio.run(request())
with agenttrace.resume(token, name="second part"):
    pass
with agenttrace.span("hangs", heartbeat_timeout=1):
    assert judged.wait(60)
with agenttrace.span("goes on"):
    with agenttrace.span("has ended"):
        pass
    sys.stdin.read()
assert runtime.shutdown(60)
"""
OUTLIVES = re.compile(r"clock skew adjustment disabled; .* delta of -")


class Told:
    """Spans as Jaeger shows them, of all traces."""

    def __init__(
        self, traces: list[dict[str, Any]], demo: Mapping[str, Any] | None = None
    ) -> None:
        self.traces = traces
        self.demo = demo or {}
        """What the demo said of its runs."""
        self.spans: list[Span] = [span for each in traces for span in each["spans"]]
        self._services = {
            (each["traceID"], name): process["serviceName"]
            for each in traces
            for name, process in each["processes"].items()
        }

    def tags(self, span: Span) -> Mapping[str, Any]:
        return {each["key"]: each["value"] for each in span["tags"]}

    def one(self, name: str) -> Span:
        (found,) = [each for each in self.spans if each["operationName"] == name]
        return found

    def links(self) -> Mapping[str, str]:
        """Return which span is linked to which."""
        names = {
            (each["traceID"], each["spanID"]): each["operationName"]
            for each in self.spans
        }
        return {
            span["operationName"]: names[reference["traceID"], reference["spanID"]]
            for span in self.spans
            for reference in span["references"]
            if reference["refType"] == "FOLLOWS_FROM"
        }

    def warnings(self) -> set[tuple[str, str]]:
        """Return what Jaeger warns of, but for what may be."""
        return {
            (span["operationName"], warning)
            for span in self.spans
            for warning in span.get("warnings") or ()
            # A step that is cancelled may end a moment after the one that it is part
            # of: Jaeger wonders about the clocks then, and changes nothing.
            if not OUTLIVES.search(warning)
        }

    def by_outcome(self) -> Mapping[str, list[Span]]:
        found: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            found[self.tags(span).get(semconv.OUTCOME, "")].append(span)
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything of these tests stands."""
    return tmp_path_factory.mktemp("jaeger")


@pytest.fixture(scope="module")
def jaeger(folder: Path) -> Iterator[servers.Jaeger]:
    """Give a Jaeger for all of them."""
    with servers.jaeger(folder) as jaeger:
        yield jaeger


def environment(jaeger: servers.Jaeger, state_dir: Path) -> dict[str, str]:
    """Return that of a program whose spans go to *jaeger*."""
    return {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.endpoint,
        # Jaeger takes none, and is asked for all the same.
        "OTEL_METRICS_EXPORTER": "",
        "AGENTTRACE_STATE_DIR": str(state_dir),
    }


@pytest.fixture(scope="module")
def told(jaeger: servers.Jaeger, folder: Path) -> Told:
    """Run the demo once, and return what Jaeger has of it."""
    before = servers.get(f"{jaeger.api}/services")["data"] or ()
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "agenttrace.cli", "demo", "--json"),
            *("--trace-url", jaeger.page),
        ],
        env=environment(jaeger, folder / "demo"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    names = set(servers.get(f"{jaeger.api}/services")["data"]) - set(before)
    traces = [trace for name in names for trace in jaeger.traces(name)]
    every = list({each["traceID"]: each for each in traces}.values())
    return Told(every, json.loads(ran.stdout))


@pytest.fixture(scope="module")
def linked(jaeger: servers.Jaeger, folder: Path) -> tuple[Told, Told]:
    """Return what Jaeger has of the program: in the middle of a run, and at its end."""
    service = "linked"
    with subprocess.Popen(
        [sys.executable, "-c", LINKED],
        env={
            **environment(jaeger, folder / "linked"),
            "OTEL_SERVICE_NAME": service,
            "AGENTTRACE_VISIBLE_AFTER": "0.5",
        },
        stdin=subprocess.PIPE,
        text=True,
    ) as program:

        def seen(name: str) -> Told | None:
            told = Told(jaeger.traces(service))
            return (
                told if name in {each["operationName"] for each in told.spans} else None
            )

        try:
            middle = servers.until("a marker", partial(seen, f"{MARKER}: goes on"))
            program.communicate("go on", timeout=300)
        finally:
            program.kill()
    assert program.returncode == 0
    return middle, servers.until("the end", partial(seen, "goes on"))


def test_the_demo_links_to_each_run_and_reads_it_back(
    told: Told, jaeger: servers.Jaeger
) -> None:
    """An endpoint that says yes is no proof; what its users are shown is one."""
    runs = told.demo["runs"]

    shown = {each["traceID"]: len(each["spans"]) for each in told.traces}
    assert len(runs) == 8
    for run in runs:
        assert run["url"] == jaeger.page.replace("{trace_id}", run["trace_id"])
        assert run["in_jaeger"] == run["started"] <= shown[run["trace_id"]]


def test_a_jaeger_is_found_beside_the_endpoint_by_what_it_has(
    told: Told, jaeger: servers.Jaeger
) -> None:
    """A port that answers is no backend of ours: it has to know the trace."""
    sent = Sent(f"{jaeger.endpoint}/v1/traces", 1, None)
    port = urlsplit(jaeger.api).port
    assert port
    (first, *_) = told.spans

    def look(trace_id: str) -> backend.Backend | None:
        span = Started(trace_id, first["spanID"], first["operationName"])
        act = Act(SCENARIOS[0], (span,))
        return backend.look(sent, [act], None, jaeger_port=port)

    found = look(first["traceID"])

    assert found == backend.Backend(jaeger.page, {first["traceID"]: 1})
    assert look("f" * 32) is None


def test_every_trace_is_whole(told: Told) -> None:
    """A run that is over has its root, and every step its parent."""
    ids = {span["spanID"] for span in told.spans}
    assert len(told.traces) >= 8
    for span in told.spans:
        for reference in span["references"]:
            if reference["refType"] == "CHILD_OF":
                assert reference["spanID"] in ids, span["operationName"]


def test_jaeger_has_nothing_to_warn_of(told: Told, linked: tuple[Told, Told]) -> None:
    """Two forms of one span, a span without time, a parent that is missing."""
    assert told.warnings() == linked[1].warnings() == set()


def test_of_a_run_that_goes_on_it_misses_the_parents_and_nothing_else(
    linked: tuple[Told, Told],
) -> None:
    """They are open, and come last; until then a marker says which those are."""
    middle, end = linked
    shown = {each["operationName"] for each in middle.spans}

    assert {"has ended", f"{MARKER}: goes on"} <= shown
    assert "goes on" not in shown
    for name, warning in middle.warnings():
        assert name in {"has ended", f"{MARKER}: goes on"}
        assert "invalid parent span IDs" in warning
    assert {"has ended", f"{MARKER}: goes on", "goes on"} <= {
        each["operationName"] for each in end.spans
    }


def test_what_follows_from_another_span_is_linked_to_it(
    linked: tuple[Told, Told],
) -> None:
    """A click away: a job's request, a run that went on, a verdict that was early."""
    _, end = linked
    late = f"{semconv.LATE_FINISH}: hangs"

    assert end.links() == {
        "job": "request",
        "second part": "first part",
        late: "hangs",
    }
    # A run of its own each: but what ends late is in the trace of what it is.
    for name, other in end.links().items():
        together = end.one(name)["traceID"] == end.one(other)["traceID"]
        assert together == (name == late)
    assert end.one("part of the job")["traceID"] == end.one("job")["traceID"]


def test_no_span_is_there_twice(told: Told) -> None:
    """Effectively once, also where a worker was killed and another one told of it."""
    ids = [(span["traceID"], span["spanID"]) for span in told.spans]

    assert len(ids) == len(set(ids))


def test_every_way_to_end_is_there_and_marked(told: Told) -> None:
    """What the demo makes happen is what the page shows."""
    by_outcome = told.by_outcome()

    assert by_outcome.keys() >= {"ok", "cancelled", "abandoned", "stuck", "lost"}
    for outcome, spans in by_outcome.items():
        for span in spans:
            is_red = told.tags(span).get("error") is True
            assert is_red == (outcome in {"error", "timed_out", "stuck", "lost"})


def test_where_a_step_hangs_is_an_event_on_it(told: Told) -> None:
    """From the red bar to the line of code is one click."""
    stuck = told.by_outcome()["stuck"]
    for span in stuck:
        events = [
            {each["key"]: each["value"] for each in log["fields"]}
            for log in span["logs"]
        ]
        (hang,) = [each for each in events if each.get("event") == semconv.HANG]
        assert hang[semconv.HANG_CAUSE]
        assert hang[semconv.HANG_IDLE] > 0
