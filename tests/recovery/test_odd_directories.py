"""What else stands in a directory, or is wrong with it, is survived and told."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from agenttrace import safety
from agenttrace.journal import hold
from agenttrace.recovery import Recovery, locks_in
from tests.recovery.given import (
    FIRST,
    OTHER,
    SECOND,
    Backend,
    Child,
    bury,
    frame_of_spans,
    framed,
    names_in,
    recover,
    recover_in_child,
    slot,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
NOBODY = 65534


def span_ids(*numbers: int) -> set[str]:
    return {
        (number.to_bytes(16, "big") + number.to_bytes(8, "big")).hex()
        for number in numbers
    }


@pytest.mark.parametrize("kind", ["dangling link", "link", "pipe", "directory"])
def test_what_has_a_locks_name_and_is_none_hides_no_other(
    directory: Path, backend: Backend, kind: str
) -> None:
    """One such entry must not end recovery for everybody."""
    bury(directory, FIRST, [slot(1)])
    plant(directory / "1-0000000000000000.lock", kind, directory.parent / "victim")

    recover(directory, backend)

    assert set(backend.forms()) == span_ids(1)
    assert (directory.parent / "victim").read_text() == "theirs"
    assert names_in(directory) == ["1-0000000000000000.lock"]


@pytest.mark.parametrize("kind", ["dangling link", "link", "pipe", "directory"])
@pytest.mark.parametrize("suffix", ["journal", "00000007.spool"])
def test_what_stands_in_a_files_place_is_never_waited_for_nor_followed(
    directory: Path, backend: Backend, suffix: str, kind: str
) -> None:
    """To open a pipe is to wait for its writer, for ever."""
    bury(directory, FIRST, [slot(1)])
    bury(directory, OTHER, None if suffix == "journal" else [slot(2)])
    plant(directory / f"{OTHER}.{suffix}", kind, directory.parent / "victim")

    found = recover(directory, backend)

    expected = span_ids(1) if suffix == "journal" else span_ids(1, 2)
    assert set(backend.forms()) == expected
    assert found.damaged == 1
    assert (directory.parent / "victim").read_text() == "theirs"
    is_kept = kind == "directory"  # which nobody removes for a file
    left = [f"{OTHER}.{suffix}", f"{OTHER}.lock"]
    assert sorted(names_in(directory)) == (sorted(left) if is_kept else [])


def plant(path: Path, kind: str, victim: Path) -> None:
    victim.write_text("theirs")
    match kind:
        case "dangling link":
            path.symlink_to("nowhere")
        case "link":
            path.symlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()


@pytest.mark.parametrize("suffix", ["journal", "00000001.spool"])
def test_what_a_newer_version_has_written_is_left_alone(
    directory: Path, backend: Backend, suffix: str
) -> None:
    """It can read both of its files, and knows what of one stands in the other."""
    bury(directory, FIRST, [slot(1)])
    bury(directory, OTHER, [slot(2)], frames=[frame_of_spans(3)])
    path = directory / f"{OTHER}.{suffix}"
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)
    before = {path.name: path.read_bytes() for path in directory.glob(f"{OTHER}.*")}

    found = recover(directory, backend)

    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert set(backend.forms()) == span_ids(1)
    assert after == before
    assert (found.failed, found.processes) == (1, 1)


def test_what_cannot_be_recovered_is_not_tried_every_ten_seconds(
    directory: Path, backend: Backend
) -> None:
    """A log, a counter and a disk that hear of it every time are worn out by it."""
    bury(directory, FIRST, [slot(1)])
    path = directory / f"{FIRST}.journal"
    path.write_bytes(path.read_bytes()[:8] + b"\x63" + path.read_bytes()[9:])
    recovery = Recovery(directory, backend.send)

    first, second = recovery.run(), recovery.run()

    assert (first.failed, second.failed) == (1, 0)
    assert recovery.total.failed == 1


def test_the_spool_is_sent_where_the_header_of_the_journal_is_damaged(
    directory: Path, backend: Backend
) -> None:
    """One file that a disk has eaten is no reason to lose the other."""
    bury(directory, FIRST, [slot(1)], frames=[frame_of_spans(2)])
    path = directory / f"{FIRST}.journal"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)

    found = recover(directory, backend)

    assert backend.forms() == framed(2)
    assert found.damaged == 1
    assert names_in(directory) == []


def test_a_torn_segment_counts_once(directory: Path, backend: Backend) -> None:
    """Who alarms on the counter alarms on files."""
    bury(directory, FIRST, [], frames=[frame_of_spans(1)])
    path = directory / f"{FIRST}.00000001.spool"
    path.write_bytes(path.read_bytes() + b"half a record")
    before = safety.counts()["segments_damaged"]

    found = recover(directory, backend)

    assert found.damaged == 1
    assert safety.counts()["segments_damaged"] == before + 1
    assert names_in(directory) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="as root")
@pytest.mark.parametrize("what", ["lock", "journal", "00000001.spool"])
def test_files_of_another_user_are_left_to_them(tmp_path: Path, what: str) -> None:
    """A directory that two users share still delivers what either can read."""
    os.chmod(tmp_path, 0o777)  # noqa: PTH101, S103 - for the one who drops privileges
    for parent in tmp_path.parents[:3]:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    directory, log = tmp_path / "instances", tmp_path / "log"
    bury(directory, FIRST, [slot(1)])
    bury(directory, OTHER, [slot(2)], frames=[frame_of_spans(3)])
    backend = Backend(log)
    for path in (directory, log, *directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    theirs = directory / f"{OTHER}.{what}"
    os.chown(theirs, 0, 0)
    theirs.chmod(0o600)

    def as_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        found = recover(directory, Backend(log))
        assert (found.failed, found.lost) == (1, 1)

    code = Child(as_nobody).wait()
    after_that = set(backend.forms())
    recover(directory, backend)

    assert code == 0
    assert after_that == span_ids(1)
    assert set(backend.forms()) == span_ids(1, 2, 3)
    assert names_in(directory) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="as root")
def test_a_directory_that_cannot_be_written_to_is_delivered_once(
    tmp_path: Path,
) -> None:
    """What cannot be removed says by then that it is settled."""
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o005)
    tmp_path.chmod(0o755)
    directory, log = tmp_path / "instances", tmp_path / "log"
    bury(directory, FIRST, [slot(1)], frames=[frame_of_spans(2)])
    backend = Backend(log)
    for path in (log, *directory.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    directory.chmod(0o555)

    def as_nobody() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for _ in range(2):
            recover(directory, Backend(log))

    codes = [Child(as_nobody).wait() for _ in range(2)]

    arrived = backend.arrived()
    assert codes == [0, 0]
    assert {span_id for span_id, _ in arrived} == span_ids(1, 2)
    assert len(arrived) == 2


def test_a_full_disk_is_recovered_from_memory(tmp_path: Path) -> None:
    """Who has lost a process to a full disk wants to know what it did, above all."""
    directory, log = tmp_path / "instances", tmp_path / "log"
    slots = [slot(number) for number in range(1, 300)]
    bury(directory, FIRST, slots, frames=[frame_of_spans(500)])
    backend = Backend(log)
    reading, writing = os.pipe()

    def limited() -> None:
        # No file may grow beyond this, the log of the backend is a pipe.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        os.dup2(writing, limited_backend.descriptor)
        recover(directory, limited_backend)

    limited_backend = Backend(log)
    child = Child(limited)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        log.write_text(pipe.read())
    code = child.wait()

    assert code == 0
    assert set(backend.forms()) == span_ids(*range(1, 300), 500)
    assert all(len(forms) == 1 for forms in backend.forms().values())
    assert names_in(directory) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],  # noqa: S607 - of the system
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("nobody but root may mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607 - of the system


@contextlib.contextmanager
def read_only(disk: Path) -> Generator[None]:
    """Have nothing written beneath *disk*, but by who has a file open by now."""
    for options in (["--bind", str(disk)], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *options, str(disk)], check=True)  # noqa: S607 - of the system
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - of the system


def fill(disk: Path) -> None:
    with (disk / "filling").open("wb", 0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_disk_that_fills_up_meanwhile_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    """Recovery itself writes: room for a frame is the first thing that is missing."""
    directory, log = small_disk / "instances", tmp_path / "log"
    slots = [slot(number) for number in range(1, 1500)]
    bury(directory, FIRST, slots)
    fill(small_disk)
    backend = Backend(log)

    killed = recover_in_child(directory, log, "sent", 3)
    recover(directory, backend)

    assert killed == -9
    assert set(backend.forms()) == span_ids(*range(1, 1500))
    assert all(len(forms) == 1 for forms in backend.forms().values())
    assert names_in(directory) == []


def test_of_the_living_nothing_is_said_where_nothing_can_be_written(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock is taken over by writing, but whether somebody has it can be read."""
    directory, backend = small_disk / "instances", Backend(tmp_path / "log")
    bury(directory, FIRST, [slot(1)])
    bury(directory, SECOND, [slot(2)])
    reading, writing = os.pipe()

    def live() -> None:
        (directory / f"{SECOND}.lock").unlink()
        hold(directory, SECOND)
        os.write(writing, b"!")
        signal.pause()

    child = Child(live)
    assert os.read(reading, 1) == b"!"
    with read_only(small_disk):
        found = Recovery(directory, backend.send).run()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    later = recover(directory, backend)

    assert (found.processes, found.failed) == (0, 1)
    [record] = caplog.records
    assert f"{FIRST}.lock: Read-only file system" in record.message
    assert (later.processes, later.lost) == (2, 2)
    assert set(backend.forms()) == span_ids(1, 2)


