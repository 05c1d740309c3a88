"""What agent runs weigh: spans, bytes, series, and the work that a Collector has.

    python -m tests.e2e.scale [--seconds 5] [--workers 2] [--rate 1000]

Workers trace runs of eight spans with the attributes that model calls have, at a given
rate, into a real Collector, which sends them to a receiver that counts.  What comes out
is printed as the tables of `docs/explanation/scale.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil
import pytest

import agenttrace
from agenttrace import semconv
from agenttrace.testing import fresh_runtime
from tests.benchmarks.servers import receiver
from tests.delivery.collector import Collector
from tests.e2e import servers
from tests.e2e.between import Between

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FLEET: Final = Path(__file__).parents[2] / "examples/fleet"
SPANS: Final = 8
"""Of a run."""
_CHAT: Final = {
    semconv.GEN_AI_PROVIDER_NAME: "openai",
    semconv.GEN_AI_REQUEST_MODEL: "gpt-5-mini",
    semconv.GEN_AI_RESPONSE_MODEL: "gpt-5-mini-2026-08-07",
    semconv.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
    "server.address": "api.openai.com",
    "server.port": 443,
}


_PLAIN: Final = "compression=none"  # the receiver knows no other
WAYS: Final[dict[str, dict[str, Any]]] = {
    "a queue in memory": {"settings": [f"exporters.otlp_http.{_PLAIN}"]},
    "a queue on disk": {
        "settings": [
            f"exporters.otlp_http.{_PLAIN}",
            "exporters.otlp_http.sending_queue.storage=file_storage",
        ]
    },
    "the gateway of `examples/fleet`": {
        "settings": [f"exporters.otlp_http/traces.{_PLAIN}"],
        "config": FLEET / "gateway.yaml",
        "DECISION_WAIT": "1s",
    },
}


class Way(NamedTuple):
    """A configuration of the Collector, and what carrying spans with it took.

    Args:
        name: The row's.
        spans: How many arrived, of how many that were sent.
        sent: How many were.
        seconds: From the first to the last.
        worker: Seconds of CPU of all workers.
        collector: Seconds of CPU of the Collector.
        memory: Bytes that it had at the end.
    """

    name: str
    spans: int
    sent: int
    seconds: float
    worker: float
    collector: float
    memory: int

    def __str__(self) -> str:
        """Return the row of it."""
        return " | ".join(
            (
                f"| {self.name}",
                f"{self.sent / self.seconds:.0f}",
                f"{self.spans / self.sent:.0%}",
                f"{self.collector / self.worker:.2f}",
                f"{1e6 * self.collector / self.sent:.0f} us",
                f"{self.memory / 2**20:.0f} MiB |",
            )
        )


def run(number: int) -> None:
    """Trace an agent that asks a model four times, and calls three tools."""
    agent = {
        semconv.GEN_AI_AGENT_NAME: f"agent {number % 3}",
        semconv.GEN_AI_CONVERSATION_ID: f"conv_{random.getrandbits(128):x}",
    }
    with agenttrace.span("invoke_agent", operation="invoke_agent", attributes=agent):
        for turn in range(4):
            said = {
                **_CHAT,
                semconv.GEN_AI_RESPONSE_ID: f"chatcmpl-{random.getrandbits(128):x}",
                semconv.GEN_AI_USAGE_INPUT_TOKENS: random.randrange(10_000),  # noqa: S311 - nothing secret
                semconv.GEN_AI_USAGE_OUTPUT_TOKENS: random.randrange(1_000),  # noqa: S311 - the same
            }
            with agenttrace.span("chat", operation="chat", attributes=said):
                pass
            if turn < 3:
                tool = {semconv.GEN_AI_TOOL_NAME: f"tool {turn}"}
                with agenttrace.span("tool", operation="execute_tool", attributes=tool):
                    pass


def work(seconds: float, rate: float) -> None:
    """Be a worker: trace *rate* spans a second, and print what that took."""
    runtime = agenttrace.configure(service_name="scale")
    runs, used = 0, time.process_time()
    began = due = time.monotonic()
    while time.monotonic() < began + seconds:
        run(runs)
        runs += 1
        due += SPANS / rate
        time.sleep(max(due - time.monotonic(), 0))
    took = time.monotonic() - began
    assert runtime.flush(servers.PATIENCE)
    cpu = time.process_time() - used
    print(json.dumps({"spans": runs * SPANS, "seconds": took, "cpu": cpu}))


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return *environment* without what the machine has set for us and the SDK."""
    ours = ("OTEL_", "AGENTTRACE_")
    return {name: it for name, it in environment.items() if not name.startswith(ours)}


