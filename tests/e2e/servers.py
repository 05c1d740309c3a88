"""Starts the real backends on free ports of loopback, and asks them what they have.

Each is a context manager that yields what speaks to it, and is killed at its end.  How
they come to be there is the business of `backends`: one that is missing is a failure.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.backends import (
    ALERTMANAGER,
    COLLECTOR,
    JAEGER,
    PHOENIX,
    PROMETHEUS,
    plain_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

PATIENCE = 120.0
"""Seconds that anything real may take on a machine that is busy."""
_BEGINNING = 300.0
"""Seconds that a server may take to begin; one that ends instead is told at once."""

_JAEGER = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {metrics: {level: none}, logs: {level: warn}}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 100000}}}}
  jaeger_query:
    storage: {traces: memory}
    http: {endpoint: "127.0.0.1:QUERY"}
    grpc: {endpoint: "127.0.0.1:GRPC"}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:OTLP"}}}}
exporters: {jaeger_storage_exporter: {trace_storage: memory}}
"""

# Its grpc would listen on all interfaces, and no variable says otherwise.
_PHOENIX = """
import sys
from phoenix.server import app, main
GrpcServer = app.GrpcServer
app.GrpcServer = lambda *a, **k: GrpcServer(*a, **{**k, "disabled": True})
sys.exit(main.main())
"""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def get(url: str, **query: str | Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    """Return what *url* answers, as JSON where it is."""
    asked = urllib.parse.urlencode(query, doseq=True)
    with urllib.request.urlopen(f"{url}?{asked}", timeout=PATIENCE) as answer:  # noqa: S310 - of our own servers
        body = answer.read()
    return json.loads(body) if body[:1] in b"[{" else body.decode()


def until(what: str, look: Callable[[], Any], patience: float = PATIENCE) -> Any:  # noqa: ANN401 - whatever it returns
    """Return what *look* returns, once that is true.

    Raises:
        TimeoutError: It is not; the message says what was waited for.
    """
    give_up_at = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > give_up_at:
            message = f"waited for {what}"
            raise TimeoutError(message)
        time.sleep(0.1)


@dataclass(frozen=True)
class Jaeger:
    """A Jaeger that keeps traces in memory.

    Args:
        endpoint: What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
        api: The URL of its query API.
    """

    endpoint: str
    api: str

    @property
    def page(self) -> str:
        """Address of a trace, with `{trace_id}` in it."""
        return f"{self.api.removesuffix('/api')}/trace/{{trace_id}}"

    def traces(self, service: str, **query: str) -> list[dict[str, Any]]:
        """Return the traces of *service*, by Jaeger's own names."""
        found = get(f"{self.api}/traces", service=service, limit="1000", **query)
        traces: list[dict[str, Any]] = found["data"] or []
        return traces


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that takes metrics by OTLP, too.

    Args:
        otlp: What `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` is set to.
        api: The URL of its API.
    """

    otlp: str
    api: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that *expression* has now.

        Raises:
            urllib.error.HTTPError: It is no expression.
        """
        found = get(f"{self.api}/query", query=expression)
        series: list[dict[str, Any]] = found["data"]["result"]
        return series

    def names(self, matcher: str) -> set[str]:
        """Return the names of the series that *matcher* selects."""
        found = get(f"{self.api}/label/__name__/values", **{"match[]": matcher})
        return set(found["data"])


@dataclass(frozen=True)
class Phoenix:
    """A Phoenix with a database of its own.

    Args:
        base: What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to, and the URL of its page.
    """

    base: str

    def spans(self) -> list[dict[str, Any]]:
        """Return all spans, by the names of its REST API."""
        found = get(f"{self.base}/v1/projects/default/spans", limit="1000")
        spans: list[dict[str, Any]] = found["data"]
        return spans

    def ask(self, query: str) -> dict[str, Any]:
        """Return the data that its page is told for the GraphQL *query*."""
        request = urllib.request.Request(  # noqa: S310 - of our own server
            f"{self.base}/graphql",
            json.dumps({"query": query}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - likewise
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data


@contextmanager
def jaeger(folder: Path) -> Generator[Jaeger]:
    """Start a Jaeger with its files in *folder*."""
    ports = {name: free_port() for name in ("QUERY", "GRPC", "OTLP")}
    config = _JAEGER
    for name, port in ports.items():
        config = config.replace(name, str(port))
    (folder / "jaeger.yaml").write_text(config)
    api = f"http://127.0.0.1:{ports['QUERY']}/api"
    command = (JAEGER.program("jaeger"), "--config", folder / "jaeger.yaml")
    with _running(command, folder, f"{api}/services"):
        yield Jaeger(f"http://127.0.0.1:{ports['OTLP']}", api)


@contextmanager
def prometheus(
    folder: Path,
    *,
    scrape: Mapping[str, int] | None = None,
    rules: Path | None = None,
    alertmanager: int | None = None,
) -> Generator[Prometheus]:
    """Start a Prometheus with its files in *folder*.

    Args:
        folder: Where its files are.
        scrape: Ports to scrape, by job.
        rules: The file of its rules.
        alertmanager: The port of the Alertmanager that hears of alerts.
    """
    targets = {"targets": [f"127.0.0.1:{alertmanager}"]}
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "otlp": {
            "promote_resource_attributes": ["service.name", "service.instance.id"]
        },
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in (scrape or {}).items()
        ],
        "rule_files": [str(rules)] if rules else [],
        "alerting": {"alertmanagers": [{"static_configs": [targets]}]}
        if alertmanager
        else {},
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = (
        PROMETHEUS.program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    )
    with _running(command, folder, f"{base}/-/ready"):
        yield Prometheus(f"{base}/api/v1/otlp/v1/metrics", f"{base}/api/v1")


@contextmanager
def phoenix(folder: Path) -> Generator[Phoenix]:
    """Start a Phoenix with its files in *folder*."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    # Of its environment, which what leads there is no part of.
    python = PHOENIX.program("phoenix").resolve().with_name("python")
    plain = plain_environment()
    env = {
        # What the machine has set for a Phoenix of its own is not for this one.
        **{name: plain[name] for name in plain if not name.startswith("PHOENIX_")},
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_ENABLE_MCP_SERVER": "false",
    }
    command = (python, "-c", _PHOENIX, "serve")
    with _running(command, folder, f"{base}/healthz", env):
        yield Phoenix(base)


@contextmanager
def otelcol(
    folder: Path,
    config: Path,
    *settings: str,
    ends: signal.Signals = signal.SIGKILL,
    **variables: str,
) -> Generator[subprocess.Popen[bytes]]:
    """Run a Collector until the block ends, and yield its process.

    Args:
        folder: Where it is started, and where its log is.
        config: Its configuration, with the extension `health_check`.
        settings: What is set otherwise than there, as `--set` takes it.
        ends: The signal that ends it: at SIGTERM it sends what it has in memory.
        variables: Of its environment.
    """
    health = f"127.0.0.1:{free_port()}"
    set_here = (
        f"extensions.health_check.endpoint={health}",
        "service.telemetry.logs.level=warn",
        "service.telemetry.metrics.level=none",
        *settings,
    )
    command: list[str | Path] = [COLLECTOR.program("otelcol"), f"--config={config}"]
    command += [f"--set={each}" for each in set_here]
    env = {**os.environ, **variables}
    with _running(command, folder, f"http://{health}/", env, ends) as it:
        yield it


@contextmanager
def alertmanager(folder: Path, webhook: str) -> Generator[int]:
    """Start an Alertmanager that calls *webhook*, and yield its port."""
    config = {
        "route": {
            "receiver": "test",
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "1s",
        },
        "receivers": [{"name": "test", "webhook_configs": [{"url": webhook}]}],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    # The packaged one wants its page, which it never shows here, in this place.
    _link(Path("/usr/share/prometheus/alertmanager"))
    port = free_port()
    command = (
        ALERTMANAGER.program("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    with _running(command, folder, f"http://127.0.0.1:{port}/-/ready"):
        yield port


def _link(place: Path) -> None:
    """Have the page of the packaged Alertmanager at *place*, unless there is one.

    Raises:
        RuntimeError: That is not permitted; the message says what is to be done.
    """
    page = ALERTMANAGER.folder / "usr/share/prometheus/alertmanager"
    if place.exists():
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # one that leads to a cache that is gone
        place.symlink_to(page)
    except OSError as error:
        message = f"as root, once:  ln -sfn {page} {place}"
        raise RuntimeError(message) from error


@contextmanager
def _running(
    command: Sequence[str | Path],
    folder: Path,
    ready: str,
    env: Mapping[str, str] | None = None,
    ends: signal.Signals = signal.SIGKILL,
) -> Generator[subprocess.Popen[bytes]]:
    """Run *command* until the block ends, from when *ready* answers."""
    log = folder / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=env
        )

    def answers() -> bool:
        if process.poll() is not None:
            message = f"{command[0]} has ended:\n{log.read_text()[-4000:]}"
            raise RuntimeError(message)
        try:
            get(ready)
        except (urllib.error.URLError, OSError):
            return False
        return True

    try:
        until(f"{command[0]} to be ready", answers, _BEGINNING)
        yield process
        process.send_signal(ends)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
