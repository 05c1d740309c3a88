"""A spool keeps what not every lane has answered for, up to a limit, and can count."""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agenttrace.delivery.frames import Frame
from agenttrace.delivery.spool import Left, MemorySpool, Size

MAX_BYTES = 1_000


def frame(size: int, spans: int = 1) -> Frame:
    """Return a frame of *spans* with *size* bytes."""
    return Frame(ids=((b"t", b"s"),) * spans, payload=bytes(size))


def test_every_lane_reads_every_frame_in_order() -> None:
    """A slow destination must not hold back another one."""
    spool = MemorySpool(lanes=2, max_bytes=MAX_BYTES)
    frames = [frame(10), frame(20)]
    for one in frames:
        spool.append(one)

    read = [[kept.frame for kept in spool.peek(lane, 2, MAX_BYTES)] for lane in (0, 1)]

    assert read == [frames, frames]


def test_a_frame_is_kept_until_the_last_lane_has_answered() -> None:
    """The next process has to find what one destination still lacks."""
    spool = MemorySpool(lanes=2, max_bytes=MAX_BYTES)
    spool.append(frame(10, spans=3))

    first = spool.ack(0, 1, lost=1)
    between = spool.size
    second = spool.ack(1, 1)

    assert first is None
    assert between == Size(1, 3, 10)
    assert second is not None
    assert (second.delivered, second.lost) == (2, 1)
    assert spool.size == Size()


def test_a_full_spool_drops_what_is_oldest() -> None:
    """After an outage what happened last is what people look at."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    for _ in range(3):
        spool.append(frame(400))

    assert [kept.number for kept in spool.peek(0, 3, MAX_BYTES)] == [2, 3]


def test_a_full_spool_keeps_what_is_just_being_sent() -> None:
    """It would be counted as dropped, and arrive."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    spool.append(frame(400))
    spool.peek(0, 1, MAX_BYTES)
    for _ in range(2):
        spool.append(frame(400))

    assert [kept.number for kept in spool.peek(0, 3, MAX_BYTES)] == [1, 3]


def test_a_spool_never_holds_more_than_its_limit() -> None:
    """When all of it is just being sent, what comes has to go."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    spool.append(frame(700))
    spool.peek(0, 1, MAX_BYTES)

    assert spool.append(frame(400, spans=2)).spans == 2
    assert spool.size.bytes == 700


def test_a_frame_larger_than_the_spool_is_dropped_alone() -> None:
    """It must not drive out everything else first."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    spool.append(frame(400))

    assert spool.append(frame(MAX_BYTES + 1, spans=7)).spans == 7
    assert spool.size == Size(1, 1, 400)


def test_a_frame_larger_than_a_request_is_read_alone() -> None:
    """Otherwise it would be read never."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    spool.append(frame(500))
    spool.append(frame(10))

    assert [kept.number for kept in spool.peek(0, 2, max_bytes=100)] == [1]


def test_what_comes_after_the_end_is_dropped() -> None:
    """An encoder that is slower than the shutdown must find it counted."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    spool.append(frame(10, spans=2))

    assert spool.close() == Left(lost=2, kept=0)
    assert spool.append(frame(0, spans=3)).spans == 3
    assert spool.size == Size()


def test_what_is_dropped_needs_no_sending_by_the_next_process_either() -> None:
    """It was counted as dropped; found on disk, it would be told twice."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    settled: list[str] = []
    spool.append(frame(400), partial(settled.append, "oldest"))
    spool.append(frame(400))

    for size, name in ((400, "newest"), (MAX_BYTES + 1, "too large")):
        for settle in spool.append(frame(size), partial(settled.append, name)).settles:
            settle()

    assert settled == ["oldest", "too large"]


def test_what_is_on_disk_is_kept_at_the_end_and_its_late_answer_heard() -> None:
    """A lane that is cut short may have delivered it; sent again, it had a twin."""
    spool = MemorySpool(lanes=1, max_bytes=MAX_BYTES)
    settled: list[str] = []
    spool.append(frame(10, spans=2), partial(settled.append, "on disk"))
    spool.append(frame(10, spans=3))

    left = spool.close()
    late = spool.ack(0, 1)

    assert left == Left(lost=3, kept=2)
    assert spool.size == Size()
    assert spool.oldest > spool.newest
    assert late is not None
    assert late.settle is not None
    assert spool.ack(0, 2) is None


class SpoolMachine(RuleBasedStateMachine):
    """Whatever the order of events: no span is lost from the books."""

    @initialize(lanes=st.integers(1, 3))
    def begin(self, lanes: int) -> None:
        """Begin with an empty spool."""
        self.lanes = lanes
        self.spool = MemorySpool(lanes, MAX_BYTES)
        self.appended = self.dropped = self.delivered = self.lost = 0
        self.last_read = [0] * lanes

    @rule(size=st.integers(0, 1_200), spans=st.integers(1, 5))
    def append(self, size: int, spans: int) -> None:
        """Let a frame come."""
        self.dropped += self.spool.append(frame(size, spans)).spans
        self.appended += spans

    @rule(data=st.data(), max_bytes=st.integers(0, 800))
    def read_and_answer(self, data: st.DataObject, max_bytes: int) -> None:
        """Let a lane answer for some of what it reads."""
        lane = data.draw(st.integers(0, self.lanes - 1))
        kept = self.spool.peek(lane, self.spool.newest, max_bytes)
        for one in kept[: data.draw(st.integers(0, len(kept)))]:
            assert one.number > self.last_read[lane]
            self.last_read[lane] = one.number
            lost = data.draw(st.integers(0, len(one.frame.ids)))
            if settled := self.spool.ack(lane, one.number, lost):
                self.delivered += settled.delivered
                self.lost += settled.lost

    @rule()
    def close(self) -> None:
        """Let go of everything."""
        self.dropped += self.spool.close().lost

    @invariant()
    def the_limit_holds(self) -> None:
        """Check what the application's memory depends on."""
        assert self.spool.size.bytes <= MAX_BYTES

    @invariant()
    def every_span_is_accounted_for(self) -> None:
        """Check that none is missing and none is counted twice."""
        settled = self.dropped + self.delivered + self.lost
        assert self.appended == settled + self.spool.size.spans

    @invariant()
    def the_oldest_is_beyond_the_newest_when_nothing_is_kept(self) -> None:
        """Check what a flush waits for."""
        is_empty = self.spool.size.frames == 0
        assert is_empty == (self.spool.oldest > self.spool.newest)


TestSpoolMachine = SpoolMachine.TestCase
