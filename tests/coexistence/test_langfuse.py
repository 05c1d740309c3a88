"""Langfuse: a processor on the global provider, whoever's that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.coexistence.given import LONGEST, TREE, run

if TYPE_CHECKING:
    from pathlib import Path

THEIRS: Final = "/api/public/otel/v1/traces"
OURS: Final = "/v1/traces"
CLIENT: Final = """
def client():
    from langfuse import Langfuse
    return Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=BASE)

def theirs(name):
    return langfuse.start_as_current_observation(name=name)
"""


@pytest.mark.parametrize("order", ["they first", "we first"])
def test_one_trace_with_every_outcome_in_either_order(
    tmp_path: Path, order: str
) -> None:
    """Their client is often made by a framework, before or after our set-up."""
    theirs, ours = "langfuse = client()\n", "agenttrace.configure()\n"
    first = theirs + ours if order == "they first" else ours + theirs

    ran = run(tmp_path, CLIENT + first + "work(theirs)\n", own=order == "we first")

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert ran.seconds < LONGEST
    assert len(ran.traces()) == 1
    assert ran.tree(THEIRS) == TREE
    assert (order == "they first") or ran.tree(OURS) == TREE
    for spans in ran.sent.values():
        assert {span.attributes["gen_ai.conversation.id"] for span in spans} == {"c-1"}


def test_a_span_that_langfuse_leaves_open_is_lost_and_told_to_it(
    tmp_path: Path,
) -> None:
    """Its dashboard shows nothing of an observation that never ended."""
    ran = run(
        tmp_path,
        CLIENT
        + """
langfuse = client()
agenttrace.configure()
kept = langfuse.start_observation(name="never ended")
""",
        own=False,
    )

    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert ran.tree(THEIRS) == {"never ended": ("", "lost")}
