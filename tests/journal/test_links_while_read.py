"""A span is linked while somebody reads its slot: what is read stood there once."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agenttrace.journal import Journal, links, read_journal
from agenttrace.journal.format import (
    ERROR_CELL,
    LINK_COUNT,
    SLOT_SIZE,
    TEXTS_START,
)
from agenttrace.journal.texts import KEY_ATTRIBUTES
from agenttrace.model import LinkData
from tests.journal.given import Step, slot_of, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

    from agenttrace.journal import Slot
    from agenttrace.registry import OpenSpan

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="needs POSIX")

LINKS = [
    LinkData(bytes([number] * 16), bytes([number] * 8), is_remote=False, attributes={})
    for number in (0x61, 0x62)
]
FULL = {key: f"{number}" + 47 * "m" for number, key in enumerate(KEY_ATTRIBUTES)}
"""Texts that leave no room for a link: the last one has to give way."""
LIVE = Step(FULL)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """Yield a journal that every test leaves empty."""
    made = Journal(tmp_path_factory.mktemp("read"), first_slots=64, on_low=lambda: None)
    yield made
    made.close(remove=True)


class Writer:
    """Adds links to a span, a line of code at a time: each when it is told to go on.

    Args:
        record: The span.
    """

    def __init__(self, record: OpenSpan) -> None:
        self._go_on = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self.is_over = False
        self._thread = threading.Thread(target=self._write, args=(record,))
        self._thread.start()
        self._waits.acquire()

    def step(self, lines: int = 1) -> None:
        """Go on for so many *lines*, or as many as there are."""
        for _ in range(lines):
            if not self.is_over:
                self._go_on.release()
                self._waits.acquire()

    def finish(self) -> None:
        """Go on to the end."""
        while not self.is_over:
            self.step()
        self._thread.join()

    def _write(self, record: OpenSpan) -> None:
        sys.settrace(self._trace)
        try:
            links.write_links(record, LINKS)
        finally:
            sys.settrace(None)
            self.is_over = True
            self._waits.release()

    def _trace(
        self, frame: FrameType, _event: str, _arg: object
    ) -> TraceFunction | None:
        if frame.f_code.co_filename != links.__file__:
            return None
        self._waits.release()
        self._go_on.acquire()
        return self._trace


def at_every_line(path: Path, record: OpenSpan) -> list[Slot]:
    """Return what stands in the slot after each line of who adds links to *record*."""
    writer = Writer(record)
    stood = [slot_of(path)]
    while not writer.is_over:
        writer.step()
        stood.append(slot_of(path))
    writer.finish()
    return stood


def opened(journal: Journal) -> OpenSpan:
    record = span("n" * 80, LIVE, operation="chat")
    journal.take(record)
    return record


READS = st.lists(
    st.lists(
        st.tuples(st.integers(LINK_COUNT, ERROR_CELL), st.integers(0, 60)), max_size=3
    ),
    max_size=4,
)
WHOLE: list[tuple[int, int]] = []
AFTER_A_TAG = [[], [(TEXTS_START + 322, 1_000)]]


@given(reads=READS, backwards=st.booleans())
@example(reads=AFTER_A_TAG, backwards=False)
@example(reads=AFTER_A_TAG, backwards=True)
def test_who_reads_a_slot_while_a_link_is_added_sees_what_stood_there(
    journal: Journal, reads: list[list[tuple[int, int]]], *, backwards: bool
) -> None:
    """Half a name and half an id would be told as a name, by `top`, to people."""
    first = opened(journal)
    stood = at_every_line(journal.path, first)
    journal.free(first)
    record = opened(journal)
    at = slot_of(journal.path).number * SLOT_SIZE
    plans = iter(reads)
    read = os.pread

    def in_parts(descriptor: int, size: int, offset: int) -> bytes:
        """Read as the kernel may do it: a part, then another, and not at once."""
        if size < SLOT_SIZE or not offset:  # a word, or the header
            return read(descriptor, size, offset)
        cuts = sorted(next(plans, WHOLE))
        slot = at if size > SLOT_SIZE else 0
        bounds = [0, *(slot + cut for cut, _ in cuts), size]
        pieces = list(itertools.pairwise(bounds))
        parts: dict[int, bytes] = {}
        for piece, (_, lines) in zip(
            pieces[::-1] if backwards else pieces, [*cuts, (0, 0)], strict=True
        ):
            start, end = piece
            if start < end:
                parts[start] = read(descriptor, end - start, offset + start)
            writer.step(lines)
        return b"".join(parts[start] for start in sorted(parts))

    with read_journal(journal.path) as reading, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", in_parts)
        writer = Writer(record)
        try:
            found = list(reading)
        finally:
            writer.finish()
            journal.free(record)

    assert reading.damaged == 0
    assert len(found) == 1
    assert seen(found[0]) in [seen(slot) for slot in stood]


def seen(slot: Slot) -> tuple[object, ...]:
    return slot.name, dict(slot.attributes), slot.links
