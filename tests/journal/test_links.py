"""What a span is linked to stands in its slot, and is all that leads to its sender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from agenttrace import semconv
from agenttrace.context.bound import bind
from agenttrace.journal import Journal, read_journal
from agenttrace.journal.format import ERROR_CELL, LINK_COUNT
from agenttrace.journal.links import LINK_SIZE, write_links
from agenttrace.journal.slot import read_slot
from agenttrace.journal.texts import KEY_ATTRIBUTES
from agenttrace.model import LinkData
from tests.journal.given import Step, slot_bytes, slot_of, slots_of, span
from tests.spans.given import STUCK, beside, lean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agenttrace.journal import Slot
    from agenttrace.journal.reader import Known
    from tests.spans.given import Beside, Lean

MOST = 14
CONVERSATION = semconv.GEN_AI_CONVERSATION_ID


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """Yield a journal that every test leaves empty."""
    made = Journal(
        tmp_path_factory.mktemp("links"), first_slots=64, on_low=lambda: None
    )
    yield made
    made.close(remove=True)


def link(number: int, attributes: dict[str, object] | None = None) -> LinkData:
    return LinkData(
        number.to_bytes(16, "big"),
        number.to_bytes(8, "big"),
        is_remote=False,
        attributes=attributes or {},
    )


def of_api(number: int, attributes: dict[str, str] | None = None) -> trace.Link:
    return trace.Link(trace.SpanContext(number, number, is_remote=True), attributes)


@given(
    name=st.text(max_size=200),
    conversation=st.none() | st.text(max_size=70),
    count=st.integers(0, 20),
)
def test_links_stand_behind_texts_of_any_length(
    journal: Journal, name: str, conversation: str | None, count: int
) -> None:
    """Two at least: a run that goes on in a request is linked to both."""
    live = Step({CONVERSATION: conversation} if conversation else None)
    record = span(name, live, parent=span("run", live))
    journal.take(record)
    before = slot_of(journal.path)

    linked = [link(number) for number in range(1, count + 1)]
    for each in linked:
        journal.linked(record, [each])

    slot = slot_of(journal.path)
    journal.free(record)
    assert min(count, 2) <= len(slot.links) <= MOST
    assert list(slot.links) == linked[: len(slot.links)]
    assert slot._replace(links=(), attributes={}) == before
    if count and conversation and len(conversation.encode(errors="replace")) <= 64:
        kept = conversation.encode(errors="replace").decode()
        assert slot.attributes == {CONVERSATION: kept}
    else:
        assert slot.attributes == {}


def test_the_next_span_in_a_slot_has_none_of_its_links(journal: Journal) -> None:
    """It would lead to the sender of another job."""
    first, second = span("job"), span("job")

    journal.take(first)
    journal.linked(first, [link(1), link(2)])
    journal.free(first)
    journal.take(second)
    slot = slot_of(journal.path)
    # And nothing is written where a span has no slot any more.
    journal.linked(first, [link(3)])
    again = slot_of(journal.path)
    journal.free(second)

    assert slot.span_id == second.span_id
    assert slot.links == again.links == ()


def test_a_link_that_is_damaged_costs_itself_alone(journal: Journal) -> None:
    """What can be no number of links costs the links, and no span either."""
    record = span("job")
    journal.take(record)
    journal.linked(record, [link(1), link(2)])
    data = bytearray(slot_bytes(slot_of(journal.path)))
    journal.free(record)

    data[ERROR_CELL - LINK_SIZE : ERROR_CELL] = bytes(LINK_SIZE)
    slot = read_slot(bytes(data))
    without: list[Slot | None] = []
    for count in range(MOST, 256):
        data[LINK_COUNT] = count
        without.append(read_slot(bytes(data)))

    assert slot is not None
    assert slot.links == (link(2),)
    assert without == [slot._replace(links=())] * len(without)


def test_a_span_without_links_has_all_the_room_for_its_texts(journal: Journal) -> None:
    """And one that is linked gives up what says least of it, the last one first."""
    said = {key: f"{number}" + 47 * "m" for number, key in enumerate(KEY_ATTRIBUTES)}
    live = Step(said)
    record = span("n" * 80, live, operation="chat")

    journal.take(record)
    alone = slot_of(journal.path)
    journal.linked(record, [link(1)])
    one = slot_of(journal.path)
    journal.linked(record, [link(2), link(3)])
    two = slot_of(journal.path)
    journal.free(record)

    assert [len(slot.attributes) for slot in (alone, one, two)] == [5, 4, 4]
    assert alone.attributes.items() > one.attributes.items()
    assert [len(slot.links) for slot in (alone, one, two)] == [0, 1, 2]
    assert two.name == "n" * 80


def test_a_slot_that_is_let_go_while_a_link_is_added_gets_none(
    journal: Journal,
) -> None:
    """A timer tells the end of a span while its owner links it."""
    record = span("job")
    journal.take(record)
    journal.linked(record, [link(1)])
    journal.free(record)

    write_links(record, [link(2)])

    assert slots_of(journal.path) == []


def test_who_looks_again_sees_a_link_that_was_added_since(journal: Journal) -> None:
    """And the conversation, which comes with it: else `top` never learns of them."""
    live = Step({CONVERSATION: "c-17"})
    record = span("job", live, parent=span("run", live))
    known: Known = {}
    journal.take(record)

    with read_journal(journal.path) as reading:
        before = [slot for slot, _ in reading.look(known)]
        journal.linked(record, [link(1)])
        after, again = ([slot for slot, _ in reading.look(known)] for _ in range(2))
    journal.free(record)

    assert [(slot.links, slot.attributes) for slot in before] == [((), {})]
    assert [(slot.links, slot.attributes) for slot in after] == [
        ((link(1),), {CONVERSATION: "c-17"})
    ]
    assert again == after
    assert again[0] is after[0]


def test_a_forked_child_writes_no_link_into_its_parents_journal(tmp_path: Path) -> None:
    """A span that was judged keeps its slot, which is another span's by and by."""
    given_ = lean()
    given_.registry.slots = journal = Journal(tmp_path, on_low=lambda: None)
    run = given_.tracer.start_span("run")
    (record,) = given_.registry
    assert given_.registry.judge(record, STUCK)
    before = slot_of(journal.path)

    given_.registry.forget()  # as a child does, and then it has a journal of its own
    given_.registry.slots = own = Journal(tmp_path, on_low=lambda: None)
    run.add_link(trace.SpanContext(1, 1, is_remote=False))
    record.beat()
    run.end()

    after = slot_of(journal.path)
    for each in (own, journal):
        each.close(remove=True)
    assert after == before


