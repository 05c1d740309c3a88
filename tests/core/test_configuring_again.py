"""A process that configures again and again keeps no more files than it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.core.programs import run

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import gc
from pathlib import Path

from agenttrace.testing.garbage import collect_garbage
import agenttrace
from agenttrace.journal import Journal
from agenttrace.testing.runtimes import Nowhere

def configure(times):
    for _ in range(times):
        runtime = agenttrace.configure(span_exporter=Nowhere())
        with agenttrace.span("step"):
            pass
    return runtime

def count():
    collect_garbage()
    journals = sum(isinstance(each, Journal) for each in gc.get_objects())
    print(journals, len(list(Path(STATE_DIR, "instances").glob("*.journal"))))

configure(5)
count()
block = agenttrace.span("goes on")
block.__enter__()
configure(5)
count()
block.__exit__(None, None, None)
configure(1).flush()
configure(1)
count()
"""


def test_a_journal_goes_when_no_open_span_stands_in_it(tmp_path: Path) -> None:
    """A server that reloads its settings would gather files and memory."""
    program = PROGRAM.replace("STATE_DIR", repr(str(tmp_path)))

    ran = run(program, AGENTTRACE_STATE_DIR=str(tmp_path))

    assert ran.code == 0, ran.err
    assert ran.out.split("\n") == ["1 1", "2 2", "1 1", ""]
    assert not list((tmp_path / "instances").iterdir())
