"""A reader takes what is whole, counts what is damaged, and fails in known ways."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from operator import attrgetter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agenttrace.clock import COARSE
from agenttrace.journal import Journal, JournalError, State, read_journal
from agenttrace.journal.format import SLOT_SIZE
from agenttrace.model import RETURNED
from tests.journal.given import STARTED_AT, slot_of, slots_of, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrace.journal.reader import Known
    from agenttrace.registry import OpenSpan

DEADLINE = 60
numbers = st.integers(0, 9)
number_of = attrgetter("number")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Yield a journal with one span."""
    made = Journal(tmp_path, first_slots=64, on_low=lambda: None)
    made.take(span("first"))
    yield made
    made.close(remove=True)


def first_slot(journal: Journal) -> int:
    """Return where the slots begin."""
    return journal.size - journal.slots * SLOT_SIZE


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b", 0) as file:
        file.seek(offset)
        file.write(data)


def test_a_damaged_slot_costs_no_other_one(journal: Journal, tmp_path: Path) -> None:
    """Disks do that; the rest is still somebody's run."""
    journal.take(span("second"))
    journal.take(span("third"))
    copy = tmp_path / "copy"
    data = bytearray(journal.path.read_bytes())
    whole = [slot.number for slot in slots_of(journal.path)]
    data[first_slot(journal) + whole[1] * SLOT_SIZE + 89] = 99  # a kind of span

    copy.write_bytes(data)

    with read_journal(copy) as reading:
        assert [slot.number for slot in reading] == [whole[0], whole[2]]
        assert reading.damaged == 1
        assert len(list(reading)) == 2
        assert reading.damaged == 1, "each iteration counts anew"


def test_of_a_truncated_file_what_is_whole_is_read(
    journal: Journal, tmp_path: Path
) -> None:
    """A copy may be cut anywhere."""
    for _ in range(63):
        journal.take(span())
    data = journal.path.read_bytes()
    copy = tmp_path / "copy"
    start = first_slot(journal)

    for slots in (0, 1, 63):
        for torn in (0, 1, SLOT_SIZE - 1):
            copy.write_bytes(data[: start + slots * SLOT_SIZE + torn])
            assert len(slots_of(copy)) == slots


def test_a_file_that_grows_meanwhile_is_read_as_far_as_it_is(
    tmp_path: Path,
) -> None:
    """The living process waits for nobody."""
    journal = Journal(tmp_path, first_slots=512, on_low=lambda: None)
    for _ in range(512):
        journal.take(span())

    with read_journal(journal.path) as reading:
        slots = iter(reading)
        found = [next(slots)]
        journal.grow()
        for _ in range(512):
            journal.take(span())
        found += slots

    assert len({slot.span_id for slot in found}) == 1024
    journal.close(remove=True)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", os.urandom(9000)])
def test_what_is_no_journal_is_a_journal_error(tmp_path: Path, content: bytes) -> None:
    """A directory of ours may be shared with anything."""
    path = tmp_path / "other.journal"
    path.write_bytes(content)

    with pytest.raises(JournalError):
        read_journal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever looks for orphans must not hang."""
    path = tmp_path / "pipe.journal"
    os.mkfifo(path)

    with pytest.raises((OSError, JournalError)):
        read_journal(path)


def test_a_journal_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    """Its owner ended well between the listing and the opening."""
    with pytest.raises(FileNotFoundError):
        read_journal(tmp_path / "gone.journal")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has other users"
)
def test_a_journal_of_another_user_is_an_os_error(
    journal: Journal, tmp_path: Path
) -> None:
    """It is no damage, and is nobody's to count as such."""
    tmp_path.chmod(0o755)
    program = """
        import os, sys
        from pathlib import Path
        from agenttrace.journal import read_journal, take_over
        os.seteuid(65534)
        for read, path in ((read_journal, sys.argv[1]), (take_over, sys.argv[2])):
            try:
                read(Path(path))
            except PermissionError:
                print("refused")
        """

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(program),
            str(journal.path),
            str(journal.lock.path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )

    assert done.stdout.split() == ["refused", "refused"]


def test_a_slot_is_freed_by_whoever_recovered_it(tmp_path: Path) -> None:
    """A recovery that is cut half way leaves the other half."""
    journal = Journal(tmp_path, first_slots=64)
    first, second = span("first"), span("second")
    journal.take(first)
    journal.take(second)
    journal.ended(second, 5, RETURNED)
    journal.close(remove=False)

    with read_journal(journal.path, writable=True) as reading:
        for slot in reading:
            if slot.name == "first":
                reading.free(slot)

    left = slot_of(journal.path)
    assert (left.name, left.state, left.end_time) == ("second", State.ENDED, 5)


def test_a_large_journal_is_read_in_well_under_a_second(tmp_path: Path) -> None:
    """`top` reads that of every process, several times a second."""
    journal = Journal(tmp_path, first_slots=100_000, on_low=lambda: None)
    spans = [span(f"step {number % 20}") for number in range(1000)]
    for record in spans:
        journal.take(record)

    began = time.process_time()
    found = slots_of(journal.path)
    took = time.process_time() - began

    assert len(found) == 1000
    assert took < 0.5
    journal.close(remove=True)


@given(st.lists(st.tuples(st.sampled_from(["take", "beat", "end", "free"]), numbers)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_second_look_sees_what_a_first_one_would(
    journal: Journal, steps: list[tuple[str, int]]
) -> None:
    """What is kept of a look is never told of another span, or of another state."""
    taken: list[OpenSpan] = []
    known: Known = {}
    with read_journal(journal.path) as reading:
        for what, number in steps:
            if what == "take" or not taken:
                taken.append(span(f"span {number}"))
                journal.take(taken[-1])
            elif what == "beat":
                COARSE.renew()
                taken[number % len(taken)].beat()
            elif what == "end":
                journal.ended(taken[number % len(taken)], STARTED_AT, RETURNED)
            else:
                journal.free(taken.pop(number % len(taken)))

            looked = [slot._replace(last_beat=at) for slot, at in reading.look(known)]

            assert sorted(looked, key=number_of) == list(reading)
    for left in taken:
        journal.free(left)


def test_a_second_look_reads_only_what_has_changed(journal: Journal) -> None:
    """Thousands of open spans are looked at several times a second."""
    known: Known = {}
    with read_journal(journal.path) as reading:
        [(before, _)] = reading.look(known)
        journal.take(span("second"))
        (first, _), (second, _) = reading.look(known)

    assert first is before
    assert second.name == "second"
