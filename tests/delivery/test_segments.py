"""What is appended is on disk until it is settled, and not a moment longer."""

from __future__ import annotations

import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agenttrace import safety
from agenttrace.delivery.frames import HEADER_SIZE, Frame, header, record_of
from agenttrace.delivery.segment_files import Place, by_instance, path_of, read
from agenttrace.delivery.segments import Segments
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 1 << 20


def found_in(directory: Path, instance: str = "me") -> list[Frame]:
    """Return the frames that a reader finds unsettled."""
    return [one for found in read(directory, instance) for _, one in found.frames]


def files_in(directory: Path) -> list[str]:
    """Return what is in *directory*."""
    return sorted(path.name for path in directory.iterdir())


def test_a_frame_is_on_disk_once_it_is_appended(tmp_path: Path) -> None:
    """By then its slot in the journal is free."""
    segments = Segments(tmp_path, "me")
    frames = [frame(), frame()]

    places = [segments.append(one) for one in frames]

    assert found_in(tmp_path) == frames
    assert [(place.segment, place.start) for place in places] == [
        (1, HEADER_SIZE),
        (1, places[0].end),
    ]
    assert segments.size == path_of(tmp_path, "me", 1).stat().st_size
    segments.close()


def test_no_file_is_made_before_there_is_a_frame(tmp_path: Path) -> None:
    """Most processes on a machine trace nothing, and making one takes a disk."""
    segments = Segments(tmp_path / "state", "me")

    segments.rest()
    segments.close()

    assert files_in(tmp_path) == []


def test_files_are_for_this_user_alone(tmp_path: Path) -> None:
    """There are prompts in them, where content was asked for."""
    segments = Segments(tmp_path / "a" / "b", "me")
    segments.append(frame())

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE(path_of(tmp_path / "a" / "b", "me", 1).stat().st_mode) == 0o600
    segments.close()


def test_a_settled_frame_is_not_found_again(tmp_path: Path) -> None:
    """It would be sent twice."""
    segments = Segments(tmp_path, "me")
    frames = [frame(), frame(), frame()]
    places = [segments.append(one) for one in frames]

    segments.settle(places[0])

    assert found_in(tmp_path) == frames[1:]
    segments.close()


def test_frames_may_be_settled_in_any_order(tmp_path: Path) -> None:
    """One that is refused does not wait for one that is retried."""
    segments = Segments(tmp_path, "me")
    frames = [frame(), frame(), frame(), frame()]
    places = [segments.append(one) for one in frames]

    segments.settle(places[2])
    segments.settle(places[1])
    between = found_in(tmp_path)
    segments.settle(places[0])
    segments.settle(places[0])  # as often as anybody likes

    assert between == frames
    assert found_in(tmp_path) == frames[3:]
    segments.close()


def test_a_full_segment_goes_when_all_of_it_is_settled(tmp_path: Path) -> None:
    """A disk is not for what has been delivered."""
    size = len(record_of(frame()))
    segments = Segments(tmp_path, "me", segment_bytes=HEADER_SIZE + 2 * size)
    places = [segments.append(frame()) for _ in range(5)]
    before = files_in(tmp_path)

    for place in places[:3]:
        segments.settle(place)

    assert [place.segment for place in places] == [1, 1, 2, 2, 3]
    assert before == [f"me.0000000{number}.spool" for number in (1, 2, 3)]
    assert files_in(tmp_path) == before[1:]
    assert segments.size == 2 * HEADER_SIZE + 3 * size
    segments.close()


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    """It must not be lost for its size."""
    segments = Segments(tmp_path, "me", segment_bytes=100)
    frames = [frame(), Frame(frame().ids, bytes(1_000)), frame()]

    places = [segments.append(one) for one in frames]

    assert [place.segment for place in places] == [1, 2, 3]
    assert found_in(tmp_path) == frames
    segments.close()


