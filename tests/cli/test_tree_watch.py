"""`agenttrace tree --watch` shows runs as they go on, in a terminal or line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.given import COMMAND, TIME_LIMIT, environment, run, terminal
from tests.view import scenes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
WATCH = ("tree", "--watch")


def plain(shown: str) -> str:
    """Return what was drawn, without what gives it colour and place."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_a_terminal_shows_what_is_open_above_what_is_over(tmp_path: Path) -> None:
    """What goes on is what is watched; it turns into what it came to."""
    with terminal(tmp_path, lines=40, command=WATCH) as there:
        there.read_until("No run to show")
        with scenes.playing(tmp_path, scenes.STUCK):
            there.read_until("1 run, 1 open")
            there.read_until("has not come back")
            there.read_until("open, idle ")
            judged = there.shown
            there.shown = ""
        there.read_until("1 run, 0 open")
        there.press("q")
        code = there.end()
        modes = there.modes()

    assert "▶ invoke_agent clerk" in plain(judged)
    assert "■ execute_tool reserve  stuck" in plain(judged)
    assert "✓ invoke_agent clerk" in plain(there.shown)
    assert code == 0
    assert modes == there.before


def test_elsewhere_each_change_of_a_run_is_a_line(tmp_path: Path) -> None:
    """A script follows runs without asking again and again for all of them."""
    with subprocess.Popen(
        [*COMMAND, *WATCH, "--last", "9" * 30, "--state-dir", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        with scenes.playing(tmp_path, scenes.STUCK):
            told: list[dict[str, Any]] = [json.loads(watch.stdout.readline())]
            while not any(each["judged"] for each in told[-1]["open"]):
                told.append(json.loads(watch.stdout.readline()))
        while told[-1]["open"] or told[-1]["outcome"] is None:
            told.append(json.loads(watch.stdout.readline()))
        watch.terminate()
        _, errors = watch.communicate(timeout=TIME_LIMIT)

    assert {each["name"] for each in told} == {"invoke_agent clerk"}
    assert told[0]["is_open"]
    assert not told[-1]["is_open"]
    assert told[-1]["outcome"] == "ok"
    assert "stuck" in {each["outcome"] for each in told[-1]["spans"]}
    assert (watch.returncode, errors) == (0, "")


def test_one_run_is_watched_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """Of many that go on at once, the one that somebody waits for."""
    with scenes.playing(tmp_path, scenes.BUSY):
        top = run("top", "--once", "--json", "--state-dir", str(tmp_path)).stdout
        trace = json.loads(top)["processes"][0]["runs"][0]["trace_id"]
        with subprocess.Popen(
            [*COMMAND, *WATCH, trace[:10], "--json", "--state-dir", str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdout is not None
            told = json.loads(watch.stdout.readline())
            watch.terminate()
            rest, _ = watch.communicate(timeout=TIME_LIMIT)

    assert (told["trace_id"], told["is_open"]) == (trace, True)
    assert [each["name"] for each in told["open"]] == [
        "invoke_agent triage",
        "invoke_agent research",
        "execute_tool crawl",
    ]
    assert rest == ""
