"""`agenttrace recover` delivers what the dead have left, and leaves the living be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from agenttrace.cli.group import group
from agenttrace.delivery.store import FILE_NAME, Reader, build_forest
from agenttrace.journal import is_alive
from agenttrace.recovery import Recovered, locks_in
from agenttrace.settings import INSTANCES
from tests.cli.given import (
    COMMAND,
    DIES_UNSENT,
    NOBODY,
    TIME_LIMIT,
    die,
    environment,
    run,
)
from tests.delivery.collector import Collector
from tests.delivery.collector import Reply as Answer

if TYPE_CHECKING:
    from pathlib import Path

needs_locks = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
pytestmark = needs_locks


def test_what_a_killed_process_had_open_is_delivered_under_its_true_parents(
    tmp_path: Path,
) -> None:
    """The tree of a run that was killed says where it was."""
    die(tmp_path)

    ran = run("recover", "--state-dir", str(tmp_path))

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "Found 1 process that had died: 2 open (lost), 0 ended, 0 resent.",
        f"Delivered to {tmp_path / FILE_NAME}: all of them.",
    ]
    reader = Reader(tmp_path / FILE_NAME)
    [top] = build_forest(reader.spans(reader.runs(1)[0].trace_id))
    assert (top.span.name, top.outcome, top.ended_by) == ("run", "lost", "recovery")
    assert {(below.span.name, below.outcome) for below in top.children} == {
        ("done", "ok"),
        ("step", "lost"),
    }
    assert top.span.resource.attributes["service.name"] == "worker"
    assert list((tmp_path / INSTANCES).iterdir()) == []


def test_where_nobody_has_died_it_says_so(tmp_path: Path) -> None:
    """A second one, or one in the wrong directory, is no failure."""
    ran = run("recover", "--state-dir", str(tmp_path / "nowhere"))

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        f"No process has died and left anything in {tmp_path / 'nowhere'}.\n"
    )
    assert not (tmp_path / "nowhere").exists()


def test_it_delivers_to_the_endpoint_of_the_environment(tmp_path: Path) -> None:
    """Where `configure()` would send them is where somebody looks for them."""
    die(tmp_path, DIES_UNSENT, OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY)

    with Collector() as collector:
        ran = run(
            "recover",
            "--json",
            "--state-dir",
            str(tmp_path),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
        )
        names = {span.name for span in collector.spans()}

    told = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert names == {"run", "done", "step"}
    assert told == {
        "state_dir": str(tmp_path),
        "destinations": ["otlp"],
        "processes": 1,
        "lost": 2,
        "ended": 0,
        "resent": 1,
        "unsampled": 0,
        "damaged": 0,
        "failed": 0,
        "delivered": 3,
        "refused": 0,
        "left": 0,
        "error": None,
    }


def test_what_cannot_be_delivered_stays_for_the_next_one(tmp_path: Path) -> None:
    """A recovery that comes while the collector is down must cost nothing."""
    die(tmp_path)

    down = run(
        "recover",
        *("--timeout", "0.2", "--state-dir", str(tmp_path)),
        OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
    )
    later = run("recover", "--state-dir", str(tmp_path))

    assert down.returncode == 1
    assert "2 spans were not delivered (ConnectionError" in down.stdout
    assert "kept on disk" in down.stdout
    assert later.returncode == 0
    assert "0 open (lost), 0 ended, 2 resent" in later.stdout


def test_what_is_refused_for_good_is_told(tmp_path: Path) -> None:
    """It is gone then, and an exit code of zero would say that it is not."""
    die(tmp_path)

    with Collector(usual=Answer(400)) as collector:
        ran = run(
            "recover",
            *("--state-dir", str(tmp_path)),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.base,
        )

    assert ran.returncode == 1
    assert "2 spans were refused for good" in ran.stdout


def test_inside_a_live_process_it_costs_that_process_nothing(tmp_path: Path) -> None:
    """Closing any descriptor of its own lock would free it: others then take it over.

    A process of its own, because the one that runs the tests may not keep a journal.
    """
    die(tmp_path)
    source = f"""
import agenttrace
from click.testing import CliRunner
from agenttrace.cli.group import group
from agenttrace.recovery import locks_in

