"""Every example runs as it stands, and what the docs print of it is true."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from agenttrace.delivery.store.reader import Reader

if TYPE_CHECKING:
    from agenttrace.model import SpanData

ROOT = Path(__file__).parents[2]


def outcomes(service: str) -> list[tuple[str | None, str | None]]:
    reader = Reader(Path(os.environ["AGENTTRACE_STATE_DIR"]) / "traces.db")
    return sorted((run.name, run.outcome) for run in reader.runs(10, service=service))


def test_the_tutorials_program_is_the_example() -> None:
    """A page that has drifted from what runs teaches a mistake."""
    page = (ROOT / "docs/tutorial/first-trace.md").read_text()
    example = (ROOT / "examples/first_trace.py").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert code.strip() == example.partition('"""\n\n')[2].strip()


def run(example: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end; a slow machine gets more time to deliver at exit."""
    ran = subprocess.run(
        [sys.executable, ROOT / "examples" / example],
        env={**os.environ, "AGENTTRACE_FLUSH_TIMEOUT": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


def test_the_first_trace_has_one_run_that_ended_and_one_that_was_left() -> None:
    """What the tutorial says that its reader will see."""
    ran = run("first_trace.py")

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["I found 1 page.", "I ... enough"]
    assert outcomes("tutorial") == [
        ("invoke_agent triage", "abandoned"),
        ("invoke_agent triage", "ok"),
    ]


def test_background_work_tells_what_became_of_each_job() -> None:
    """What the page says: a run for each, however it ends."""
    ran = run("background_work.py")

    assert ran.stderr == ""
    assert outcomes("background-example") == [
        ("ask", "timed_out"),
        ("for ever", "cancelled"),
        ("learn", "ok"),
        ("request", "ok"),
        ("translate", "ok"),
        ("translate", "ok"),
    ]


def test_a_step_that_is_a_program_stands_in_the_trace_of_its_agent() -> None:
    """Two processes, one tree."""
    ran = run("subprocess_steps.py")

    assert (ran.stdout, ran.stderr) == ("A drawing of a lighthouse.\n", "")
    [agent] = spans_of("invoke_agent illustrate", "subprocess-example")
    [tool] = spans_of("execute_tool draw", "subprocess-example")
    assert tool.parent_id == agent.span_id


@pytest.mark.timeout(300)
def test_a_task_of_celery_whose_worker_is_killed_is_lost_and_done_again() -> None:
    """Both attempts are told, and lead to who sent it, the one that was killed too."""
    pytest.importorskip("celery")

    ran = run("celery_tasks.py")

    assert "I looked twice: what does a lighthouse show?\n" in ran.stdout
    assert outcomes("celery-example") == [
        ("request", "ok"),
        ("task research", "lost"),
        ("task research", "ok"),
    ]
    [request] = spans_of("request", "celery-example")
    linked = {
        span.attributes["agenttrace.outcome"]: [link.span_id for link in span.links]
        for span in spans_of("task research", "celery-example")
    }
    assert linked["ok"] == linked["lost"] == [request.span_id]


def ask_twice(example: str, path: str = "/ask") -> tuple[str, str]:
    """Ask a server for a whole answer, and for one that is left; return the first.

    Returns:
        The answer, and what the server has to say of errors.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}{path}"
    server = subprocess.Popen(
        [sys.executable, ROOT / "examples" / example],
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_it_listens(port)
        whole = httpx.get(url, timeout=30).text
        with httpx.stream("GET", url, timeout=30) as response:
            next(response.iter_text())
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    return whole, errors


def spans_of(name: str, service: str) -> list[SpanData]:
    """Return the spans of that name that a service has stored."""
    reader = Reader(Path(os.environ["AGENTTRACE_STATE_DIR"]) / "traces.db")
    return [
        span
        for run in reader.runs(10, service=service)
        for span in reader.spans(run.trace_id)
        if span.name == name
    ]


def outcomes_of(name: str, service: str) -> set[str]:
    """Return the outcomes of the spans of that name that a service has stored."""
    return {
        str(span.attributes["agenttrace.outcome"]) for span in spans_of(name, service)
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("example", "path", "service"),
    [
        ("stream_with_fastapi.py", "/ask", "fastapi-example"),
        ("django_site.py", "/ask/", "django-example"),
    ],
)
def test_an_example_of_the_web_tells_a_read_stream_from_one_that_was_left(
    example: str, path: str, service: str
) -> None:
    """The same endpoint, twice; only the client differs."""
    whole, errors = ask_twice(example, path)

    assert whole.startswith("It shows ships")
    assert "Error" not in errors
    assert "Failed to detach" not in errors
    ended = {
        (str(span.attributes["agenttrace.outcome"]), span.attributes.get("http.route"))
        for span in spans_of("invoke_agent answer", service)
    }
    route = "ask/" if service == "django-example" else None
    assert ended == {("ok", route), ("abandoned", route)}


@pytest.mark.timeout(180)
def test_the_agents_example_stops_the_run_of_a_client_that_left() -> None:
    """Every span of both runs is told, the second one's as interrupted."""
    whole, errors = ask_twice("agents_with_fastapi.py")

    assert whole.startswith("It shows ships")
    assert "Error" not in errors
    for name in ("invoke_workflow Agent workflow", "invoke_agent keeper", "turn 2"):
        ended = outcomes_of(name, "agents-example")
        assert ended in ({"ok", "cancelled"}, {"ok", "abandoned"})
    assert outcomes_of("execute_tool look_up", "agents-example") == {"ok"}


def wait_until_it_listens(port: int, seconds: float = 90) -> None:
    give_up = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)  # it imports: let it have the processor
        else:
            return
