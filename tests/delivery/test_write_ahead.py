"""A disk that refuses costs the safety of a crash, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from agenttrace import safety
from agenttrace.delivery.segment_files import read
from agenttrace.delivery.segments import Segments
from agenttrace.delivery.write_ahead import WriteAhead
from tests.core.programs import run
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.spool import Settle

NEVER = 3_600.0


@pytest.fixture(autouse=True)
def _fresh_counters() -> Iterator[None]:
    safety.reset_for_tests()
    yield
    safety.reset_for_tests()


def found_in(directory: Path) -> list[Frame]:
    """Return the frames that a reader finds unsettled."""
    return [one for found in read(directory, "me") for _, one in found.frames]


def appended(log: WriteAhead, frame: Frame) -> Settle:
    """Append *frame*, which the disk must take."""
    settle = log.append(frame)
    assert settle is not None
    return settle


def test_a_directory_that_cannot_be_made_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A service must start all the same, and its log stay readable."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    log = WriteAhead(Segments(in_the_way / "state", "me"), try_again=0)

    settles = [log.append(frame("a", "b")) for _ in range(3)]

    assert settles == [None, None, None]
    assert safety.counts()["spans_not_spooled"] == 6
    assert safety.guard_hits() == {}
    [record] = caplog.records
    assert "Not a directory" in record.message
    assert str(in_the_way) in record.message


def test_it_goes_on_by_itself_when_the_disk_does(tmp_path: Path) -> None:
    """Nobody restarts a service for its traces."""
    in_the_way = tmp_path / "state"
    in_the_way.touch()
    log = WriteAhead(Segments(in_the_way, "me"), try_again=0)
    assert log.append(frame()) is None
    in_the_way.unlink()

    late = frame()
    settle = appended(log, late)

    assert found_in(tmp_path / "state") == [late]
    settle()
    log.close()


def test_a_disk_that_refuses_is_left_alone_for_a_while(tmp_path: Path) -> None:
    """Each attempt may take as long as a disk that is about to fail."""
    in_the_way = tmp_path / "state"
    in_the_way.touch()
    log = WriteAhead(Segments(in_the_way, "me"), try_again=NEVER)
    log.append(frame())
    in_the_way.unlink()

    assert log.append(frame()) is None
    assert safety.counts()["spans_not_spooled"] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_can_be_no_record_goes_from_memory(tmp_path: Path) -> None:
    """A bug of ours must not cost a span."""
    log = WriteAhead(Segments(tmp_path, "me"))
    broken = frame()._replace(ids=((b"short", b"ids"),))

    assert log.append(broken) is None
    assert safety.guard_hits() == {"delivery.append": 1}
    appended(log, frame())()  # the disk has done nothing wrong
    log.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_file_may_not_grow_for_ever(tmp_path: Path) -> None:
    """`ulimit -f` cuts a record in its middle; the next file has room again."""
    ran = run(
        f"""
        import resource
        from agenttrace import safety
        from agenttrace.delivery.frames import Frame
        from agenttrace.delivery.segments import Segments
        from agenttrace.delivery.write_ahead import WriteAhead

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        log = WriteAhead(Segments({str(tmp_path)!r}, "me"), try_again=0)
        frames = [Frame(((bytes(16), bytes(8)),), bytes([n]) * 3_000) for n in range(9)]
        print(*(int(log.append(one) is not None) for one in frames))
        print(safety.counts()["spans_not_spooled"], safety.counts()["guard_hits"])
        """
    )

    assert ran.out.splitlines() == ["1 1 1 0 1 1 1 0 1", "2 0"], ran.err
    assert "File too large" in ran.err
    found = list(read(tmp_path, "me"))
    numbers = [frame.payload[0] for one in found for _, frame in one.frames]
    assert numbers == [0, 1, 2, 4, 5, 6, 8]
    assert not any(one.problem for one in found)


@contextmanager
def small_disk(directory: Path) -> Generator[None]:
    """Have *directory* be a file system of a mebibyte; skip where that is forbidden."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "agenttrace-test"]
    done = subprocess.run([*mount, str(directory)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)  # noqa: S607 - where it is differs


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_survived_and_used_again_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Disks fill up on all machines, on some days."""
    with small_disk(tmp_path / "disk"):
        log = WriteAhead(Segments(tmp_path / "disk", "me"), try_again=0)
        frames = [frame(attribute="x" * 100_000) for _ in range(13)]

        settles = [log.append(one) for one in frames]
        taken = [one for one, settle in zip(frames, settles, strict=True) if settle]
        found = found_in(tmp_path / "disk")
        problems = [one.problem for one in read(tmp_path / "disk", "me")]
        for settle in settles:
            if settle is not None:
                settle()
        late = frame(attribute="y" * 100_000)
        settle = appended(log, late)

        assert 8 <= len(taken) <= 10
        assert found == taken  # what was torn has been cut off
        assert set(problems) == {None}
        assert sum("No space left" in one.message for one in caplog.records) == 1
        assert safety.counts()["spans_not_spooled"] == 13 - len(taken)
        assert found_in(tmp_path / "disk") == [late]
        settle()
        log.close()
        assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_what_cannot_be_acknowledged_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has been delivered; the worst of it is that it comes twice."""
    log = WriteAhead(Segments(tmp_path, "me", segment_bytes=100))
    settles = [appended(log, frame(attribute="x" * 100)) for _ in range(3)]
    for path in sorted(tmp_path.iterdir())[:2]:
        path.unlink()
        path.mkdir()  # cannot be unlinked, nor written to

    for settle in settles:
        settle()
    log.close()

    assert sum("may be sent twice" in one.message for one in caplog.records) == 1
    assert safety.guard_hits() == {}