agenttrace.configure(state_dir={str(tmp_path)!r}, service_name="alive")
agenttrace.recover()
with agenttrace.span("still open"):
    for command in ("recover", "doctor", "recover"):
        ran = CliRunner().invoke(group, [command, "--state-dir", {str(tmp_path)!r}])
        assert ran.exit_code == 0, ran.output
    print("ready", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        [lock] = locks_in(tmp_path / INSTANCES)
        still_held = is_alive(lock)
        ran = run("recover", "--state-dir", str(tmp_path))
        process.communicate("\n", timeout=TIME_LIMIT)

    assert still_held
    assert ran.stdout.startswith("No process has died")
    assert process.returncode == 0


def test_two_at_once_deliver_it_once(tmp_path: Path) -> None:
    """Two people, or a guard and a person, may have the same idea."""
    for _ in range(3):
        die(tmp_path / "one")
        for left in (tmp_path / "one" / INSTANCES).iterdir():
            (tmp_path / INSTANCES).mkdir(mode=0o700, exist_ok=True)
            left.rename(tmp_path / INSTANCES / left.name)

    both = [
        subprocess.Popen(
            [*COMMAND, "recover", "--json", "--state-dir", str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for _ in range(2)
    ]
    told = [json.loads(each.communicate(timeout=TIME_LIMIT)[0]) for each in both]

    assert [each.returncode for each in both] == [0, 0]
    assert sum(each["lost"] for each in told) == 6
    assert sum(each["processes"] for each in told) == 3


def test_a_destination_that_is_none_is_refused(tmp_path: Path) -> None:
    """Recovering to nowhere would be deleting."""
    ran = run("recover", "--state-dir", str(tmp_path), OTEL_TRACES_EXPORTER="none")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "OTEL_TRACES_EXPORTER='none'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all"
)
def test_a_directory_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Nothing found and nothing readable are two things."""
    (tmp_path / INSTANCES).mkdir(mode=0o000)

    result = CliRunner().invoke(group, ["recover", "--state-dir", str(tmp_path)])

    assert result.exit_code == 2
    assert "may read and write" in result.output


@pytest.mark.parametrize("command", ["recover", "guard"])
def test_a_directory_that_cannot_be_listed_is_told(
    tmp_path: Path, command: str
) -> None:
    """On a damaged disk nobody is found, which does not mean that nobody has died."""
    (tmp_path / INSTANCES).symlink_to(INSTANCES)  # which root cannot list either

    result = CliRunner().invoke(group, [command, "--state-dir", str(tmp_path)])

    assert result.exit_code == 2
    assert "may read and write (Too many levels of symbolic links)" in result.output


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    """Whoever waits for a collector that is down gets the terminal back."""
    die(tmp_path)
    with (
        Collector(usual=Answer(503)) as collector,
        subprocess.Popen(
            [*COMMAND, "recover", "--state-dir", str(tmp_path)],
            env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.base),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process,
    ):
        collector.wait_for_requests(1)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=TIME_LIMIT)

    assert process.returncode == 130
    assert "2 spans were not delivered" in said
    assert "Interrupted." in errors
    assert "Traceback" not in errors


def test_what_was_found_since_is_a_difference() -> None:
    """Lines of single processes are made of it."""
    before = Recovered(processes=1, lost=2)
    after = Recovered(processes=2, lost=5, resent=1)

    assert after.since(before) == Recovered(processes=1, lost=3, resent=1)


def test_a_long_recovery_shows_a_bar_in_a_terminal(tmp_path: Path) -> None:
    """Minutes without a word look like a hang."""
    pty = pytest.importorskip("pty")
    die(tmp_path)
    ours, theirs = pty.openpty()

    with (
        Collector(usual=Answer(delay=2)) as collector,
        subprocess.Popen(
            [*COMMAND, "recover", "--state-dir", str(tmp_path)],
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.base, TERM="xterm", COLUMNS="80"
            ),
            stdout=subprocess.PIPE,
            stderr=theirs,
            encoding="utf-8",
        ) as process,
    ):
        os.close(theirs)
        shown = os.read(ours, 4096).decode()
        while "delivering spans" not in shown:
            shown += os.read(ours, 4096).decode()
        said, _ = process.communicate(timeout=TIME_LIMIT)
    os.close(ours)

    assert process.returncode == 0
    assert "0/2" in shown
    assert "all of them" in said
    assert "delivering" not in said
