"""The page is for whoever has its address, on this machine, and for nobody else."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.given import COMMAND, TIME_LIMIT, environment, run
from tests.view import scenes

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.view import Server
    from tests.view.conftest import Serving

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
PAGE = files("agenttrace.view") / "page"


def ask(
    server: Server, path: str, *, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask as whoever has the address, but for what *headers* say instead."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIME_LIMIT)
    given = {"Host": f"127.0.0.1:{port}", "Authorization": f"Bearer {server.token}"}
    try:
        connection.request(method, path, headers={**given, **headers})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def told(server: Server, path: str) -> dict[str, Any]:
    """Return what is told of *path*."""
    answer, body = ask(server, path)
    assert answer.status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example:1"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(
    serving: Serving, tmp_path: Path, host: str
) -> None:
    """A foreign page reads ours by DNS rebinding, if nobody looks at the name."""
    with serving(tmp_path) as server:
        page, _ = ask(server, "/", Host=host)
        runs, body = ask(server, "/api/runs", Host=host)

    assert (page.status, runs.status) == (403, 403)
    assert b"services" not in body


@pytest.mark.parametrize("token", ["", "Bearer ", "Bearer wrong", "Bearer \xe9"])
def test_who_does_not_have_the_address_is_told_nothing(
    serving: Serving, tmp_path: Path, token: str
) -> None:
    """Other users of the machine reach the port as well."""
    with serving(tmp_path) as server:
        for path in ("/api/runs", f"/api/runs/{'a' * 32}", "/api/anything"):
            answer, body = ask(server, path, Authorization=token)
            assert answer.status == 401
            assert set(json.loads(body)) == {"error"}


def test_every_answer_says_what_a_browser_may_do_with_it(
    serving: Serving, tmp_path: Path
) -> None:
    """What is forbidden here the browser refuses, whatever our code has missed."""
    with serving(tmp_path) as server:
        answers = [
            ask(server, path, **headers)[0]
            for path, headers in (
                ("/", {}),
                ("/app.js", {}),
                ("/api/runs", {}),
                ("/api/runs", {"Authorization": ""}),
                ("/nothing", {}),
                ("/", {"Host": "evil.example"}),
            )
        ]

    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Origin"] is None
        assert "Python" not in (answer.headers["Server"] or "")


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "/page/app.js",
        "//etc/passwd",
        "/api/runs/zz",
        "/api/runs/" + "a" * 32,
        "/api/runs/aa/bb/cc",
        "/api/other",
    ],
)
def test_what_is_not_there_is_not_found(
    serving: Serving, tmp_path: Path, path: str
) -> None:
    """It serves the files of the page by name, and no path of the disk."""
    with serving(tmp_path) as server:
        answer, _ = ask(server, path)

    assert answer.status == 404


def test_an_outcome_that_there_is_not_is_told_apart(
    serving: Serving, tmp_path: Path
) -> None:
    """It is the question that is wrong, and not the server."""
    with serving(tmp_path) as server:
        answer, _ = ask(server, "/api/runs?outcome=great")

    assert answer.status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(serving: Serving, tmp_path: Path, method: str) -> None:
    """It shows. A preflight of another page is not answered either."""
    with serving(tmp_path) as server:
        answer, _ = ask(server, "/api/runs", method=method)

    assert answer.status == 501


def test_a_head_has_no_body(serving: Serving, tmp_path: Path) -> None:
    """A connection that is kept would take it for the next answer."""
    with serving(tmp_path) as server:
        answer, body = ask(server, "/", method="HEAD")

    assert (answer.status, body) == (200, b"")


def test_the_page_asks_nobody_else(page_files: dict[str, str]) -> None:
    """No font, script or picture comes from elsewhere; it works without a net."""
    for name, text in page_files.items():
        addresses = re.findall(r"https?://[^\s\"']+", text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, name


def test_the_page_never_makes_markup_of_a_text(page_files: dict[str, str]) -> None:
    """Names, errors and attributes are whatever an application, or a model, says."""
    for name, text in page_files.items():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(",
            text,
        )
        assert found is None, (name, found)
        assert not re.search(r"\son\w+=|style=", text), name


@pytest.fixture
def page_files() -> dict[str, str]:
    """Return the texts of the page, by file."""
    return {each.name: each.read_text() for each in PAGE.iterdir()}


def test_what_runs_came_to_and_what_is_open_is_told_together(
    serving: Serving, tmp_path: Path
) -> None:
    """The store knows what has ended, and the journals what has not."""
    with (
        scenes.playing(tmp_path, scenes.STUCK),
        scenes.playing(tmp_path, scenes.BUSY),
        serving(tmp_path) as server,
    ):
        runs = told(server, "/api/runs")["runs"]
        stuck = told(server, "/api/runs?outcome=stuck")["runs"]
        running = told(server, "/api/runs?outcome=running&service=support")["runs"]
        nobody = told(server, "/api/runs?service=nobody")["runs"]
        (clerk,) = stuck
        shown = told(server, f"/api/runs/{clerk['trace_id']}")
        again = told(server, f"/api/runs/{clerk['trace_id']}?have={shown['version']}")
        (judged,) = (each for each in shown["spans"] if each["outcome"] == "stuck")
        step = told(server, f"/api/runs/{clerk['trace_id']}/{judged['id']}")

    # What goes on comes first.
    assert [each["name"] for each in runs[:2]] == [
        "invoke_agent triage",
        "invoke_agent clerk",
    ]
    assert {each["name"]: each["outcome"] for each in runs[2:]} == {
        "invoke_agent writer": "abandoned",
        "invoke_agent shipping": "error",
        "invoke_agent refund": "ok",
        "invoke_agent triage": "ok",
        "invoke_agent billing": "ok",
    }
    assert {each["name"] for each in running} == {
        "invoke_agent triage",
        "invoke_agent clerk",
    }
    assert nobody == []
    assert clerk["open"]["judged"] == 1
    assert clerk["open"]["urgent"]["name"] == "invoke_agent clerk"
    assert {each["name"]: each["judged"] for each in shown["open"]} == {
        "invoke_agent clerk": False,
        "execute_tool reserve": True,
    }
    assert (shown["whole"], again["whole"], again["spans"]) == (True, False, [])
    assert [each["name"] for each in again["open"]] == [
        each["name"] for each in shown["open"]
    ]
    (hang,) = (
        each for each in step["ended"]["events"] if each["name"] == "agenttrace.hang"
    )
    assert hang["attributes"]["agenttrace.hang.cause"] == "lock"
    assert step["open"]["judged"] is True


def test_a_process_that_died_is_told_until_it_is_recovered(
    serving: Serving, tmp_path: Path
) -> None:
    """Its steps look open to nobody, and lost to nobody yet."""
    scenes.lose(tmp_path, recovered=False)
    with serving(tmp_path) as server:
        before = told(server, "/api/runs")
        assert run("recover", "--state-dir", str(tmp_path)).returncode == 0
        after = told(server, "/api/runs")

    assert [each["open"] for each in before["dead"]] == [2]
    assert after["dead"] == []
    assert [each["outcome"] for each in after["runs"]] == ["lost"]


def test_a_store_that_cannot_be_read_is_told_in_words(
    serving: Serving, tmp_path: Path
) -> None:
    """The page shows what is wrong, and goes on asking."""
    (tmp_path / "traces.db").write_text("this is no database, " * 100)
    with serving(tmp_path) as server:
        answer, body = ask(server, "/api/runs")

    assert answer.status == 503
    assert "cannot be read" in json.loads(body)["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C is how everybody ends it: no traceback, and the port is free."""
    with subprocess.Popen(
        [*COMMAND, "view", "--no-open", "--state-dir", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().rstrip().rpartition(" ")[2]
        hint = process.stdout.readline()
        page = urllib.request.urlopen(address, timeout=TIME_LIMIT).read()  # noqa: S310 - our own
        process.send_signal(number)
        rest, errors = process.communicate(timeout=TIME_LIMIT)

    assert address.startswith("http://127.0.0.1:")
    assert hint == "Ctrl-C ends it.\n"
    assert b"<title>agenttrace</title>" in page
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    """It is the one thing that can go wrong at the beginning."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run("view", "--no-open", "--port", port, "--state-dir", str(tmp_path))

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"Error: Port {port} cannot be used: ")
    assert ended.stderr.count("\n") == 1
