"""`agenttrace guard` stays, and tells of each process that dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.settings import INSTANCES
from tests.cli.given import COMMAND, TIME_LIMIT, die, environment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)


@contextmanager
def guarding(state_dir: Path, *options: str) -> Generator[subprocess.Popen[str]]:
    """Run a guard of *state_dir*."""
    with subprocess.Popen(
        [*COMMAND, "guard", "--every", "0.1", "--state-dir", str(state_dir), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a guard that is at work before there is a directory."""
    with guarding(tmp_path / "state", "--json") as process:
        yield process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def begun(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_of_one_that_dies_and_ends_cleanly(
    guard: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    """In a pod it may be process 1, which only hears the signals that it handles."""
    assert begun(guard).startswith(f"Guarding {tmp_path / 'state'}, delivering to ")
    pid = die(tmp_path / "state")

    told = json.loads(first_line(guard))
    guard.send_signal(number)
    _, errors = guard.communicate(timeout=TIME_LIMIT)

    assert (told["pid"], told["lost"], told["failed"]) == (pid, 2, 0)
    assert told["instance"].startswith(f"{pid}-")
    assert guard.returncode == 0
    assert "Found 1 process that had died: 2 open (lost)" in errors
    assert "Traceback" not in errors
    assert Reader(tmp_path / "state" / FILE_NAME).runs(5)[0].name == "run"


def test_it_looks_once_more_before_it_ends(tmp_path: Path) -> None:
    """In a pod that is stopped, what it guards is killed just before it is told."""
    with guarding(tmp_path, "--every", "600") as process:
        begun(process)
        pid = die(tmp_path)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=TIME_LIMIT)

    assert process.returncode == 0
    assert f"process {pid} has died" in said
    assert list((tmp_path / INSTANCES).iterdir()) == []


def test_a_line_for_people_names_the_process(tmp_path: Path) -> None:
    """Whoever reads the log of a pod looks for the process that died."""
    with guarding(tmp_path) as process:
        pid = die(tmp_path)
        line = first_line(process)

        assert line[8:] == (
            f"  process {pid} has died: 2 open (lost), 0 ended, 0 resent\n"
        )


def test_what_only_another_version_can_read_is_told_once(tmp_path: Path) -> None:
    """It is found at each look, and is no news after the first."""
    die(tmp_path)
    [journal] = (tmp_path / INSTANCES).glob("*.journal")
    content = bytearray(journal.read_bytes())
    content[8] = 99
    journal.write_bytes(bytes(content))

    with guarding(tmp_path, "--json") as process:
        first = json.loads(first_line(process))
        pid = die(tmp_path)
        second = json.loads(first_line(process))

        assert first["lost"] == 0
        assert (second["pid"], second["lost"]) == (pid, 2)
    assert journal.exists()
