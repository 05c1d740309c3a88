"""Real servers with real workers: gunicorn, which forks them, and uvicorn."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest

from tests.crash.given import collector_of_programs, endings, recover
from tests.crash.serving import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.delivery.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

OK = ("ok", "return")
BY_RECOVERY = ("lost", "recovery")
GUNICORN = """
    import os, signal
    import agenttrace

    agenttrace.configure(service_name="server")

    def app(environ, start_response):
        name = environ["PATH_INFO"]
        with agenttrace.span(name):
            if name == "/killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "/recover":
                agenttrace.recover(timeout=20)
            start_response("200 OK", [])
            return [str(os.getpid()).encode()]
"""
UVICORN = """
    import os, signal
    import agenttrace

    agenttrace.configure(service_name="server")

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        name = scope["path"]
        with agenttrace.span(name):
            if name == "/killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "/recover":
                agenttrace.recover(timeout=20)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            body = str(os.getpid()).encode()
            await send({"type": "http.response.body", "body": body})
"""


def gunicorn(directory: Path, *arguments: str) -> Server:
    return Server(
        directory, GUNICORN, "gunicorn", "-b", "fd://{fd}", *arguments, "served:app"
    )


def preloaded(directory: Path) -> Server:
    """Start one that is configured in the master, before it forks."""
    return gunicorn(directory, "-w", "2", "--preload")


def threaded(directory: Path) -> Server:
    """Start one that is configured in each worker; they have threads."""
    return gunicorn(directory, "-w", "2", "-k", "gthread", "--threads", "2")


def uvicorn(directory: Path) -> Server:
    """Start one that is configured in each worker; they are spawned."""
    return Server(
        directory,
        UVICORN,
        "uvicorn",
        "--fd",
        "{fd}",
        "--workers",
        "2",
        "--lifespan",
        "off",
        "served:app",
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_of_programs() as collector:
        yield collector


@pytest.mark.parametrize("start", [preloaded, threaded, uvicorn])
def test_a_servers_workers_lose_nothing_and_tell_nothing_twice(
    tmp_path: Path, collector: Collector, start: Callable[[Path], Server]
) -> None:
    """One is killed inside a request, the server goes on, and is stopped at last."""
    if start is not uvicorn and importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    server = start(tmp_path)
    try:
        for number in range(20):
            server.get(f"/{number}")
        server.kill_a_worker()
        for number in range(20, 40):
            server.get(f"/{number}")
        server.get("/recover")
    finally:
        code, log = server.stop()

    assert code == 0, log
    assert "Traceback" not in log
    recover()
    requests = {f"/{number}": OK for number in range(40)}
    assert endings(collector, was_sending=True) == {
        **requests,
        "/recover": OK,
        "/killed": BY_RECOVERY,
    }