def test_an_idle_log_shrinks_to_nothing(tmp_path: Path) -> None:
    """A quiet service leaves no file behind, however it ends."""
    segments = Segments(tmp_path, "me")
    early, late = segments.append(frame()), segments.append(frame())
    segments.settle(early)

    segments.rest()
    segments.settle(late)
    first = files_in(tmp_path)
    segments.settle(segments.append(frame()))
    second = files_in(tmp_path)
    segments.rest()

    assert first == []
    assert second == ["me.00000002.spool"]  # more may be about to come
    assert files_in(tmp_path) == []
    assert segments.size == 0


@pytest.mark.parametrize("last", [Segments.rest, Segments.close])
def test_what_could_not_be_removed_is_removed_when_it_can_be(
    tmp_path: Path, last: Callable[[Segments], None]
) -> None:
    """Nobody else would find it: a process that ends well leaves no lock."""
    segments = Segments(tmp_path, "me")
    place = segments.append(frame())
    (path,) = tmp_path.iterdir()
    kept = path.rename(tmp_path / "kept")
    path.mkdir()  # cannot be unlinked, as nothing can while a disk is read-only
    segments.settle(place)
    with pytest.raises(OSError, match=path.name):
        segments.rest()
    path.rmdir()
    kept.rename(path)

    last(segments)

    assert files_in(tmp_path) == []
    assert segments.size == 0


