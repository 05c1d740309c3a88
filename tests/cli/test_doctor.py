"""`agenttrace doctor` finds what would cost spans, and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from agenttrace.cli.group import group
from agenttrace.diagnosis.state_directory import kind_of
from agenttrace.noticed import Notice
from agenttrace.settings import INSTANCES
from tests.cli.given import NOBODY, die
from tests.delivery.collector import Collector
from tests.delivery.collector import Reply as Answer

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, owners and locks")
not_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)


def examine(state_dir: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and each finding by its check."""
    result = CliRunner().invoke(
        group, ["doctor", "--json", "--state-dir", str(state_dir)]
    )
    assert result.exit_code in {0, 1}, result.output
    return result.exit_code, {each["check"]: each for each in json.loads(result.stdout)}


def printed(state_dir: Path) -> Result:
    return CliRunner().invoke(group, ["doctor", "--state-dir", str(state_dir)])


@posix
def test_where_all_is_well_it_says_so(tmp_path: Path) -> None:
    """A doctor who always complains is not asked again."""
    tmp_path.chmod(0o700)

    code, found = examine(tmp_path)

    assert code == 0
    levels = {name: each["level"] for name, each in found.items()}
    levels.pop("file system")  # wherever this suite runs
    levels.pop("room")
    assert set(levels.values()) == {"ok"}
    assert {"private", "writable", "locks", "maps", "processes", "versions"} <= set(
        levels
    )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_yet_is_well(tmp_path: Path) -> None:
    """Asked before the first run it must not make anything itself."""
    code, found = examine(tmp_path / "a" / "b")

    assert code == 0
    assert "will be made" in found["state directory"]["message"]
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_place_of_the_directory_is_a_problem(tmp_path: Path) -> None:
    """No journal, no spool, no store."""
    (tmp_path / "file").touch()

    code, found = examine(tmp_path / "file")

    assert code == 1
    assert found["state directory"]["level"] == "problem"
    assert "AGENTTRACE_STATE_DIR" in found["state directory"]["remedy"]


@posix
def test_a_directory_that_others_can_look_into_is_a_warning(tmp_path: Path) -> None:
    """Names of tools and runs are nobody else's business."""
    tmp_path.chmod(0o755)

    code, found = examine(tmp_path)

    assert code == 0
    assert found["private"]["level"] == "warning"
    assert found["private"]["remedy"] == f"chmod 700 {tmp_path}"


@posix
@not_root
def test_a_read_only_directory_is_a_problem(tmp_path: Path) -> None:
    """Everything works there, until the process dies."""
    tmp_path.chmod(0o500)

    code, found = examine(tmp_path)

    assert code == 1
    assert found["writable"]["level"] == "problem"


@posix
def test_the_dead_that_wait_for_recovery_are_counted_and_left(tmp_path: Path) -> None:
    """It looks, and does not act: whoever runs it wants to know first."""
    tmp_path.chmod(0o700)
    die(tmp_path)

    code, found = examine(tmp_path)

    assert code == 0
    assert found["recovery"]["level"] == "warning"
    assert found["recovery"]["message"].startswith("1 have died and wait")
    assert "agenttrace recover" in found["recovery"]["remedy"]
    assert len(list((tmp_path / INSTANCES).glob("*.journal"))) == 1


