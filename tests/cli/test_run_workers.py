"""What a program that was started by `agenttrace run` starts is traced as well."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_run import RUN, ran, written
from tests.crash.given import collector_of_programs
from tests.crash.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.delivery.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

SYNC = """
    import os
    from opentelemetry import trace

    def app(environ, start_response):
        with trace.get_tracer("app").start_as_current_span(environ["PATH_INFO"]):
            start_response("200 OK", [])
            return [str(os.getpid()).encode()]
"""
ASYNC = """
    import os
    from opentelemetry import trace

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        with trace.get_tracer("app").start_as_current_span(scope["path"]):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            body = str(os.getpid()).encode()
            await send({"type": "http.response.body", "body": body})
"""
GUNICORN = ("gunicorn", "-b", "fd://{fd}", "-w", "2")
UVICORN = ("uvicorn", "--fd", "{fd}", "--lifespan", "off")
SERVERS = {
    "gunicorn, which forks": (SYNC, GUNICORN),
    "gunicorn with uvicorn's workers": (
        ASYNC,
        (*GUNICORN, "-k", "uvicorn.workers.UvicornWorker"),
    ),
    "uvicorn, which spawns": (ASYNC, (*UVICORN, "--workers", "2")),
    "uvicorn's reloader": (ASYNC, (*UVICORN, "--reload")),
}
CHILDREN = """
    import multiprocessing, os, subprocess, sys
    from opentelemetry import trace

    def work(name):
        with trace.get_tracer("app").start_as_current_span(name):
            print(name, os.getpid(), flush=True)

    if __name__ == "__main__":
        work("parent")
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            process = context.Process(target=work, args=(method,))
            process.start()
            process.join()
            assert process.exitcode == 0
        inner = "import app; app.work('subprocess')"
        subprocess.run([sys.executable, "-c", inner], check=True)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_of_programs() as collector:
        yield collector


@pytest.mark.parametrize("name", SERVERS)
def test_the_workers_of_a_server_are_traced(
    tmp_path: Path, collector: Collector, name: str
) -> None:
    """They are where the work is done, and nobody calls `configure()` in them."""
    application, server = SERVERS[name]
    if importlib.util.find_spec(server[0]) is None:
        pytest.skip(f"{server[0]} is not installed")
    arguments = ("agenttrace.cli", "run", "-m", *server, "served:app")
    serving = Server(tmp_path, application, *arguments)
    try:
        worker = serving.get("/asked")
        [span] = collector.wait_for(1)
    finally:
        code, log = serving.stop()

    assert code == 0, log
    assert "Traceback" not in log
    assert "agenttrace" not in log
    assert span.name == "/asked"
    assert span.attributes["agenttrace.outcome"] == "ok"
    assert span.resource["process.pid"] == worker
    assert span.resource["service.name"] == f"unknown_service:{server[0]}"
    assert len(collector.spans()) == 1


def test_children_of_every_kind_are_traced(
    tmp_path: Path, collector: Collector
) -> None:
    """Forked, spawned, or started as a program of their own."""
    app = written(tmp_path, CHILDREN)

    done = ran(tmp_path, *RUN, app)

    assert (done.returncode, done.stderr) == (0, "")
    spans = collector.spans()
    told = {span.name: span.resource["process.pid"] for span in spans}
    began = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in began] == ["parent", "fork", "spawn", "subprocess"]
    assert told == {name: int(pid) for name, pid in began}
    assert len(spans) == len(told)
    assert {span.attributes["agenttrace.outcome"] for span in spans} == {"ok"}
    assert {span.resource["service.name"] for span in spans} == {"unknown_service:app"}
