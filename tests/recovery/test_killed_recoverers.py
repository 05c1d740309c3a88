"""Whatever a process was killed in, whoever recovers it: every span, in one form."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrace.delivery.otlp import frame_of
from agenttrace.journal import State
from agenttrace.journal.format import PAYLOAD_START, SLOT_SIZE
from agenttrace.model import Outcome, ResourceData
from agenttrace.recovery import span_of
from tests.recovery.given import (
    FIRST,
    OTHER,
    POINTS,
    SECOND,
    TICK,
    Backend,
    Child,
    Forms,
    bury,
    forms_in,
    frame_of_spans,
    framed,
    names_in,
    recover,
    recover_in_child,
    slot,
)

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame
    from agenttrace.journal import Slot

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

RESOURCE = ResourceData({"service.name": "support"})


def made_of(*slots: Slot) -> Forms:
    """Return what arrives of *slots*."""
    payload = frame_of([span_of(one, TICK, RESOURCE) for one in slots]).payload
    return {span_id: {form} for span_id, form in forms_in(payload)}


class Fate(NamedTuple):
    """What had become of one span when its process was killed.

    Args:
        state: Of its slot; None where it has none.
        outcome: How it ended, if it has.
        sampled: Whether it is exported.
        frame: Where a frame of it stands: not at all, not settled, or settled.
        home: In which journal it stands.
        elsewhere: Whether its frame is another journal's of the same process.
    """

    state: State | None
    outcome: Outcome
    sampled: bool
    frame: str
    home: str
    elsewhere: bool


FATES = st.builds(
    Fate,
    state=st.sampled_from([None, State.OPEN, State.ENDED, State.JUDGED]),
    outcome=st.sampled_from([Outcome.OK, Outcome.ERROR, Outcome.CANCELLED]),
    sampled=st.sampled_from([True, True, True, False]),
    frame=st.sampled_from(["", "", "open", "settled"]),
    home=st.sampled_from([FIRST, SECOND, OTHER]),
    elsewhere=st.booleans(),
)
KILLS = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 3)), max_size=4)
SIBLING = {FIRST: SECOND, SECOND: FIRST, OTHER: OTHER}


def bury_all(directory: Path, fates: list[Fate]) -> Forms:
    """Leave what processes with such *fates* leave; return what is to arrive."""
    expected: Forms = {}
    for instance in (FIRST, SECOND, OTHER):
        slots: list[Slot] = []
        frames: list[Frame] = []
        settled: list[Frame] = []
        for number, fate in enumerate(fates, start=1):
            if fate.home == instance and fate.state is not None:
                one = slot(number, fate.state, fate.outcome, sampled=fate.sampled)
                slots.append(one)
                is_told = fate.frame or fate.state is State.JUDGED or not fate.sampled
                if not is_told:
                    expected.update(made_of(one))
            written = SIBLING[fate.home] if fate.elsewhere else fate.home
            if written == instance and fate.frame == "open":
                frames.append(frame_of_spans(number))
                expected.update(framed(number))
            elif written == instance and fate.frame == "settled":
                settled.append(frame_of_spans(number))
        bury(directory, instance, slots, frames, settled)
    return expected


@settings(max_examples=60)
@given(fates=st.lists(FATES, max_size=12), kills=KILLS)
def test_every_span_arrives_in_one_form_however_often_its_recoverer_is_killed(
    fates: list[Fate], kills: list[tuple[str, int]]
) -> None:
    """A dashboard that shows two ends of one span shows at least one that is wrong."""
    with tempfile.TemporaryDirectory() as parent:
        directory, log = Path(parent, "instances"), Path(parent, "log")
        expected = bury_all(directory, fates)
        backend = Backend(log)

        codes = {recover_in_child(directory, log, *kill) for kill in kills}
        recover(directory, backend)

        assert codes <= {0, -9}
        assert backend.forms() == expected
        assert names_in(directory) == []


@pytest.mark.parametrize("point", POINTS)
def test_a_recoverer_can_be_killed_at_every_point(point: str, tmp_path: Path) -> None:
    """A point that no recovery comes to would make the test above prove less."""
    directory, log = tmp_path / "instances", tmp_path / "log"
    slots = [slot(number, State.OPEN) for number in range(1, 200)]
    bury(directory, FIRST, slots, frames=[frame_of_spans(500)])
    backend = Backend(log)

    code = recover_in_child(directory, log, point)
    left = names_in(directory)
    recover(directory, backend)

    assert code == -9
    assert f"{FIRST}.lock" in left
    assert backend.forms() == made_of(*slots) | framed(500)
    assert names_in(directory) == []


def test_a_span_in_a_settled_frame_is_not_told_again_when_its_recoverer_is_killed(
    tmp_path: Path,
) -> None:
    """The segment goes at once: whoever comes next has nothing else to know it from."""
    directory, log = tmp_path / "instances", tmp_path / "log"
    bury(directory, FIRST, [slot(1, State.ENDED)], settled=[frame_of_spans(1)])
    backend = Backend(log)

    recover_in_child(directory, log, "journal removed")
    is_left = (directory / f"{FIRST}.lock").exists()
    recover(directory, backend)

    assert is_left
    assert backend.arrived() == []


def test_a_span_whose_frame_stands_in_the_spool_of_another_journal_is_told_once(
    tmp_path: Path,
) -> None:
    """After a second `configure()` a span of the first journal ends in the second."""
    directory = tmp_path / "instances"
    bury(directory, FIRST, [slot(1, State.ENDED), slot(2, State.OPEN)])
    bury(directory, SECOND, [slot(3, State.OPEN)], frames=[frame_of_spans(1)])
    backend = Backend(tmp_path / "log")

    recover(directory, backend)

    expected = made_of(slot(2), slot(3)) | framed(1)
    assert backend.forms() == expected
    assert len(backend.arrived()) == 3


def test_many_recoverers_at_once_send_every_span_once(tmp_path: Path) -> None:
    """Siblings that are restarted together all look into the same directory."""
    directory, log = tmp_path / "instances", tmp_path / "log"
    instances = [f"{pid}-0123456789ab000{at}" for pid in range(10, 30) for at in (0, 1)]
    expected: Forms = {}
    for at, instance in enumerate(instances):
        slots = [slot(1000 * at + number) for number in range(1, 150)]
        framed_span = 1000 * at + 500
        bury(directory, instance, slots, frames=[frame_of_spans(framed_span)])
        expected |= made_of(*slots) | framed(framed_span)
    reading, writing = os.pipe()

    def body() -> None:
        os.read(reading, 1)  # all at once
        for _ in range(2):
            recover(directory, Backend(log))

    children = [Child(body) for _ in range(4)]
    os.write(writing, b"-" * len(children))
    codes = [child.wait() for child in children]
    os.close(reading)
    os.close(writing)

    backend = Backend(log)
    assert codes == [0] * len(children)
    assert backend.forms() == expected
    assert len(backend.arrived()) == len(expected)
    assert names_in(directory) == []


DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["journal", "spool"]),
        st.sampled_from(["cut", "flip", "grow", "empty", "gone"]),
        st.integers(0, 2**16),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=4,
)


def damage(directory: Path, what: str, how: str, at: int, bits: int) -> None:
    """Do to the files what disks and people do to them."""
    for path in sorted(directory.glob(f"*.{what}")):
        data = bytearray(path.read_bytes())
        match how:
            case "cut":
                path.write_bytes(data[: at % (len(data) + 1)])
            case "flip" if data:
                data[at % len(data)] ^= bits
                path.write_bytes(data)
            case "grow":
                path.write_bytes(data + bytes([bits]) * (at % 2000))
            case "gone":
                path.unlink()
            case _:
                path.write_bytes(b"")
        break


@settings(max_examples=150)
@given(fates=st.lists(FATES, max_size=8), damages=DAMAGE, kills=KILLS)
def test_damaged_files_are_never_fatal_and_tell_nothing_twice(
    fates: list[Fate],
    damages: list[tuple[str, str, int, int]],
    kills: list[tuple[str, int]],
) -> None:
    """Disks do that.  What cannot be read is lost, and nothing else."""
    with tempfile.TemporaryDirectory() as parent:
        directory, log = Path(parent, "instances"), Path(parent, "log")
        bury_all(directory, fates)
        for one in damages:
            damage(directory, *one)
        backend = Backend(log)

        codes = {recover_in_child(directory, log, *kill) for kill in kills[:2]}
        found = recover(directory, backend)

        forms = backend.forms()
        assert codes <= {0, -9}
        # What a frame says nothing else says, whatever the slots have become.
        framed_ones = [some for some in forms.values() if _has_frame(some)]
        assert all(len(some) == 1 for some in framed_ones)
        # Files stay only where they say that a newer agenttrace wrote them.
        assert (names_in(directory) == []) == (found.failed == 0)


def _has_frame(forms: set[str]) -> bool:
    return any(b"framed".hex() in form for form in forms)


def test_of_a_torn_slot_only_that_one_is_left_out(tmp_path: Path) -> None:
    """A file system that lost the end of a file has not lost its beginning."""
    directory = tmp_path / "instances"
    bury(directory, FIRST, [slot(1), slot(2), slot(3)])
    journal = directory / f"{FIRST}.journal"
    data = bytearray(journal.read_bytes())
    start = len(data) - 2 * SLOT_SIZE
    data[start + PAYLOAD_START + 24 : start + PAYLOAD_START + 48] = bytes(24)
    journal.write_bytes(data[:-1])
    backend = Backend(tmp_path / "log")

    found = recover(directory, backend)

    assert backend.forms() == made_of(slot(1))
    assert found.damaged == 1
    assert names_in(directory) == []