def test_what_is_not_settled_stays_when_it_is_closed(tmp_path: Path) -> None:
    """It is for the next process; a late answer can still come."""
    segments = Segments(tmp_path, "me")
    frames = [frame(), frame()]
    places = [segments.append(one) for one in frames]

    segments.close()
    left = found_in(tmp_path)
    for place in places:
        segments.settle(place)

    assert left == frames
    assert files_in(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        segments.append(frame())


def test_everything_can_be_removed(tmp_path: Path) -> None:
    """For whoever has told of it in another way."""
    segments = Segments(tmp_path, "me", segment_bytes=100)
    for _ in range(3):
        segments.append(frame())

    segments.close(remove=True)

    assert files_in(tmp_path) == []


def test_files_of_an_earlier_life_are_not_touched(tmp_path: Path) -> None:
    """A runtime is configured anew while the old one's frames still wait."""
    earlier = Segments(tmp_path, "me")
    kept = frame()
    earlier.append(kept)
    earlier.close()

    later = Segments(tmp_path, "me")
    place = later.append(frame())

    assert place.segment == 2
    later.settle(place)
    later.close()
    assert found_in(tmp_path) == [kept]


def test_a_file_that_somebody_removes_is_replaced(tmp_path: Path) -> None:
    """One that is open takes what is written after that, and loses it."""
    segments = Segments(tmp_path / "state", "me")
    lost = segments.append(frame())
    segments.rest()
    shutil.rmtree(tmp_path / "state")

    late = frame()
    place = segments.append(late)
    segments.settle(lost)

    assert found_in(tmp_path / "state") == [late]
    segments.settle(place)
    segments.close()
    assert files_in(tmp_path / "state") == []


def test_an_adopted_log_is_settled_where_the_dead_process_left_it(
    tmp_path: Path,
) -> None:
    """Recovery may be killed half way, too."""
    dead = Segments(tmp_path, "dead", segment_bytes=100)
    frames = [frame(), frame(), frame()]
    places = [dead.append(one) for one in frames]
    dead.settle(places[0])

    adopted = Segments.adopt(tmp_path, "dead")
    recovered = frame()
    added = adopted.append(recovered)
    found = [pair for one in read(tmp_path, "dead") for pair in one.frames]
    adopted.settle(places[1])

    assert found == [
        (places[1], frames[1]),
        (places[2], frames[2]),
        (added, recovered),
    ]
    assert found_in(tmp_path, "dead") == [frames[2], recovered]
    for place in (places[2], added):
        adopted.settle(place)
    adopted.close()
    assert files_in(tmp_path) == []


def test_what_cannot_be_read_is_told_and_left_alone(tmp_path: Path) -> None:
    """It may be a newer agenttrace's; a damaged one must not cost the others."""
    safety.reset_for_tests()
    whole = frame()
    contents = {
        1: b"ATSPOOL\0\2\0\0\0" + bytes(12),
        2: header() + record_of(whole) + b"torn",
        3: header()[:10],
        4: b"",
    }
    for number, data in contents.items():
        path_of(tmp_path, "dead", number).write_bytes(data)
    path_of(tmp_path, "dead", 5).mkdir()

    found = list(read(tmp_path, "dead"))
    adopted = Segments.adopt(tmp_path, "dead")
    after_adopting = files_in(tmp_path)
    for one in found:
        for place, _ in one.frames:
            adopted.settle(place)
    place = adopted.append(frame())

    assert [one.number for one in found] == [1, 2, 3, 4, 5]
    assert all(one.problem for one in found)
    assert "version 2" in str(found[0].problem)
    assert [one for _, one in found[1].frames] == [whole]
    assert safety.counts()["segments_damaged"] == 5
    assert [name.split(".")[1][-1] for name in after_adopting] == ["1", "2", "5"]
    assert place.segment == 6
    adopted.settle(place)
    adopted.close()
    assert [name.split(".")[1][-1] for name in files_in(tmp_path)] == ["1", "5"]
    safety.reset_for_tests()


def test_the_instances_of_a_directory_are_those_of_its_files(tmp_path: Path) -> None:
    """Recovery begins with the question whose files these are."""
    for name in ("a.b.00000001.spool", "c.00000123.spool", "c.lock", "d.1.spool"):
        (tmp_path / name).touch()

    assert set(by_instance(tmp_path)) == {"a.b", "c"}
    assert list(read(tmp_path / "absent", "c")) == []


@pytest.mark.parametrize("instance", ["", "a/b", "../a", "a\0"])
def test_an_instance_that_would_lead_elsewhere_is_an_error(
    tmp_path: Path, instance: str
) -> None:
    """It becomes part of a path."""
    with pytest.raises(ValueError, match="file's name"):
        Segments(tmp_path, instance)


class LogMachine(RuleBasedStateMachine):
    """Whatever the order of events: what is not settled can be read, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.segments = Segments(self.directory, "me", segment_bytes=300)
        self.written: list[Frame] = []
        self.waiting: dict[Place, Frame] = {}

    def teardown(self) -> None:
        for place in list(self.waiting):
            self.segments.settle(place)
        self.segments.close()
        assert files_in(self.directory) == []
        self.stack.close()

    @rule(size=st.integers(0, 400))
    def append(self, size: int) -> None:
        """Let a frame come."""
        one = Frame(frame().ids, bytes(size))
        self.written.append(one)
        self.waiting[self.segments.append(one)] = one

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Let one of them be settled."""
        place = data.draw(st.sampled_from(list(self.waiting)))
        self.segments.settle(place)
        del self.waiting[place]

    @rule()
    def rest(self) -> None:
        """Let nothing come for a while."""
        self.segments.rest()
        assert bool(self.waiting) == bool(files_in(self.directory))

    @rule()
    def die(self) -> None:
        """Let the process be killed, and the next one go on where it was."""
        self.segments.abandon()
        self.waiting = {
            place: one
            for found in read(self.directory, "me")
            for place, one in found.frames
        }
        self.segments = Segments.adopt(self.directory, "me", segment_bytes=300)

    @invariant()
    def everything_that_waits_is_on_disk(self) -> None:
        """Check what recovery would find now."""
        found = found_in(self.directory)
        waiting = list(self.waiting.values())
        assert [one for one in found if one in waiting] == waiting
        positions = [self.written.index(one) for one in found]
        assert positions == sorted(set(positions))


TestLogMachine = LogMachine.TestCase
