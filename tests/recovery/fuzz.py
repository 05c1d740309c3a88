"""Fuzzes recovery with files of any bytes: `python -m tests.recovery.fuzz`.

With atheris where it is installed, which follows the branches that bytes take (give it
`-max_total_time=600`, or any option of libFuzzer); else with Hypothesis, for as many
examples as the first argument says.  The suite runs a little of the latter.

Whatever stands in the files of a dead process: nothing is raised, nothing hangs, what
is sent can be read, no span is told in two forms, and a second recovery finds nothing
new.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agenttrace.delivery.frames import header, record_of
from agenttrace.journal import State
from agenttrace.recovery import Recovery
from tests.recovery.given import (
    FIRST,
    Backend,
    frame_of_spans,
    journal_bytes,
    names_in,
    slot,
)

JOURNAL: Final = journal_bytes(
    [slot(1), slot(2, State.ENDED), slot(3, State.JUDGED), slot(4)]
)
SPOOL: Final = header() + record_of(frame_of_spans(2, 5)) + record_of(frame_of_spans(6))
_FRAMED: Final = b"framed".hex()
EDITS = st.lists(st.tuples(st.integers(0, 2**13), st.binary(max_size=12)), max_size=6)


def check(journal: bytes, spool: bytes) -> None:
    """Recover what a process leaves whose files are these.

    Raises:
        AssertionError: A property of recovery does not hold.
    """
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent, "instances")
        directory.mkdir(mode=0o700)
        (directory / f"{FIRST}.lock").touch(0o600)
        (directory / f"{FIRST}.journal").write_bytes(journal)
        (directory / f"{FIRST}.00000001.spool").write_bytes(spool)
        backend = Backend(Path(parent, "log"))
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
            assert len(forms) == 1 or not is_framed, "it was told in two forms"
        assert again.spans == 0, "it was recovered twice"
        left = names_in(directory)
        assert bool(left) == bool(found.failed), f"left behind: {left}"


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
    middle = data[0] * len(data) // 256 if data else 0
    journal, spool = data[1:middle], data[middle:]
    check(edited(JOURNAL, _edits(journal), None), edited(SPOOL, _edits(spool), None))


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
