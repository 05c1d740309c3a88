"""What is written into a journal's bytes is what is read out of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from agenttrace import semconv
from agenttrace.journal.format import (
    ENDED_BY,
    ERROR_CELL,
    HEADER_START,
    LAST_TICK,
    OUTCOMES,
    PAYLOAD,
    PAYLOAD_START,
    SLOT_SIZE,
    Header,
    JournalError,
    State,
    header_length,
    pack_header,
    read_header,
)
from agenttrace.journal.slot import Slot, read_slot
from agenttrace.journal.texts import (
    KEY_ATTRIBUTES,
    TEXTS_SIZE,
    encoded,
    pack_texts,
    read_texts,
)
from agenttrace.model import EndedBy, LinkData, Outcome
from tests.journal.given import slot_bytes

words = st.integers(0, 2**64 - 1)
headers = st.builds(
    Header,
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    words,
    words,
    st.binary(max_size=10_000),
    words,
)
short_texts = st.text(
    st.characters(codec="utf-8"), max_size=16
)  # 64 bytes at the most: nothing has to be cut
ids = st.binary(min_size=8, max_size=8).filter(any)
links = st.builds(
    LinkData,
    st.builds(bytes.__add__, ids, ids),
    ids,
    st.booleans(),
    st.sampled_from([{}, {semconv.LINK: semconv.RESUMED}]),
    st.just(0),
)
seconds = st.floats(allow_nan=False)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    """Draw a slot whose texts fit."""
    state = draw(st.sampled_from([State.OPEN, State.ENDED, State.JUDGED]))
    outcome = ended_by = error_type = None
    if state is not State.OPEN:
        outcome = draw(st.sampled_from(Outcome))
        ended_by = draw(st.sampled_from(EndedBy))
        if outcome is not Outcome.OK:
            error_type = draw(st.none() | short_texts.filter(fits_error_cell))
    return Slot(
        state,
        draw(st.integers(0, 2**32 - 1)),
        outcome,
        ended_by,
        error_type or None,
        draw(words),
        draw(words) if state is State.ENDED else 0,
        draw(words),
        draw(ids) + draw(ids),
        draw(ids),
        draw(st.just(b"") | ids),
        draw(st.booleans()),
        draw(words),
        draw(st.integers(0, 255)),
        draw(st.sampled_from(SpanKind)),
        draw(st.none() | seconds),
        draw(st.none() | seconds),
        draw(short_texts),
        draw(st.none() | st.sampled_from(["chat", "execute_tool"])),
        draw(st.sampled_from(["", "support"])),
        draw(st.sampled_from(["", "1.2"])),
        draw(
            st.dictionaries(st.sampled_from(KEY_ATTRIBUTES), st.text("ab", max_size=30))
        ),
        tuple(draw(st.lists(links, max_size=2))),
    )


def fits_error_cell(text: str) -> bool:
    return len(text.encode()) < 64


@given(headers)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    """Recovery makes up lost spans from it and from nothing else."""
    data = pack_header(header)

    assert read_header(data) == header
    assert header_length(data[:HEADER_START]) == len(data)
    assert len(data) % 4096 == 0


@given(headers, words)
def test_the_last_tick_is_a_word_of_its_own(header: Header, tick: int) -> None:
    """It is stored several times a second and belongs to no checksum."""
    data = bytearray(pack_header(header))

    struct.pack_into("<Q", data, LAST_TICK, tick)

    assert read_header(bytes(data)) == header._replace(last_tick=tick)


@given(headers, st.data())
def test_a_damaged_header_is_refused(header: Header, data: st.DataObject) -> None:
    """What is made of it would be told of a process that never was."""
    intact = bytearray(pack_header(header))
    end = HEADER_START + len(header.resource)
    tick = range(LAST_TICK, LAST_TICK + 8)
    at = data.draw(st.integers(0, end - 1).filter(lambda at: at not in tick))

    intact[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(JournalError):
        read_header(bytes(intact))


@given(headers, st.data())
def test_a_torn_header_is_refused(header: Header, data: st.DataObject) -> None:
    """The process was killed while it made the file."""
    end = HEADER_START + len(header.resource)
    size = data.draw(st.integers(0, end - 1))

    with pytest.raises(JournalError):
        read_header(pack_header(header)[:size])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    """A directory may hold anything, and one exception is what callers expect."""
    with pytest.raises(JournalError):
        read_header(data)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(0, 0, "magic"), (8, 2, "version 2"), (16, 64, "slots of"), (12, 5, "length 5")],
)
def test_the_error_says_what_is_wrong(offset: int, value: int, message: str) -> None:
    """A journal of a newer version is no damage, and its user should hear that."""
    data = bytearray(pack_header(Header(1, bytes(16), 2, 3, b"")))

    struct.pack_into("<I", data, offset, value)

    with pytest.raises(JournalError, match=message):
        read_header(bytes(data))


@pytest.mark.parametrize(
    "header",
    [
        Header(-1, bytes(16), 0, 0, b""),
        Header(1, bytes(16), -1, 0, b""),
        Header(1, bytes(16), 0, 0, b"", -1),
        Header(1, bytes(15), 0, 0, b""),
        Header(1, bytes(16), 0, 0, bytes(1 << 24)),
    ],
)
def test_a_header_that_does_not_fit_is_refused(header: Header) -> None:
    """At once, and not when it is read."""
    with pytest.raises(JournalError):
        pack_header(header)


@given(slots())
def test_a_slot_is_read_as_it_was_written(slot: Slot) -> None:
    """It is all that is left of a span whose process was killed."""
    assert read_slot(slot_bytes(slot)) == slot


@given(st.binary(min_size=SLOT_SIZE, max_size=SLOT_SIZE) | st.binary(max_size=600))
def test_any_bytes_are_a_slot_or_free_or_an_error(data: bytes) -> None:
    """Disks return anything; recovery counts it and goes on."""
    try:
        slot = read_slot(data)
    except JournalError:
        return

    assert slot is None or isinstance(slot, Slot)


@given(slots(), st.data())
def test_a_damaged_slot_is_a_slot_or_free_or_an_error(
    slot: Slot, data: st.DataObject
) -> None:
    """Near to what is right is where a reader's mistakes are."""
    intact = bytearray(slot_bytes(slot))
    for at in data.draw(st.lists(st.integers(0, SLOT_SIZE - 1), max_size=4)):
        intact[at] = data.draw(st.integers(0, 255))

    try:
        found = read_slot(bytes(intact))
    except JournalError:
        return

    assert found is None or isinstance(found, Slot)