def test_an_endpoint_is_asked_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the sender's own address and headers, and no span."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")

        code, found = examine(tmp_path)

        assert code == 0
        assert found["destination"]["message"] == f"{collector.endpoint} answers"
        assert collector.requests[0].headers["x-key"] == "secret"
        assert collector.spans() == []
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_an_endpoint_that_does_not_take_spans_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A wrong key and a wrong path look alike from inside: nothing arrives."""
    with Collector(usual=Answer(status)) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)

        code, found = examine(tmp_path)

    assert code == 1
    assert str(status) in found["destination"]["message"]
    assert "OTEL_EXPORTER_OTLP" in found["destination"]["remedy"]


def test_an_endpoint_where_nobody_listens_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In people's table as well, with the remedy beneath."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)

    result = printed(tmp_path)

    assert result.exit_code == 1
    assert "problem" in result.stdout
    assert "Connection refused" in result.stdout
    assert "Remedy: is it running" in result.stdout


def test_a_variable_that_cannot_be_meant_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`configure()` would raise it, in the application that is to be looked after."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")

    code, found = examine(tmp_path)

    assert code == 1
    assert "OTEL_TRACES_EXPORTER='jaeger'" in found["settings"]["message"]


def test_a_store_that_is_damaged_is_a_problem(tmp_path: Path) -> None:
    """`agenttrace tree` would show nothing, and say so only then."""
    (tmp_path / "traces.db").write_bytes(b"no database at all" * 100)

    code, found = examine(tmp_path)

    assert code == 1
    assert found["destination"]["level"] == "problem"


def test_the_deepest_and_latest_mount_says_the_kind() -> None:
    """As the kernel finds it: the last one that hides the others."""
    mounts = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:5 / /var/my\\040dir rw shared:1 - tmpfs tmpfs rw\n"
        "31 22 0:6 / /var/my\\040dir rw - nfs4 server:/x rw\n"
        "garbage\n"
    )
    from pathlib import Path  # noqa: PLC0415 - for annotations alone above

    assert kind_of(Path("/var/my dir/state"), mounts) == "nfs4"
    assert kind_of(Path("/var/my"), mounts) == "ext4"
    assert kind_of(Path("/var"), "") is None


NOTICES = """
    import asyncio, os, pathlib, sys, time

    import agenttrace

    state = pathlib.Path(os.environ["AGENTTRACE_STATE_DIR"])

    @agenttrace.tool
    def search():
        time.sleep(3)

    async def main():
        await asyncio.sleep(0)
        search()
        while not list((state / "instances").glob("*.noticed")):
            await asyncio.sleep(0.05)
        print("noticed", flush=True)
        sys.stdin.read()

    with agenttrace.configure(loop_blocked_after=0.25), agenttrace.span("run"):
        asyncio.run(main())
"""


def test_what_a_process_has_noticed_is_told_with_its_line(tmp_path: Path) -> None:
    """Only that process can know; the next one need not find it out again."""
    pid = 4711
    path = tmp_path / INSTANCES / f"{pid}-0123456789abcdef.noticed"
    path.parent.mkdir()
    notices = [
        Notice("loop_blocked", "/app/tools.py:12 in search", "tool", "for 3.0 s", 7),
        Notice("client_shared", "/app/web.py:3 in ask", "", "AsyncOpenAI"),
        Notice("of_a_later_version", "x.py:1 in f"),
    ]
    path.write_text(json.dumps([each._asdict() for each in notices]))
    (path.parent / "4712-0123456789abcdef.noticed").write_text("[{")

    code, found = examine(tmp_path)
    result = CliRunner().invoke(
        group, ["doctor", str(pid), "--json", "--state-dir", str(tmp_path)]
    )

    stranger = CliRunner().invoke(
        group, ["doctor", "4713", "--json", "--state-dir", str(tmp_path)]
    )

    assert code == 0
    [nothing] = json.loads(stranger.stdout)
    assert nothing["level"] == "warning"
    assert "4713" in nothing["message"]
    blocked = found["loop blocked"]
    assert blocked["level"] == "warning"
    assert "/app/tools.py:12 in search" in blocked["message"]
    assert "7 times" in blocked["message"]
    assert "to_thread" in blocked["remedy"]
    assert "client for each loop" in found["client shared"]["remedy"]
    assert "application" not in found
    assert [each["check"] for each in json.loads(result.stdout)] == [
        "loop blocked",
        "client shared",
    ]


@posix
def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    """Who asks has trouble with a disk, and not with us."""
    tmp_path.chmod(0o700)
    (tmp_path / INSTANCES).symlink_to(INSTANCES)  # which root cannot list either

    _, found = examine(tmp_path)

    for check in ("processes", "application"):
        assert found[check]["level"] == "warning"
        assert "Too many levels of symbolic links" in found[check]["message"]


@posix
def test_a_process_writes_down_what_it_notices_and_takes_it_along(
    tmp_path: Path,
) -> None:
    """The file is the user's alone, and gone with a process that ends well."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NOTICES)],
        env={**os.environ, "AGENTTRACE_STATE_DIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "noticed\n"
    [file] = (tmp_path / INSTANCES).glob("*.noticed")
    mode = file.stat().st_mode & 0o777
    _, found = examine(tmp_path)
    process.communicate("", timeout=60)

    assert mode == 0o600
    assert "execute_tool search" in found["loop blocked"]["message"]
    assert "in search" in found["loop blocked"]["message"]
    assert not file.exists()
