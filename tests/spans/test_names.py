"""What spans keep is kept without a dict of their own, whatever comes to them late."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import gc
from contextlib import ExitStack
from opentelemetry import trace
from tests.spans.given import lean

given, early = lean(), ExitStack()
for number in range(100):
    early.enter_context(given.tracer.start_as_current_span(f"step {number}"))
link = trace.Link(trace.get_current_span().get_span_context())
with given.tracer.start_as_current_span("linked", links=[link]):
    pass
last = given.tracer.start_span("late")
last.add_event("said", {"word": "late"})
last.get_span_context()
last.end()
early.close()
try:
    raise LookupError
except LookupError:
    spans = [given.tracer.start_span("after") for _ in range(10)]
for span in spans:
    span.end()
found = [x for x in gc.get_objects() if type(x) is dict and "_trace_state" in x]
print(len(found))
"""


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="how CPython keeps attributes"
)
def test_spans_share_one_table_of_names_however_late_the_first_one_ends() -> None:
    """A dict for each of them costs as much again as all that a span does."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stdout.split() == ["0"]
