"""Fuzzes recovery with files of any bytes: `python -m tests.recovery.fuzz`.

With atheris where it is installed, which follows the branches that bytes take (give it
`-max_total_time=600`, or any option of libFuzzer); else with Hypothesis, for as many
examples as the first argument says.  The suite runs a little of the latter.

Whatever stands in the files of a dead process: nothing is raised, nothing hangs, what
is sent can be read, no span is told in two forms, and a second recovery finds nothing
new.  Nor does who only looks, or asks for its last sign, fail in another way than it
says.

A checksum keeps a fuzzer out of all that stands behind it.  So it may have them made
right again, and comes to what no disk makes: a frame that is whole and is no request.
"""

from __future__ import annotations

import contextlib
import importlib
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agenttrace.delivery import otlp
from agenttrace.delivery.frames import HEADER_SIZE, header, record_of
from agenttrace.delivery.segment_files import files_of
from agenttrace.journal import JournalError, State, read_journal
from agenttrace.journal.format import HEADER_START, LAST_TICK
from agenttrace.model import LinkData
from agenttrace.recovery import Recovery, last_sign
from tests.recovery.given import (
    FIRST,
    Backend,
    frame_of_spans,
    journal_bytes,
    names_in,
    slot,
)

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame
    from agenttrace.recovery.search import Settle

LINKS: Final = tuple(
    LinkData(bytes([number] * 16), bytes([number] * 8), is_remote=True, attributes={})
    for number in (1, 2)
)
JOURNAL: Final = journal_bytes(
    [
        slot(1)._replace(links=LINKS),
        slot(2, State.ENDED),
        slot(3, State.JUDGED),
        slot(4)._replace(links=LINKS[:1], attributes={"gen_ai.agent.name": "a" * 60}),
    ]
)
SPOOL: Final = header() + record_of(frame_of_spans(2, 5)) + record_of(frame_of_spans(6))
_FRAMED: Final = b"framed".hex()
EDITS = st.lists(st.tuples(st.integers(0, 2**13), st.binary(max_size=12)), max_size=6)


class Receiver(Backend):
    """Takes what is no request, too."""

    def send(self, frame: Frame, settle: Settle) -> bool:
        """Take *frame*."""
        try:
            otlp.decode(frame.payload)
        except ValueError:
            settle()
            return True
        return super().send(frame, settle)


def check(journal: bytes, spool: bytes, *, is_forged: bool = False) -> None:
    """Recover what a process leaves whose files are these.

    Args:
        journal: Its journal.
        spool: Its one segment.
        is_forged: Whether the spool has checksums that are right and contents that are
            not: who they are of is not known then.

    Raises:
        AssertionError: A property of recovery does not hold.
    """
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent, "instances")
        directory.mkdir(mode=0o700)
        (directory / f"{FIRST}.lock").touch(0o600)
        (directory / f"{FIRST}.journal").write_bytes(journal)
        (directory / f"{FIRST}.00000001.spool").write_bytes(spool)
        look(directory)
        backend = Receiver(Path(parent, "log"))
        try:
            recovery = Recovery(directory, backend.send)
            found = recovery.run()
            assert recovery.wait(0), "something is still on its way"
            again = Recovery(directory, backend.send).run()
        finally:
            backend.close()
        for forms in backend.forms().values():
            # Of damaged slots two may have the same ids: nothing says which is right.
            is_framed = any(_FRAMED in form for form in forms)
            if not is_forged:
                assert len(forms) == 1 or not is_framed, "it was told in two forms"
        assert again.spans == 0, "it was recovered twice"
        left = names_in(directory)
        assert bool(left) == bool(found.failed), f"left behind: {left}"


def look(directory: Path) -> None:
    """Read what is there as those do who take nothing over."""
    with (
        contextlib.suppress(JournalError),
        read_journal(directory / f"{FIRST}.journal") as reading,
    ):
        now = time.time_ns()
        assert last_sign(reading, files_of(directory, FIRST), now) <= now
        known: dict[int, Any] = {}
        first, second = list(reading.look(known)), list(reading.look(known))
        assert [slot for slot, _ in first] == [slot for slot, _ in second]


def with_checksum(journal: bytes) -> bytes:
    """Return *journal* with the checksum that its header should have."""
    (size,) = struct.unpack_from("<I", journal, HEADER_START - 8)
    resource = journal[HEADER_START : HEADER_START + size]
    check = zlib.crc32(resource, zlib.crc32(journal[:LAST_TICK]))
    start = journal[: HEADER_START - 4] + struct.pack("<I", check)
    return start + journal[HEADER_START:]


def with_checksums(spool: bytes) -> bytes:
    """Return *spool* with the checksums that its records should have."""
    made = bytearray(spool)
    at = HEADER_SIZE
    while at + 12 <= len(made):
        length, _, spans = struct.unpack_from("<III", made, at)
        body = made[at + 12 : at + 12 + length]
        check = zlib.crc32(body, zlib.crc32(struct.pack("<II", length, spans)))
        struct.pack_into("<I", made, at + 4, check)
        at += 12 + length
    return bytes(made)


def edited(data: bytes, edits: list[tuple[int, bytes]], cut: int | None) -> bytes:
    """Return *data* with *edits* written over it, and cut off."""
    changed = bytearray(data)
    for at, written in edits:
        start = at % len(data)
        changed[start : start + len(written)] = written
    return bytes(changed[:cut])


CUTS = st.none() | st.integers(0, len(JOURNAL))
FILES = st.binary(max_size=600) | st.builds(edited, st.just(JOURNAL), EDITS, CUTS)
SPOOLS = st.binary(max_size=600) | st.builds(edited, st.just(SPOOL), EDITS, CUTS)


def fuzz(examples: int) -> None:
    """Have Hypothesis look for files that break recovery."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    found = settings(max_examples=examples, deadline=None, suppress_health_check=health)
    found(given(journal=FILES, spool=SPOOLS)(check))()


def one_input(data: bytes) -> None:
    """Check what libFuzzer has thought of: what to change in which of the files."""
    flags, middle, *_ = *data[:2], 0, 0
    middle = 2 + middle * len(data) // 256
    journal = edited(JOURNAL, _edits(data[2:middle]), None)
    spool = edited(SPOOL, _edits(data[middle:]), None)
    if flags & 1:
        journal = with_checksum(journal)
    if flags & 2:
        spool = with_checksums(spool)
    check(journal, spool, is_forged=bool(flags & 2))


def _edits(data: bytes) -> list[tuple[int, bytes]]:
    return [
        (int.from_bytes(data[at : at + 2], "little"), data[at + 3 : at + 8])
        for at in range(0, len(data), 8)
    ]


def main() -> None:
    """Fuzz until it is interrupted, or for as many examples as were asked for."""
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    else:
        atheris.instrument_all()
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
