"""What a real Prometheus has of our metrics, pushed and scraped, and what it does."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

import pytest

from agenttrace import dashboards
from agenttrace.semconv.metrics import MEASURES, METRICS
from tests.delivery.collector import Collector, Reply
from tests.e2e import servers
from tests.e2e.backends import PROMETHEUS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

EVERYTHING = """
import asyncio, gc, sys, time
import openai
import agenttrace
from agenttrace.testing.model_server import ModelServer

runtime = agenttrace.configure(
    service_name="everything", loop_blocked_after=0.3, flush_timeout=5
)
agenttrace.instrument("openai")


@agenttrace.agent
def stream():
    yield 1
    yield 2


def asked(**options):
    messages = [{"role": "user", "content": "hi"}]
    answer = client.chat.completions.create(messages=messages, **options)
    return list(answer) if "stream" in options else answer


def told():
    print("ready", flush=True)
    sys.stdin.readline()


async def blocks():
    with agenttrace.span("invoke_agent blocker", operation="invoke_agent"):
        await asyncio.sleep(1)
        time.sleep(3)


server = ModelServer().__enter__()
client = openai.OpenAI(base_url=server.base_url, api_key="none")
with agenttrace.span("invoke_agent triage", operation="invoke_agent"):
    asked(model="whole")
    asked(model="parts", stream=True)
for _ in stream():
    pass
runtime.flush(2)
told()  # once: first values are there, from which what follows is an increase
left = stream()
next(left)
del left
gc.collect()
asyncio.run(blocks())
agent = agenttrace.span("invoke_agent waits", operation="invoke_agent")
agent.__enter__()
tool = {"operation": "execute_tool", "heartbeat_timeout": 1}
with agenttrace.span("execute_tool hangs", **tool):
    told()  # twice: it hangs
agent.__exit__(None, None, None)
runtime.flush(2)
told()  # for good
"""


class Program:
    """A process that does everything there is a metric of, a step at a time."""

    def __init__(self, folder: Path, **variables: str) -> None:
        env = {
            **os.environ,
            "AGENTTRACE_STATE_DIR": str(folder / "state"),
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            **variables,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(EVERYTHING)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Wait until it has come to the end of a step."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go_on(self) -> None:
        """Let it take the next one."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_what_is_pushed_and_what_is_scraped_have_the_same_names(tmp_path: Path) -> None:
    """One set of dashboards and rules serves both."""
    assert importlib.util.find_spec("opentelemetry.exporter.prometheus")
    port = servers.free_port()
    with (
        servers.prometheus(tmp_path, scrape={"scraped": port}) as prometheus,
        Program(
            tmp_path,
            OTEL_METRICS_EXPORTER="otlp,prometheus",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=prometheus.otlp,
            OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
        ) as program,
    ):
        program.wait()
        program.go_on()
        program.wait()
        for job in ("everything", "scraped"):
            stalls = f'agenttrace_stalls_total{{job="{job}"}}'
            servers.until(f"a stall of {job}", partial(prometheus.query, stalls))
        pushed = prometheus.names('{job="everything"}')
        scraped = prometheus.names('{job="scraped"}')
        hung = prometheus.query('agenttrace_runs_total{agenttrace_hung="false"}')
        exemplars = servers.get(
            f"{prometheus.api}/query_exemplars",
            query="agenttrace_stall_duration_seconds_bucket",
            start="0",
            end="4102444800",
        )["data"]

    ours = re.compile("agenttrace_|gen_ai_")
    # Of its own the scrape has one for each instrument: when it was made.
    assert {name for name in pushed if ours.match(name)} == {
        name for name in scraped if ours.match(name) and not name.endswith("_created")
    }
    bases = {
        name.replace(".", "_") for name in (*MEASURES, *(each[0] for each in METRICS))
    }
    for base in bases:
        assert any(name.startswith(base) for name in pushed), base
    assert {each["metric"]["job"] for each in hung} == {"everything", "scraped"}
    assert exemplars
    assert all(each["exemplars"][0]["labels"]["trace_id"] for each in exemplars)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Prometheus]:
    """Give a Prometheus that was fed by the demo, and by a program that hangs."""
    folder = tmp_path_factory.mktemp("fed")
    with servers.prometheus(folder) as prometheus:
        variables = {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": prometheus.otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with Program(folder, **variables) as program:
            program.wait()
            program.go_on()
            program.wait()
            ran = subprocess.run(
                [sys.executable, "-m", "agenttrace.cli", "demo"],
                env={
                    **os.environ,
                    **variables,
                    "AGENTTRACE_STATE_DIR": str(folder / "demo"),
                },
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            program.go_on()
            program.wait()
            yield prometheus


def queries() -> Iterator[Any]:
    """Return every query of every panel that a Prometheus answers."""
    for name in dashboards.FILES:
        if not name.endswith(".json"):
            continue
        for panel in json.loads(dashboards.content_of(name))["panels"]:
            for target in panel.get("targets", ()):
                if "expr" in target:
                    yield pytest.param(target["expr"], id=f"{name}: {panel['title']}")


@pytest.mark.parametrize("expression", list(queries()))
def test_every_panel_has_something_to_show(
    fed: servers.Prometheus, expression: str
) -> None:
    """An empty panel looks like a system that is well."""
    asked = (
        expression.replace("$job", ".*")
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h")
    )

    assert fed.query(asked), asked


def try_rules(path: Path) -> str:
    """Return what is wrong by the unit tests at *path*; nothing where they pass."""
    ran = subprocess.run(
        [PROMETHEUS.program("promtool"), "test", "rules", path],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_the_rules_are_right() -> None:
    """As whoever has changed them would try them."""
    with resources.as_file(resources.files("agenttrace.dashboards")) as folder:
        assert try_rules(folder / "prometheus/agenttrace.rules.test.yml") == ""


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ("_x119 2", [2]),
        ("_x90 2x29", [2]),
        ("_x90 2x9 _x20", [2]),
        ("2x120", [0]),
        ("2x50 _x15 2x55", [0]),  # a gap where the time shown begins
        ("_x120", []),
    ],
)
def test_what_was_recovered_is_shown_by_its_first_value(
    tmp_path: Path, values: str, shown: list[int]
) -> None:
    """A process recovers as it starts: no increase sees what it says first."""
    (panel,) = (
        each for each in queries() if str(each.id).endswith(": Lost with a process")
    )
    asked = panel.values[0].replace("$job", ".*").replace("$__range", "1h")
    name = 'agenttrace_recovery_recovered_total{job="a", instance="next"}'
    wanted = [{"labels": "{}", "value": each} for each in shown]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values}],
        "promql_expr_test": [{"expr": asked, "eval_time": "2h", "exp_samples": wanted}],
    }
    path = tmp_path / "panel.test.yml"
    path.write_text(json.dumps({"rule_files": [], "tests": [case]}))

    assert try_rules(path) == ""