@pytest.mark.parametrize("setting", [lean, beside])
def test_a_span_has_its_links_in_the_journal_as_soon_as_it_has_started(
    journal: Journal, setting: Callable[[], Lean | Beside]
) -> None:
    """Of ours and of other libraries; what is current decides nothing."""
    given_ = setting()
    given_.registry.slots = journal
    resumed = {semconv.LINK: semconv.RESUMED, "other": "is not kept"}

    with bind(conversation_id="c-17"):
        run = given_.tracer.start_span("run", links=[of_api(1, resumed), of_api(2)])
    slot = slot_of(journal.path)
    run.end()

    assert slot.attributes == {CONVERSATION: "c-17"}
    assert slot.links == (
        link(1, {semconv.LINK: semconv.RESUMED})._replace(is_remote=True),
        link(2)._replace(is_remote=True),
    )


def test_a_link_that_comes_later_is_written_when_it_comes(journal: Journal) -> None:
    """Whoever consumes messages knows what it is about only when it has one."""
    given_ = lean()
    given_.registry.slots = journal
    run = given_.tracer.start_span("run")

    run.add_link(trace.SpanContext(1, 1, is_remote=False))
    found = slot_of(journal.path).links
    run.end()

    assert found == (link(1),)


@pytest.mark.parametrize("setting", [lean, beside])
@pytest.mark.parametrize("ids", [(2**130, 1), (1.5, 2.0)])
def test_a_link_to_what_is_no_span_costs_itself_alone(
    journal: Journal,
    setting: Callable[[], Lean | Beside],
    ids: tuple[Any, Any],  # hostile on purpose
) -> None:
    """Ids come in messages, from anywhere, and the API takes any number for one."""
    given_ = setting()
    given_.registry.slots = journal
    bad = trace.SpanContext(*ids, is_remote=False)
    links = [trace.Link(bad, {"k": 1}), of_api(1)]

    run = given_.tracer.start_span("run", links=links)
    run.add_link(bad, {"k": 1})
    run.add_link(of_api(2).context)
    found = slot_of(journal.path).links
    run.end()

    told = [link.context.span_id for link in given_.one("run").links]
    assert [link.span_id[-1] for link in found] == [1, 2][: len(found)]
    assert found
    assert told[-1:] == [2]
    if setting is lean:
        assert (told, given_.one("run").dropped_links) == ([1, 2], 2)
