"""On Windows agenttrace imports and traces, without a journal.

No machine with Windows takes part: see `as_windows/sitecustomize.py` for what is real.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.platforms.given import command, program, python

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS = "as_windows"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="takes away what Linux has"
)
TRACES = """
    import logging, sys
    logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message)s")
    import agenttrace

    runtime = agenttrace.configure(service_name="worker")
    agenttrace.instrument()

    @agenttrace.agent
    async def triage():
        yield "a"
        raise ValueError("no such order")

    async def main():
        with agenttrace.span("run"):
            try:
                async for _ in triage():
                    pass
            except ValueError:
                pass

    import asyncio
    asyncio.run(main())
    runtime.flush()
    status = runtime.status()
    print(status.journal, status.open, status.counts["spans_acknowledged"])
    runtime.shutdown()
"""


def test_it_traces_there_without_a_journal_and_says_so_once(tmp_path: Path) -> None:
    """What is promised for it: spans closed with the truth, and one line in the log."""
    said = program(WINDOWS, tmp_path, TRACES).splitlines()
    tree = command(WINDOWS, tmp_path, "tree", "--json")

    assert said[-1] == "False 0 2"
    (line,) = said[:-1]
    assert line.startswith("agenttrace: no journal can be kept in ")
    (run,) = json.loads(tree.stdout)[0]["spans"]
    assert (run["name"], run["outcome"]) == ("run", "ok")
    (agent,) = run["children"]
    assert (agent["outcome"], agent["ended_by"]) == ("error", "exception")


def test_every_module_can_be_imported_there(tmp_path: Path) -> None:
    """One import of what Windows has not, and an application does not start."""
    said = program(
        WINDOWS,
        tmp_path,
        """
        import importlib, pkgutil
        import agenttrace

        tried = 0
        for found in pkgutil.walk_packages(agenttrace.__path__, "agenttrace."):
            if found.name.startswith("agenttrace.demo") or "__main__" in found.name:
                continue
            tried += 1
            try:
                importlib.import_module(found.name)
            except ImportError as error:
                # A library that is not here, and not one of the platform's modules.
                if (error.name or "").split(".")[0] in {
                    "fcntl", "resource", "termios", "tty", "pwd", "grp"
                }:
                    print(found.name, error)
        print(tried > 200)
        """,
    )

    assert said == "True\n"


def test_doctor_warns_there_of_what_nobody_can_mend(tmp_path: Path) -> None:
    """That there are no such locks is Windows' way, and no fault of an installation."""
    done = command(WINDOWS, tmp_path, "doctor", "--json")

    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert found["locks"]["level"] == "warning"
    assert "Windows has no locks" in found["locks"]["remedy"]
    assert found["private"]["level"] == "ok"
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["top", "--once"], 1),
        (["where", "123456"], 1),
        (["recover"], 0),
        (["tree"], 0),
        (["run", "-m", "json.tool", "--help"], 0),
    ],
    ids=["top", "where", "recover", "tree", "run"],
)
def test_commands_say_there_what_they_have_to_say(
    words: list[str], code: int, tmp_path: Path
) -> None:
    """Most have little to say where nothing is kept, and that in a sentence."""
    program(WINDOWS, tmp_path, TRACES)

    done = command(WINDOWS, tmp_path, *words)

    assert done.returncode == code, done.stderr
    assert done.stdout or done.stderr


def test_the_state_directory_is_where_windows_has_such_things(tmp_path: Path) -> None:
    """Not in a folder that begins with a dot, which nobody looks for there."""
    said = python(
        WINDOWS,
        tmp_path,
        "-c",
        "import os; del os.environ['AGENTTRACE_STATE_DIR']\n"
        "from agenttrace.settings import state_dir; print(state_dir())",
        LOCALAPPDATA=str(tmp_path / "Local"),
    )

    assert said.stdout.strip() == str(tmp_path / "Local" / "agenttrace"), said.stderr


def test_the_pytest_plugin_fails_there_what_leaves_a_span_open(tmp_path: Path) -> None:
    """A test suite runs on the machine of whoever writes it."""
    (tmp_path / "test_it.py").write_text(
        "import agenttrace\n\n"
        "agenttrace.configure()\n"
        "kept = agenttrace.span('left')\n\n"
        "def test_leaves():\n"
        "    kept.__enter__()\n\n"
        "def test_closes(agenttrace_spans):\n"
        "    with agenttrace.span('closed'):\n"
        "        pass\n"
        "    agenttrace_spans.assert_all_closed()\n"
    )

    done = python(
        WINDOWS,
        tmp_path,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("--agenttrace-leaks=fail", str(tmp_path)),
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        PYTEST_PLUGINS="agenttrace.pytest_plugin",
    )

    assert "1 span left open: left" in done.stdout, done.stderr
    assert "2 passed, 1 error" in done.stdout


@pytest.mark.timeout(180)
def test_the_demo_leaves_out_there_the_run_that_is_killed(tmp_path: Path) -> None:
    """A newcomer on Windows sees the others, and why that one is missing."""
    done = command(
        WINDOWS,
        tmp_path,
        "demo",
        IMPORTED_FIRST="agents fastapi openai uvicorn",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Left out, a worker that is killed: Windows has no locks" in done.stdout
    assert "Every span is accounted for" in done.stdout
