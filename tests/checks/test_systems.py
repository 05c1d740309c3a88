"""Each system on each version: what was not run is not told as if it had passed."""

from __future__ import annotations

import pytest

from tests.checks.sessions import (
    CRASHED,
    FAILED,
    PASSED,
    SKIPPED,
    UNSTEADY,
    Results,
)
from tests.checks.systems import (
    APART,
    EVERYWHERE,
    ROOT,
    SYSTEMS,
    System,
    cell,
    is_complete,
    paths,
    table,
)
from tests.checks.unsteady import table as unsteady

AGENTS = "tests/agents/test_runs.py::test_it"
THREADS = "tests/agents/test_threads.py::test_it"
SYSTEM = System(
    "1 Agents",
    ("tests/agents/test_r*.py", "tests/agents/test_t*.py"),
    elsewhere={"beside": ("tests/beside/*.py",)},
    missing={"lowest": "needs 3.12"},
)


def results(tests: dict[str, str]) -> Results:
    """Return what a session wrote that came to *tests*."""
    return Results(
        python="3.11.0",
        versions={"openai": "3.1.0"},
        exit=0,
        seed=7,
        options=[],
        tests=tests,
        reasons={},
    )


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ({AGENTS: PASSED, THREADS: PASSED, AGENTS + "[2]": SKIPPED}, "ok 2"),
        ({AGENTS: PASSED, THREADS: UNSTEADY}, "ok 2"),
        ({AGENTS: PASSED}, "EMPTY"),
        ({AGENTS: PASSED, THREADS: SKIPPED}, "EMPTY"),
        ({}, "EMPTY"),
        ({AGENTS: PASSED, THREADS: FAILED}, "FAILED"),
        ({AGENTS: CRASHED, THREADS: PASSED}, "FAILED"),
    ],
)
def test_a_cell_is_filled_by_a_test_that_passed_of_each_pattern(
    found: dict[str, str], word: str
) -> None:
    """Tests that were skipped, or lost with a rename, prove nothing."""
    assert cell(SYSTEM, "first", results(found))[0] == word


def test_a_session_that_was_not_run_leaves_its_cells_empty() -> None:
    """An environment that could not be made is not one that is fine."""
    assert cell(SYSTEM, "3.13", None) == ("EMPTY", "the session was not run")


def test_a_cell_that_cannot_be_filled_says_why() -> None:
    """What a library does not support, nobody can run."""
    assert cell(SYSTEM, "lowest", None) == ("-", "needs 3.12")
    assert cell(SYSTEM, "elsewhere", None) == ("-", "")


def test_the_table_names_versions_and_what_is_empty() -> None:
    """It is read by those who ask what was tried together."""
    sessions = {"first": results({}), "beside": results({})}

    lines = table(sessions, ["first", "3.12", "beside"])

    assert lines[0].split() == ["first", "3.12", "beside"]
    assert lines[1].split() == ["python", "3.11.0", "-", "3.11.0"]
    assert lines[2].split() == ["openai", "3.1.0", "-", "3.1.0"]
    assert any(line.startswith("EMPTY: 4 Django on first: none of") for line in lines)
    assert not is_complete(sessions, ["first"])


def test_every_system_is_proved_somewhere_and_every_gap_has_its_reason() -> None:
    """A row without tests would be told as if there were nothing to prove."""
    for system in SYSTEMS:
        assert system.patterns or system.elsewhere, system.title
        assert set(system.missing) <= set(EVERYWHERE), system.title
        assert all(system.missing.values()), system.title
    assert {system.title[0] for system in SYSTEMS} == set("123456789")


def test_the_paths_of_a_session_are_files_with_tests() -> None:
    """The environment with the lowest versions runs these and nothing else."""
    found = paths("lowest")

    assert "tests/web/test_django.py" in found
    assert all((ROOT / each).is_file() for each in found)


def test_no_file_about_a_system_is_run_nowhere() -> None:
    """An environment of their own runs what its column names, and nothing else."""
    files = {str(it.relative_to(ROOT)) for it in ROOT.glob("tests/systems/test_*.py")}

    assert files == set(paths(APART[0]))
    assert files >= set(paths(APART[1])) > set()


def test_unsteady_tests_are_named_with_the_order_they_failed_in() -> None:
    """Without it nobody can repeat what depends on the order."""
    lines = unsteady({"3.12": results({AGENTS: UNSTEADY, THREADS: PASSED})})

    assert [line.split() for line in lines[1:]] == [
        ["session", "seed", "test"],
        ["3.12", "7", AGENTS],
    ]
    assert unsteady({"3.12": results({AGENTS: PASSED})}) == []
