"""Draws the dashboards for the documentation.

    python -m tests.dashboards docs/pictures

There is no Grafana here.  What is drawn is what the panels' own queries, read from the
files that are shipped, return from a real Prometheus (see `tests.e2e.backends`) that a
small fleet of real processes has sent its metrics to: one of its steps hangs, an event
loop is blocked, and a process is killed.  Panels that ask Tempo or Jaeger are left out.
It takes two minutes, and needs the extra `docs`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttrace import dashboards
from agenttrace.testing.model_server import ModelServer, Reply, Request, text
from tests.dashboards.drawing import Answer, draw
from tests.e2e import servers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

SHOWN = 100
"""Seconds that are drawn."""
STEP = 1
RATE = "15s"
"""What Grafana would take for `$__rate_interval` is longer than the picture."""
PICTURES = {
    "grafana/agenttrace-hangs.json": "dashboard-hangs.png",
    "grafana/agenttrace-overview.json": "dashboard-overview.png",
}
NOTE = (
    f"Drawn from the panels' own queries, over {SHOWN} seconds of a small fleet, by "
    "python -m tests.dashboards. Not a screenshot: Grafana looks different."
)
PLAY = (
    (25, "support", "hang"),
    (40, "research", "block"),
    (50, "support", "give up"),
    (60, "indexer", "hang"),  # open when it is killed
    (62, "indexer", "kill"),
    (72, "research", "block"),
    (82, "support", "hang"),
    (SHOWN, "", ""),
)
"""What happens when, in seconds, to whom."""


class Process:
    """One process of the fleet."""

    def __init__(self, service: str, arguments: Sequence[str], **env: str) -> None:
        program = (sys.executable, "-m", "tests.dashboards.fleet")
        self._start = (*program, service, *arguments)
        self._env = env
        self._begin()

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            self._start, env=self._env, stdin=subprocess.PIPE, text=True
        )

    def tell(self, what: str) -> None:
        """Have it do something; `kill` has another one take its place."""
        if what == "kill":
            self._process.kill()
            self.end()
            self._begin()
            return
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.communicate(timeout=servers.PATIENCE)


@contextmanager
def fed(folder: Path) -> Generator[servers.Prometheus]:
    """Yield a Prometheus as it is when the play is over."""
    with (
        ExitStack() as stack,
        servers.prometheus(folder) as prometheus,
        ModelServer(answer) as model,
    ):
        environment = {
            **os.environ,
            "AGENTTRACE_STATE_DIR": str(folder / "state"),
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": prometheus.otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        fleet = {
            service: Process(service, [model.base_url], **environment)
            for service in ("support", "research", "indexer")
        }
        for process in fleet.values():
            stack.callback(process.end)
        heard_of = "count(agenttrace_process_heartbeat_seconds) >= 3"
        servers.until("all to be heard of", lambda: prometheus.query(heard_of))
        began = time.monotonic()
        for seconds, service, what in PLAY:
            time.sleep(max(0, began + seconds - time.monotonic()))
            if service:
                fleet[service].tell(what)
        yield prometheus


def answer(request: Request) -> Reply | None:
    """Answer like a model: the larger one slowly."""
    if not request.wants_answer:
        return None
    return text("so it goes " * 6, gap=0.02 if "mini" in request.model else 0.05)


def ask(
    prometheus: servers.Prometheus, panel: dict[str, Any], end: float
) -> list[Answer]:
    """Return what the queries of *panel* return, over the time that is shown."""
    found: list[Answer] = []
    for target in panel["targets"]:
        expression: str = target["expr"]
        for name, value in (
            ("$job", ".*"),
            ("$__rate_interval", RATE),
            ("$__range", f"{SHOWN}s"),
        ):
            expression = expression.replace(name, value)
        query: dict[str, str] = {"query": expression}
        if target["instant"]:
            told = servers.get(f"{prometheus.api}/query", **query, time=f"{end}")
        else:
            query.update(start=f"{end - SHOWN}", end=f"{end}", step=f"{STEP}")
            told = servers.get(f"{prometheus.api}/query_range", **query)
        for series in told["data"]["result"]:
            name = target.get("legendFormat", "")
            for label, value in series["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            values = series.get("values") or [series["value"]]
            found.append(
                Answer(
                    # A label that a series does not have is nothing in Grafana, too.
                    " ".join(each for each in name.split() if "{{" not in each),
                    [at - (end - SHOWN) for at, _ in values],
                    [float(value) for _, value in values],
                )
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all pictures and put them into the directory that *arguments* name."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.dashboards", description=__doc__
    )
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args(arguments).directory
    with tempfile.TemporaryDirectory() as home, fed(Path(home)) as prometheus:
        end = time.time()
        for name, picture in PICTURES.items():
            board = json.loads(dashboards.content_of(name))
            panels = [
                (panel, ask(prometheus, panel, end))
                for panel in board["panels"]
                if all("expr" in target for target in panel["targets"])
            ]
            draw(directory / picture, board["title"], panels, SHOWN, NOTE)


if __name__ == "__main__":
    main()