@given(slots(), st.data())
def test_an_error_type_of_an_earlier_span_is_not_read(
    slot: Slot, data: st.DataObject
) -> None:
    """The cell is written by those who have an error, and left alone by the others."""
    intact = bytearray(slot_bytes(slot._replace(error_type=None)))
    intact[ERROR_CELL:] = data.draw(st.binary(min_size=64, max_size=64))

    if slot.outcome in (None, Outcome.OK):
        assert read_slot(bytes(intact)) == slot._replace(error_type=None)


@given(st.text(), st.integers(0, 200))
def test_a_text_is_cut_between_two_characters(text: str, most: int) -> None:
    """Half a character would make the whole slot unreadable."""
    cut = encoded(text, most)

    assert len(cut) <= most
    whole = text.encode(errors="replace").decode()
    assert whole.startswith(cut.decode())
    assert len(cut) > most - 4 or cut.decode() == whole


@given(
    st.text(),
    st.none() | st.text(),
    st.text(),
    st.text(),
    st.dictionaries(
        st.sampled_from([*KEY_ATTRIBUTES, "gen_ai.input.messages"]),
        st.text(max_size=200) | st.integers() | st.none(),
    ),
)
def test_texts_of_any_length_fit(
    name: str,
    operation: str | None,
    scope: str,
    version: str,
    attributes: dict[str, object],
) -> None:
    """A slot has one size, and an application may call its spans what it likes."""
    data = pack_texts(name, operation, scope, version, attributes)

    found = read_texts(data.ljust(TEXTS_SIZE, b"\0"))

    assert len(data) <= TEXTS_SIZE
    assert name.encode(errors="replace").decode().startswith(found[0])
    assert set(found[4]) <= set(KEY_ATTRIBUTES)


def test_half_an_id_is_not_written() -> None:
    """Half an id is that of another conversation; half a name is still a name."""
    conversation, model, *_ = KEY_ATTRIBUTES
    attributes = {conversation: "c" * 65, model: "m" * 65}

    *_, found = read_texts(
        pack_texts("chat", "chat", "", "", attributes).ljust(TEXTS_SIZE, b"\0")
    )

    assert found == {model: "m" * 64}


def test_every_outcome_has_a_number_that_never_changes() -> None:
    """A number that moved would turn the `ok` of an old file into an `error`."""
    assert {outcome.value: code for outcome, code in OUTCOMES.items()} == {
        "ok": 1,
        "error": 2,
        "timed_out": 3,
        "cancelled": 4,
        "abandoned": 5,
        "stuck": 6,
        "lost": 7,
    }
    assert set(OUTCOMES) == set(Outcome)


def test_every_way_to_end_has_a_number_that_never_changes() -> None:
    """The same; and a new member needs a number before it can be journaled."""
    assert {ended_by.value: code for ended_by, code in ENDED_BY.items()} == {
        "return": 1,
        "exception": 2,
        "cancel": 3,
        "close": 4,
        "gc": 5,
        "disconnect": 6,
        "watchdog": 7,
        "exit": 8,
        "recovery": 9,
    }
    assert set(ENDED_BY) == set(EndedBy)


def test_the_payload_ends_where_the_error_type_begins() -> None:
    """Otherwise the end of one span would overwrite the names of its start."""
    assert PAYLOAD_START + PAYLOAD.size == ERROR_CELL
    assert ERROR_CELL + 64 == SLOT_SIZE