def working(
    arguments: argparse.Namespace, state: Path, **variables: str
) -> list[dict[str, Any]]:
    """Run the workers to their end, and return what they print.

    Args:
        arguments: What each is told.
        state: Their state directory.
        variables: Of their environment; without more they send no metrics.
    """
    command = (sys.executable, "-m", __spec__.name, "--work")
    told = (f"--seconds={arguments.seconds}", f"--rate={arguments.rate}")
    env = {
        **_without_settings(os.environ),
        "AGENTTRACE_STATE_DIR": str(state),
        "OTEL_METRICS_EXPORTER": "none",
        **variables,
    }
    workers = [
        subprocess.Popen([*command, *told], env=env, stdout=subprocess.PIPE)
        for _ in range(arguments.workers)
    ]
    printed = [worker.communicate()[0] for worker in workers]
    assert not any(worker.returncode for worker in workers)
    return [json.loads(each) for each in printed]


def settled(
    look: Callable[[], tuple[int, float]], most: int, quiet: float = 30
) -> tuple[int, float]:
    """Return what *look* told when its count last grew, and with it what that took.

    It has become *most* by then, or has stood still for *quiet* seconds.
    """
    last, since = look(), time.monotonic()
    while last[0] < most and time.monotonic() < since + quiet:
        time.sleep(0.5)
        if (now := look())[0] != last[0]:
            last, since = now, time.monotonic()
    return last


def carried(
    name: str,
    arguments: argparse.Namespace,
    folder: Path,
    settings: Sequence[str],
    config: Path | None = None,
    **variables: str,
) -> Way:
    """Have the workers send to a Collector, and say what that took."""
    with receiver() as counts:
        between = Between(
            folder,
            *settings,
            config=config,
            TRACES=counts.url,
            STORAGE=str(folder / "queue"),
            **variables,
        )
        with between.running(signal.SIGTERM) as process:
            collector = psutil.Process(process.pid)
            before = sum(collector.cpu_times()[:2])
            told = working(
                arguments, folder, OTEL_EXPORTER_OTLP_ENDPOINT=between.endpoint
            )
            sent = sum(each["spans"] for each in told)
            arrived, cpu = settled(
                lambda: (counts.spans(), sum(collector.cpu_times()[:2])), sent
            )
            memory = collector.memory_info().rss
        return Way(
            name,
            arrived,
            sent,
            max(each["seconds"] for each in told),
            sum(each["cpu"] for each in told),
            cpu - before,
            memory,
        )


def weighed() -> list[tuple[str, float]]:
    """Return what a span comes to in bytes, by what is done to it."""
    with Collector() as collector, pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - _without_settings(os.environ).keys():
            patch.delenv(name)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        patch.setenv("OTEL_METRICS_EXPORTER", "none")
        with (
            tempfile.TemporaryDirectory() as state,
            fresh_runtime(
                span_exporter=None, durable=True, state_dir=state, service_name="scale"
            ) as fresh,
        ):
            for number in range(250):
                run(number)
            assert fresh.runtime.flush(servers.PATIENCE)
            status = fresh.runtime.status()
        bodies = [each.body for each in collector.requests if each.path == "/v1/traces"]
    spans = 250 * SPANS
    return [
        ("on the wire, as it is", sum(map(len, bodies)) / spans),
        (
            "on the wire, with gzip",
            sum(len(zlib.compress(each)) for each in bodies) / spans,
        ),
        (
            "in the journal, while it is open",
            status.journal_bytes // status.journal_slots,
        ),
    ]


def series(arguments: argparse.Namespace, folder: Path) -> float:
    """Return how many series of ours a process has in Prometheus."""
    with servers.prometheus(folder) as prometheus:
        working(
            arguments,
            folder,
            OTEL_METRIC_EXPORT_INTERVAL="500",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=prometheus.otlp,
        )
        (count,) = prometheus.query('count({__name__=~"agenttrace_.*|gen_ai_.*"})')
    return float(count["value"][1]) / float(arguments.workers)


def main(said: Sequence[str] | None = None) -> int:
    """Measure what *said* asks for, and print it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.scale")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rate", type=float, default=1000, help="spans/s of a worker")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(said)
    if arguments.work:
        work(arguments.seconds, arguments.rate)
        return 0
    with tempfile.TemporaryDirectory(prefix="agenttrace-scale-") as made:
        folder = Path(made)
        for name, size in weighed():
            print(f"| {name} | {size:.0f} B |")
        for number, (name, options) in enumerate(WAYS.items()):
            print(carried(name, arguments, folder / str(number), **options))
        print(f"| series of a process | {series(arguments, folder):.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
