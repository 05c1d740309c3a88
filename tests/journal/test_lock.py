"""Whoever gets the lock of an instance knows that its process is dead."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from agenttrace.journal.lock import hold, take_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.journal.lock import InstanceLock

DEADLINE = 60
PRELUDE = """
import os, sys
from pathlib import Path
from agenttrace.journal.lock import hold, take_over

directory = Path(sys.argv[1])
path = directory / "7-a.lock"

def say(word):
    os.write(1, (str(word) + chr(10)).encode())

def wait():
    sys.stdin.readline()
"""
HOLDER = "lock = hold(directory, '7-a'); say('held'); wait()"
FINDER = "wait(); found = take_over(path); say(found is not None); wait()"

# Between opening and locking, where whatever happens must not matter.
WAITS_TO_LOCK = """
def hook(event, _):
    if event == "fcntl.lockf":
        say("opened"); wait()

sys.addaudithook(hook)
"""


class Processes:
    """Processes that have the prelude's names, and are gone when the test is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, body: str) -> subprocess.Popen[str]:
        """Run *body* after the prelude."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PRELUDE + textwrap.dedent(body),
                str(self._directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """End what still runs."""
        for process in self._started:
            process.kill()
            process.communicate(timeout=DEADLINE)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Yield what starts processes."""
    started = Processes(tmp_path)
    yield started
    started.end()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[InstanceLock]:
    """Yield a lock of this process."""
    lock = hold(tmp_path, "7-a")
    yield lock
    lock.release(remove=True)


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE)


def test_the_lock_of_a_living_process_is_not_given_away(
    processes: Processes, tmp_path: Path
) -> None:
    """Its spans would be told as lost while they run."""
    owner = processes.start(HOLDER)
    assert heard(owner) == "held"

    assert take_over(tmp_path / "7-a.lock") is None