class Alerts:
    """What an Alertmanager has told a webhook."""

    def __init__(self) -> None:
        self.url = ""
        self.heard: deque[tuple[str, str]] = deque()

    def wait_for(self, *names: str) -> None:
        """Wait until each of these has fired."""
        for name in names:
            servers.until(f"the alert {name}", partial(self._fires, name))

    def _fires(self, name: str) -> bool:
        return (name, "firing") in tuple(self.heard)


@contextmanager
def webhook() -> Generator[Alerts]:
    """Listen for what an Alertmanager has to tell."""
    alerts = Alerts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            for each in json.loads(self.rfile.read(length))["alerts"]:
                alerts.heard.append((each["labels"]["alertname"], each["status"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    alerts.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield alerts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_alert_fires_when_it_should(tmp_path: Path) -> None:
    """A hang, a leak, a blocked loop, dropped spans and a kill, all the way."""
    rules = tmp_path / "agenttrace.rules.yml"
    said = dashboards.content_of("prometheus/agenttrace.rules.yml").decode()
    # Three minutes of silence are a death: here ten seconds.
    assert said.count("> 180") == 1
    rules.write_text(said.replace("> 180", "> 10"))
    with (
        webhook() as alerts,
        servers.alertmanager(tmp_path, alerts.url) as port,
        servers.prometheus(tmp_path, rules=rules, alertmanager=port) as prometheus,
        Collector(usual=Reply(400)) as refuses,
        Program(
            tmp_path,
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=prometheus.otlp,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=refuses.endpoint,
        ) as program,
    ):
        program.wait()
        servers.until(
            "first values",
            lambda: prometheus.query("agenttrace_delivery_dropped_total"),
        )
        assert not alerts.heard
        program.go_on()
        program.wait()
        alerts.wait_for(
            "AgenttraceStepStuck",
            "AgenttraceSpansLeak",
            "AgenttraceLoopBlocked",
            "AgenttraceTelemetryDropped",
        )
        assert ("AgenttraceProcessDied", "firing") not in alerts.heard
        program.kill()
        alerts.wait_for("AgenttraceProcessDied")

    assert len({name for name, _ in alerts.heard}) == 5
