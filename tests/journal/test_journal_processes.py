"""A journal that is killed, or read while it is written, tells no untruth."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from agenttrace.journal import Journal, State, read_journal, take_over
from agenttrace.model import EndedBy, Ending, Outcome
from tests.journal.given import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.journal import Slot

DEADLINE = 60
KILLS = 30

# Every fact of a span follows from its number, so that a mixture is seen.
WRITER = """
import os, random, sys
from pathlib import Path
from agenttrace.clock import COARSE
from agenttrace.journal import Journal
from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from tests.journal.given import Step, span

FAILED = Ending(Outcome.ERROR, EndedBy.EXCEPTION, error=KeyError())
step = Step()
journal = Journal(Path(sys.argv[1]), first_slots=64)
os.write(1, (str(journal.path) + chr(10)).encode())

def start(number):
    record = span(f"step {number % 50}", step, max_duration=float(number))
    record.trace_id = number.to_bytes(16, "big")
    record.span_id = number.to_bytes(8, "big")
    record.parent_id = number.to_bytes(8, "big")
    record.started_at = number
    record.thread_id = number
    journal.take(record)
    return record

def end(record, number):
    journal.ended(record, number + 1, FAILED if number % 3 == 0 else RETURNED)

# What is certain: these stay open, and stay ended.
for number in range(1, 11):
    start(number)
for number in range(11, 21):
    end(start(number), number)
os.write(1, b"go" + chr(10).encode())

number, alive = 21, []
while True:
    for _ in range(random.randrange(1, 300)):
        alive.append((start(number), number))
        number += 1
    random.shuffle(alive)
    while len(alive) > 20:
        record, its_number = alive.pop()
        COARSE.now = its_number
        record.beat()
        end(record, its_number)
        journal.free(record)
    journal.tick()
"""


def check(slot: Slot) -> int:
    """Assert that all of *slot* is of one span; return its number."""
    number = slot.started_at
    as_id = number.to_bytes(8, "big")
    assert slot.trace_id == bytes(8) + as_id
    assert slot.span_id == slot.parent_id == as_id
    assert slot.name == f"step {number % 50}"
    assert slot.thread_id == slot.max_duration == slot.last_beat == number
    if slot.state is State.ENDED:
        assert slot.end_time == number + 1
        failed = number % 3 == 0
        assert slot.outcome is (Outcome.ERROR if failed else Outcome.OK)
        assert slot.error_type == ("KeyError" if failed else None)
    return number


def line_of(process: subprocess.Popen[bytes]) -> str:
    output: IO[bytes] | None = process.stdout
    assert output is not None
    return output.readline().decode().strip()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that starts and ends spans as fast as it can."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate(timeout=DEADLINE)


def test_a_reader_never_sees_two_spans_in_one_slot(
    writer: subprocess.Popen[bytes],
) -> None:
    """`top` would show a step that never was, below a parent that is not its own."""
    path = Path(line_of(writer))
    assert line_of(writer) == "go"
    seen: set[int] = set()
    end_at = time.monotonic() + 3

    with read_journal(path) as reading:
        while time.monotonic() < end_at:
            numbers = [check(slot) for slot in reading]
            assert reading.damaged == 0
            assert set(range(1, 21)) <= set(numbers)
            seen.update(numbers)

    assert len(seen) > 1000


def test_a_killed_process_leaves_what_was_certain_and_nothing_torn(
    tmp_path: Path,
) -> None:
    """SIGKILL comes between any two instructions."""
    chance = random.Random(7)  # noqa: S311 - instants, no secrets

    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", PATHS + WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
        )
        path = Path(line_of(process))
        assert line_of(process) == "go"
        threading.Event().wait(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE)

        lock = take_over(path.with_suffix(".lock"))
        assert lock is not None
        with read_journal(path) as reading:
            found = {check(slot): slot.state for slot in reading}
            assert reading.damaged == 0
        assert {found[number] for number in range(1, 11)} == {State.OPEN}
        assert {found[number] for number in range(11, 21)} == {State.ENDED}
        path.unlink()
        lock.release(remove=True)


# The directory of the repository first: `pytest` does not put it on the path itself.
PATHS = f"import sys; sys.path[:] = ['', *{sys.path!r}]\n"


ON_A_FULL_DISK = """
import contextlib, errno, sys
from pathlib import Path
from agenttrace.journal import Journal
from agenttrace.model import RETURNED
from tests.journal.given import span

directory = Path(sys.argv[1])
journal = Journal(directory, first_slots=64, on_low=lambda: None)
print(journal.grow())
with (directory / "filling").open("wb", 0) as file, contextlib.suppress(OSError):
    while file.write(bytes(4096)):
        pass
print(journal.grow())
records = [span() for _ in range(1000)]
for record in records:
    journal.take(record)
for record in records:
    journal.ended(record, 1, RETURNED)
    journal.free(record)
print(journal.slots == 128)
try:
    Journal(directory)
except OSError as error:
    print(errno.errorcode[error.errno])
print(len(list(directory.glob("*.lock"))))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0,
    reason="only root may mount a file system",
)
def test_a_full_file_system_kills_nobody(tmp_path: Path) -> None:
    """To write into a hole of a file on a full disk is SIGBUS."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)],  # noqa: S607 - mount is where it is
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("not even root may mount here")
    try:
        done = subprocess.run(
            [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)  # noqa: S607 - as above

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False", "True", "ENOSPC", "1"]


def test_threads_do_not_get_each_others_slots(tmp_path: Path) -> None:
    """No lock is taken: what keeps them apart is one step each."""
    journal = Journal(tmp_path, first_slots=64)
    failed = Ending(Outcome.ERROR, EndedBy.EXCEPTION)
    errors: list[str] = []

    def work(number: int) -> None:
        for _ in range(2000):
            record = span(f"thread {number}", started_at=number)
            journal.take(record)
            word, words = record.word, record.words
            if words[word] != number:
                errors.append(f"{words[word]} instead of {number}")
            journal.ended(record, 1, failed)
            journal.free(record)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert errors == []
    with read_journal(journal.path) as reading:
        assert list(reading) == []
    journal.close(remove=True)