def test_the_lock_of_a_killed_process_is_taken_over(
    processes: Processes, tmp_path: Path
) -> None:
    """The kernel frees it, whatever the process died of."""
    owner = processes.start(HOLDER)
    assert heard(owner) == "held"
    kill(owner)

    lock = take_over(tmp_path / "7-a.lock")

    assert lock is not None
    assert lock.is_held
    lock.release(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_a_process_does_not_take_over_its_own_lock(
    processes: Processes, held: InstanceLock, tmp_path: Path
) -> None:
    """POSIX would let it, and would free the lock when it closes the file."""
    other_name = tmp_path / "other.lock"
    other_name.hardlink_to(held.path)

    assert take_over(held.path) is None
    assert take_over(other_name) is None

    finder = processes.start(FINDER)
    tell(finder)
    assert heard(finder) == "False"


def test_what_was_taken_over_is_held_until_it_is_released(
    processes: Processes, tmp_path: Path
) -> None:
    """Two that recover one orphan tell its spans twice."""
    (tmp_path / "7-a.lock").touch()
    mine = take_over(tmp_path / "7-a.lock")
    assert mine is not None
    finder, next_one = processes.start(FINDER), processes.start(FINDER)

    tell(finder)
    while_held = heard(finder)
    mine.release(remove=False)
    tell(next_one)

    assert while_held == "False"
    assert heard(next_one) == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_that_lives_on_does_not_keep_its_parents_lock(
    processes: Processes, tmp_path: Path
) -> None:
    """Pre-forking servers have such children, and their parents get killed, too."""
    owner = processes.start(
        """
        lock = hold(directory, '7-a')
        if os.fork() == 0:
            say("child, held: %s" % lock.is_held)
            lock.release(remove=True)
            wait()
            os._exit(0)
        wait()
        """
    )
    assert heard(owner) == "child, held: False"
    assert take_over(tmp_path / "7-a.lock") is None, "the child has let it go"
    kill(owner)

    lock = take_over(tmp_path / "7-a.lock")

    assert lock is not None
    lock.release(remove=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_may_look_at_its_parents_lock(
    processes: Processes, tmp_path: Path
) -> None:
    """It is another process now: to look takes nothing from the parent."""
    owner = processes.start(
        """
        lock = hold(directory, '7-a')
        if os.fork() == 0:
            say(take_over(path))
            own = hold(directory, '8-b')
            say(own.is_held)
            os._exit(0)
        os.wait()
        say("alive")
        wait()
        """
    )

    assert [heard(owner) for _ in range(3)] == ["None", "True", "alive"]
    assert take_over(tmp_path / "7-a.lock") is None


def test_of_many_finders_exactly_one_gets_it(processes: Processes) -> None:
    """The siblings of a dead worker all look at once."""
    owner = processes.start(HOLDER)
    finders = [processes.start(FINDER) for _ in range(4)]
    assert heard(owner) == "held"
    kill(owner)

    for finder in finders:
        tell(finder)

    assert sorted(heard(finder) for finder in finders) == ["False"] * 3 + ["True"]


def test_a_file_that_was_deleted_before_it_was_locked_is_not_taken(
    processes: Processes, tmp_path: Path
) -> None:
    """The finder before has dealt with it; whoever comes later makes a file anew."""
    (tmp_path / "7-a.lock").touch()
    before = take_over(tmp_path / "7-a.lock")
    assert before is not None
    finder = processes.start(WAITS_TO_LOCK + "say(take_over(path))")
    assert heard(finder) == "opened"
    before.release(remove=True)
    (tmp_path / "7-a.lock").touch()

    tell(finder)

    assert heard(finder) == "None"


def test_an_owner_whose_file_was_deleted_makes_another(
    processes: Processes, tmp_path: Path
) -> None:
    """A finder locks it as soon as it is there, and takes it for a dead process's."""
    owner = processes.start(
        WAITS_TO_LOCK + "lock = hold(directory, '7-a'); say('held'); wait()"
    )
    assert heard(owner) == "opened"
    (tmp_path / "7-a.lock").unlink()

    tell(owner)

    assert heard(owner) == "opened"
    tell(owner)
    assert heard(owner) == "held"
    assert take_over(tmp_path / "7-a.lock") is None


def test_an_owner_outlasts_a_finder_who_came_between(
    processes: Processes, tmp_path: Path
) -> None:
    """Between creating its file and locking it, it looks like a dead one's."""
    (tmp_path / "7-a.lock").touch()
    finder = processes.start(
        "lock = take_over(path); say('taken'); wait(); lock.release(remove=True)"
    )
    assert heard(finder) == "taken"
    owner = processes.start(
        "say('comes'); lock = hold(directory, '7-a'); say('held'); wait()"
    )
    assert heard(owner) == "comes"

    tell(finder)

    assert heard(owner) == "held"
    assert take_over(tmp_path / "7-a.lock") is None


def test_a_platform_without_file_locks_is_an_os_error(tmp_path: Path) -> None:
    """The package is imported there like anywhere, and spans stay in memory."""
    program = """
        import sys
        from pathlib import Path
        sys.modules["fcntl"] = None
        from agenttrace.journal import Journal
        try:
            Journal(Path(sys.argv[1]))
        except OSError as error:
            print(error)
        """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )

    assert "no file locks on this platform" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_gone_is_nobodys(tmp_path: Path) -> None:
    """Somebody else was faster, and that is no error."""
    assert take_over(tmp_path / "7-a.lock") is None


def test_a_second_release_does_nothing(tmp_path: Path) -> None:
    """The file may be another instance's by then, and the descriptor a socket."""
    lock = hold(tmp_path, "7-a")
    lock.release(remove=True)
    lock.path.touch()

    lock.release(remove=True)

    assert lock.path.exists()
    assert not lock.is_held


def test_the_lock_file_is_private(held: InstanceLock) -> None:
    """Whoever can open it can hold it, and would pass for its process."""
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o600


def test_a_directory_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """The one exception on which callers go on without a journal."""
    with pytest.raises(OSError, match="not-there"):
        hold(tmp_path / "not-there", "7-a")


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc")
def test_a_file_that_cannot_be_locked_is_an_os_error_that_says_so(
    tmp_path: Path,
) -> None:
    """As on a file system without locks."""
    link = tmp_path / "7-a.lock"
    link.symlink_to("/dev/null")

    with pytest.raises(OSError, match=r"7-a\.lock"):
        take_over(link)
