"""The demo's runs as users see them in Jaeger: whole, closed, and with the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
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

Span = dict[str, Any]
OUTLIVES = re.compile(r"clock skew adjustment disabled; .* delta of -")


class Told:
    """Spans as Jaeger shows them, of all traces."""

    def __init__(
        self, traces: list[dict[str, Any]], demo: dict[str, Any], jaeger: servers.Jaeger
    ) -> None:
        self.traces = traces
        self.demo = demo
        """What the demo said of its runs."""
        self.jaeger = jaeger
        self.spans: list[Span] = [span for each in traces for span in each["spans"]]
        self._services = {
            (each["traceID"], name): process["serviceName"]
            for each in traces
            for name, process in each["processes"].items()
        }

    def tags(self, span: Span) -> Mapping[str, Any]:
        return {each["key"]: each["value"] for each in span["tags"]}

    def by_outcome(self) -> Mapping[str, list[Span]]:
        found: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            found[self.tags(span).get(semconv.OUTCOME, "")].append(span)
        return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Run the demo once, and give what Jaeger has of it."""
    folder = tmp_path_factory.mktemp("jaeger")
    with servers.jaeger(folder) as jaeger:
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.endpoint,
            # Jaeger takes none, and is asked for all the same.
            "OTEL_METRICS_EXPORTER": "",
            "AGENTTRACE_STATE_DIR": str(folder / "state"),
        }
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "agenttrace.cli", "demo", "--json"),
                *("--trace-url", jaeger.page),
            ],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        names = servers.get(f"{jaeger.api}/services")["data"]
        traces = [trace for name in names for trace in jaeger.traces(name)]
        every = list({each["traceID"]: each for each in traces}.values())
        yield Told(every, json.loads(ran.stdout), jaeger)


def test_the_demo_links_to_each_run_and_reads_it_back(told: Told) -> None:
    """An endpoint that says yes is no proof; what its users are shown is one."""
    runs = told.demo["runs"]

    shown = {each["traceID"]: len(each["spans"]) for each in told.traces}
    assert len(runs) == 8
    for run in runs:
        assert run["url"] == told.jaeger.page.replace("{trace_id}", run["trace_id"])
        assert run["in_jaeger"] == run["started"] <= shown[run["trace_id"]]


def test_a_jaeger_is_found_beside_the_endpoint_by_what_it_has(told: Told) -> None:
    """A port that answers is no backend of ours: it has to know the trace."""
    sent = Sent(f"{told.jaeger.endpoint}/v1/traces", 1, None)
    port = urlsplit(told.jaeger.api).port
    assert port
    (first, *_) = told.spans

    def look(trace_id: str) -> backend.Backend | None:
        span = Started(trace_id, first["spanID"], first["operationName"])
        act = Act(SCENARIOS[0], (span,))
        return backend.look(sent, [act], None, jaeger_port=port)

    found = look(first["traceID"])

    assert found == backend.Backend(told.jaeger.page, {first["traceID"]: 1})
    assert look("f" * 32) is None


def test_every_trace_is_whole(told: Told) -> None:
    """A run that is over has its root, and every step its parent."""
    ids = {span["spanID"] for span in told.spans}
    assert len(told.traces) >= 8
    for span in told.spans:
        for reference in span["references"]:
            if reference["refType"] == "CHILD_OF":
                assert reference["spanID"] in ids, span["operationName"]


def test_jaeger_has_nothing_to_warn_of(told: Told) -> None:
    """Two forms of one span, a span without time, a parent that is missing."""
    warnings = {
        (span["operationName"], warning)
        for span in told.spans
        for warning in span.get("warnings") or ()
        # A step that is cancelled may end a moment after the one that it is part of:
        # Jaeger wonders about the clocks then, and changes nothing.
        if not OUTLIVES.search(warning)
    }

    assert warnings == set()


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
