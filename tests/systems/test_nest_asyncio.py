"""Loops within loops, as `nest_asyncio` and `nest_asyncio2` make them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.core.programs import run

pytest.importorskip("nest_asyncio", reason="it comes with the extra `test`")
pytest.importorskip("nest_asyncio2", reason="it comes with the extra `test`")

ROOT = str(Path(__file__).parents[2])
every_library = pytest.mark.parametrize("library", ["nest_asyncio", "nest_asyncio2"])


def said_by(program: str, library: str) -> dict[str, Any]:
    """Return what a program of `nesting` prints."""
    ran = run(
        f"from tests.systems.nesting import {program}; {program}({library!r})",
        PYTHONPATH=os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]),
    )
    assert ran.code == 0, ran.err
    said: dict[str, Any] = json.loads(ran.out)
    return said


@every_library
def test_runs_in_nested_loops_have_their_tree_and_their_endings(library: str) -> None:
    """Each loop within a loop goes on with the tasks of all the others."""
    said = said_by("trees", library)

    assert said["answers"] == ["step 0", "step 1", "step 2"]
    assert said["items"] == [0, 1]
    assert said["raised"] == "LookupError"
    assert said["inner"] == "cancelled"
    assert said["tree"].splitlines() == [
        "root: ok",
        *(
            line
            for number in range(3)
            for line in (
                "  invoke_agent handler: ok",
                "    execute_tool ask: ok",
                f"      step {number}: ok",
            )
        ),
        "  invoke_agent streamed: ok items=2",
        "    streamed 0: ok",
        "    streamed 1: ok",
        "  execute_tool failing: error LookupError",
        "    fails: error LookupError",
        "  canceller: ok",
        "  waits: cancelled",
    ]


@every_library
def test_a_nested_loop_that_turns_blocks_nothing_and_one_that_does_not_is_told(
    library: str,
) -> None:
    """The callback around it stands on the stack all the while, and is at no fault."""
    said = said_by("watched", library)

    assert said["blamed"] == ["culprit"]
    assert "nesting.py" in said["nested"]
    assert ["loop_nested", "outer"] in said["noticed"]
    assert ["loop_blocked", "culprit"] in said["noticed"]
    cause, why = said["late"]
    assert cause == "awaiting_nothing"
    assert why.startswith("it runs a loop within its loop: it waits for an event")
    cause, why = said["early"]
    assert cause == "awaiting_nothing"
    assert "which is done and waits for one that was begun later" in why
