"""Looking at the processes of a directory changes nothing for any of them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agenttrace.delivery.segment_files import path_of
from agenttrace.journal import Journal, hold, is_alive, take_over
from agenttrace.recovery import survey

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
TAKES_OVER = """
import sys
from pathlib import Path
from agenttrace.journal import is_alive, take_over

path = Path(sys.argv[1])
print(is_alive(path), take_over(path) is not None)
"""


def seen_by_another(path: Path) -> str:
    """Return whether another process sees it alive, and can take it over."""
    ran = subprocess.run(
        [sys.executable, "-c", TAKES_OVER, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()


def test_a_lock_of_our_own_is_alive_and_stays_ours(tmp_path: Path) -> None:
    """Closing a descriptor of it would free it, and the living would be recovered."""
    lock = hold(tmp_path, "1-a")
    beside = tmp_path / "link.lock"
    beside.hardlink_to(lock.path)

    assert is_alive(lock.path)
    assert is_alive(beside)

    assert seen_by_another(lock.path) == "True False"
    lock.release(remove=True)


def test_a_lock_that_nobody_holds_is_dead_and_can_still_be_taken_over(
    tmp_path: Path,
) -> None:
    """Who looks must not keep out who acts."""
    hold(tmp_path, "1-a").release(remove=False)

    assert not is_alive(tmp_path / "1-a.lock")

    assert seen_by_another(tmp_path / "1-a.lock") == "False True"


def test_a_lock_that_is_gone_says_so(tmp_path: Path) -> None:
    """Neither alive nor dead: its process has ended well meanwhile."""
    with pytest.raises(FileNotFoundError):
        is_alive(tmp_path / "1-a.lock")


def test_the_living_the_dead_and_what_is_left_are_told_apart(tmp_path: Path) -> None:
    """With what of each stands on disk."""
    journal = Journal(tmp_path)
    hold(tmp_path, "2-b").release(remove=False)
    path_of(tmp_path, "2-b", 1).write_bytes(bytes(30))
    path_of(tmp_path, "2-b", 2).write_bytes(bytes(12))
    (tmp_path / "stray.journal").write_bytes(bytes(7))

    found = {each.name: each for each in survey(tmp_path)}

    size = journal.size
    assert journal.path.stat().st_size == size
    assert found.pop(journal.instance)[1:] == (True, size, 0)
    assert found["2-b"][1:] == (False, 0, 42)
    assert found["2-b"].pid == 2
    assert found["stray"][1:] == (None, 7, 0)
    assert found["stray"].pid is None
    journal.close(remove=True)


def test_where_there_is_no_directory_there_is_nobody(tmp_path: Path) -> None:
    """It is made by the first process that traces."""
    assert survey(tmp_path / "nowhere") == []


def test_what_was_taken_over_here_is_alive(tmp_path: Path) -> None:
    """A recovery that is under way is not to be joined by whoever looks."""
    hold(tmp_path, "1-a").release(remove=False)
    lock = take_over(tmp_path / "1-a.lock")
    assert lock is not None

    assert is_alive(lock.path)

    lock.release(remove=True)
