"""Bytes become the frames that were written, all of those that are whole, no others."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.delivery.frames import (
    ACKNOWLEDGED_AT,
    HEADER_SIZE,
    Frame,
    SegmentError,
    acknowledged_word,
    contents_of,
    header,
    record_of,
)

ids = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
frames = st.builds(
    Frame,
    ids=st.lists(ids, max_size=3).map(tuple),
    # Some are larger than what one step of the checksum takes.
    payload=st.binary(max_size=40)
    | st.binary(min_size=5, max_size=11).map(lambda some: some * 1_000),
)


def segment_of(written: list[Frame], acknowledged: int = HEADER_SIZE) -> bytes:
    """Return a segment with *written* in it."""
    return header(acknowledged) + b"".join(record_of(frame) for frame in written)


def ends_of(written: list[Frame]) -> list[int]:
    """Return every boundary of a segment with *written* in it."""
    sizes = (len(record_of(frame)) for frame in written)
    return list(accumulate(sizes, initial=HEADER_SIZE))


def test_the_format_is_what_its_module_says() -> None:
    """Another version of agenttrace, or another tool, reads by that table."""
    frame = Frame(((b"t" * 16, b"s" * 8),), b"payload")

    data = header(24) + record_of(frame)

    assert data[:24] == b"ATSPOOL\0" + b"\1\0\0\0" + bytes(4) + b"\x18" + bytes(7)
    assert data[24:28] == (24 + len(b"payload")).to_bytes(4, "little")
    assert data[32:36] == b"\1\0\0\0"
    assert data[36:] == b"t" * 16 + b"s" * 8 + b"payload"


@given(st.lists(frames, max_size=5))
def test_what_is_written_is_read(written: list[Frame]) -> None:
    """Byte for byte: a backend merges what is the same."""
    contents = contents_of(segment_of(written))

    assert [record.frame for record in contents.records] == written
    assert [record.end for record in contents.records] == ends_of(written)[1:]
    assert contents.unsettled == contents.records
    assert not contents.is_damaged


@given(st.lists(frames, max_size=5), st.data())
def test_a_torn_tail_is_ignored(written: list[Frame], data: st.DataObject) -> None:
    """A process may be killed in the middle of a write."""
    whole = segment_of(written)
    length = data.draw(st.integers(0, len(whole)))

    contents = contents_of(whole[:length])

    complete = [end for end in ends_of(written)[1:] if end <= length]
    assert [record.frame for record in contents.records] == written[: len(complete)]
    assert contents.is_damaged == (length not in ends_of(written))


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_flipped_byte_makes_no_frame_that_was_not_written(
    written: list[Frame], data: st.DataObject
) -> None:
    """Disks do that; what they make of a span must not reach a dashboard."""
    damaged = bytearray(segment_of(written))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))

    try:
        contents = contents_of(bytes(damaged))
    except SegmentError:
        assert at < ACKNOWLEDGED_AT
        return

    found = [record.frame for record in contents.records]
    whole = [end for end in ends_of(written)[1:] if end <= at]
    assert found == (written if at < HEADER_SIZE else written[: len(whole)])
    assert contents.acknowledged in ends_of(written)


@given(st.binary(max_size=300))
def test_garbage_is_survived(data: bytes) -> None:
    """A file may hold anything; what is found in it is what a frame would be."""
    contents = contents_of(header() + data)

    for record in contents.records:
        assert (header() + data)[record.start : record.end] == record_of(record.frame)
    if not data.startswith(header()[:1]):
        with pytest.raises(SegmentError):
            contents_of(data + bytes(HEADER_SIZE))


def test_zeros_are_no_frame() -> None:
    """That is what a file holds that was made larger and not written."""
    contents = contents_of(segment_of([]) + bytes(4096))

    assert contents.records == ()
    assert contents.is_damaged


@given(st.lists(frames, max_size=5), st.integers(0, 2**64 - 1) | st.integers(0, 400))
def test_an_acknowledged_offset_is_a_boundary_or_the_one_before_it(
    written: list[Frame], said: int
) -> None:
    """What is sent twice is merged, what is not sent is lost."""
    contents = contents_of(segment_of(written, acknowledged=said))

    ends = ends_of(written)
    expected = max((end for end in ends if end <= said), default=HEADER_SIZE)
    assert contents.acknowledged == expected
    settled = ends.index(expected)
    assert [record.frame for record in contents.unsettled] == written[settled:]


@given(st.integers(0, 2**64 - 1))
def test_an_acknowledgement_replaces_one_aligned_word(offset: int) -> None:
    """One write of eight bytes: a killed process has made it, or has not."""
    data = bytearray(header())
    word = acknowledged_word(offset)
    data[ACKNOWLEDGED_AT : ACKNOWLEDGED_AT + len(word)] = word

    assert ACKNOWLEDGED_AT % 8 == 0
    assert len(word) == 8
    assert bytes(data) == header(offset)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"ATSPOOL\0\2\0\0\0" + bytes(12), "version 2"),
        (b"SQLite format 3\0" + bytes(100), "no segment"),
        (b"SQL", "no segment"),
    ],
)
def test_what_is_no_segment_of_ours_is_an_error_that_says_so(
    data: bytes, said: str
) -> None:
    """It may be that of a newer agenttrace, which will want it."""
    with pytest.raises(SegmentError, match=said):
        contents_of(data)


@pytest.mark.parametrize("pair", [(b"t", b"s"), (b"t" * 16, b"")])
def test_ids_of_another_length_make_no_record(pair: tuple[bytes, bytes]) -> None:
    """They would be read as others."""
    with pytest.raises(ValueError, match="no record"):
        record_of(Frame((pair,), b"payload"))
