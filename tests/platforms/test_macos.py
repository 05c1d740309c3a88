"""What macOS has not, or has otherwise, costs nothing of what is promised there.

No machine with macOS takes part: see `as_macos/sitecustomize.py` for what is real here.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.cli.given import DIES, TIME_LIMIT
from tests.platforms.given import command, environment_of, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MACOS = "as_macos"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="takes away what Linux has"
)
WORKS = """
    import sys
    import agenttrace

    agenttrace.configure(service_name="worker")
    with agenttrace.span("run"):
        print("at work", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that has a span open until it is told to go on."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(WORKS)],
        env=environment_of(MACOS, tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.communicate("go on\n", TIME_LIMIT)


def test_it_is_macos_as_far_as_can_be_seen(tmp_path: Path) -> None:
    """Or all that follows would test Linux once more."""
    said = program(
        MACOS,
        tmp_path,
        """
        import os, sys, time
        print(sys.platform, os.path.exists("/proc/self/stat"))
        try:
            open("/proc/self/stat")
        except FileNotFoundError:
            print("no /proc")
        print(hasattr(os, "posix_fallocate"), hasattr(time, "CLOCK_BOOTTIME"))
        """,
    )

    assert said.split("\n")[1:3] == ["no /proc", "False False"]
    assert said.startswith("darwin")


def test_a_process_that_is_killed_is_recovered_there(tmp_path: Path) -> None:
    """The promise, where no blocks can be allocated and nothing has a boot id."""
    ran = subprocess.run(
        [sys.executable, "-c", dedent(DIES), str(tmp_path)],
        env=environment_of(MACOS, tmp_path),
        timeout=TIME_LIMIT,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL

    recovered = command(MACOS, tmp_path, "recover")
    tree = command(MACOS, tmp_path, "tree", "--json")

    assert recovered.returncode == 0, recovered.stderr
    (run,) = json.loads(tree.stdout)[0]["spans"]
    assert (run["name"], run["outcome"], run["ended_by"]) == ("run", "lost", "recovery")
    assert {each["name"]: each["outcome"] for each in run["children"]} == {
        "done": "ok",
        "step": "lost",
    }


def test_a_living_process_is_seen_and_asked_there(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Who holds a lock stands elsewhere in what the kernel answers there."""
    top = command(MACOS, tmp_path, "top", "--once", "--json")
    where = command(MACOS, tmp_path, "where", str(worker.pid), "--json")

    (process,) = json.loads(top.stdout)["processes"]
    assert process["pid"] == worker.pid
    (told,) = json.loads(where.stdout)["processes"]
    assert told["state"] == "answered"
    assert "in <module>" in where.stdout


def test_a_stopped_process_is_told_from_a_silent_one_there(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    """`ps` knows it where no file does."""
    worker.send_signal(signal.SIGSTOP)

    where = command(MACOS, tmp_path, "where", str(worker.pid), "--json")

    (told,) = json.loads(where.stdout)["processes"]
    assert told["state"] == "stopped"


def test_a_journal_says_there_what_is_known_of_its_process(tmp_path: Path) -> None:
    """No boot id, and the start of the journal for that of the process."""
    said = program(
        MACOS,
        tmp_path,
        """
        import os, time
        from pathlib import Path
        from agenttrace.journal import Journal
        from agenttrace.journal.reader import read_journal
        began = time.time_ns()
        journal = Journal(Path("."), first_slots=64)
        header = read_journal(journal.path).header
        print(header.pid == os.getpid(), header.boot_id == bytes(16))
        print(began <= header.started_at <= time.time_ns())
        print(journal.path.stat().st_blocks * 512 >= journal.size)
        """,
    )

    assert said.split() == ["True"] * 4


def test_doctor_complains_of_nothing_that_macos_only_does_not_say(
    tmp_path: Path,
) -> None:
    """It does not know the file system there, and that is no fault."""
    tmp_path.chmod(0o700)
    done = command(MACOS, tmp_path, "doctor", "--json")

    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert found["file system"]["message"] == "its kind is not known"
    assert {found[name]["level"] for name in ("locks", "maps", "file system")} == {"ok"}
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("refusal", ["ENOLCK", "ENOTSUP", "ENOSYS"])
def test_the_store_is_opened_where_files_cannot_be_locked(
    refusal: str, tmp_path: Path
) -> None:
    """File systems say it in words of their own; its spans would be dropped."""
    said = program(
        MACOS,
        tmp_path,
        f"""
        import errno, os, sys

        def refuse(event, arguments):
            if event == "fcntl.lockf":
                raise OSError(errno.{refusal}, os.strerror(errno.{refusal}))

        sys.addaudithook(refuse)
        import agenttrace
        runtime = agenttrace.configure(durable=False)
        with agenttrace.span("run"):
            pass
        runtime.flush()
        print(runtime.status().counts["spans_acknowledged"])
        """,
    )

    assert said == "1\n"