def test_a_directory_that_vanishes_is_survived(tmp_path: Path) -> None:
    """Volumes are unmounted, and people tidy up."""
    directory = tmp_path / "instances"
    bury(directory, FIRST, [slot(number) for number in range(1, 300)])
    backend = Backend(tmp_path / "log")
    gone: list[bool] = []

    def send(frame: object, settle: object) -> bool:
        for path in directory.iterdir() if not gone else ():
            path.unlink()
        if not gone:
            directory.rmdir()
        gone.append(True)
        return backend.send(frame, settle)  # type: ignore[arg-type]  # passed on as it comes

    recovery = Recovery(directory, send)
    recovery.run()

    assert recovery.wait(10)
    assert set(backend.forms()) == span_ids(*range(1, 300))
    assert locks_in(directory) == []
    assert Recovery(directory, send).run().processes == 0


def test_a_directory_that_cannot_be_listed_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is found there, and nobody would ask why."""
    directory = tmp_path / "instances"
    directory.symlink_to(directory)  # which root cannot list either
    recovery = Recovery(directory, Backend(tmp_path / "log").send)

    found = [recovery.run().processes for _ in range(2)]

    assert found == [0, 0]
    [record] = caplog.records
    assert f"{directory}: Too many levels of symbolic links" in record.message


def test_ten_thousand_dead_processes_are_recovered(
    directory: Path, backend: Backend
) -> None:
    """A pod that crashes every minute for a week leaves so many."""
    directory.mkdir()
    for number in range(10_000):
        instance = f"{number}-0123456789ab0000"
        (directory / f"{instance}.lock").touch()
        if number % 100 == 0:
            bury(directory, instance, [slot(number + 1)])

    found = recover(directory, backend)

    assert found.processes == 10_000
    assert len(backend.arrived()) == 100
    assert names_in(directory) == []


def test_a_lock_that_is_held_is_nobody_elses(directory: Path, backend: Backend) -> None:
    """The one of this process least of all: closing its file would free it."""
    directory.mkdir()
    lock = hold(directory, FIRST)
    bury(directory, SECOND, [slot(1)])

    found = recover(directory, backend)
    code = recover_in_child(directory, directory.parent / "log")

    assert found.processes == 0
    assert code == 0
    assert backend.arrived() == []
    lock.release(remove=True)
    recover(directory, backend)
    assert set(backend.forms()) == span_ids(1)
