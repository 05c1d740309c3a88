"""The table scenario x runner has no empty cell, or the session fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CELLS = """
import pytest
from tests.context.table import CELL

@pytest.mark.parametrize("column", ["one", "other"])
@pytest.mark.parametrize("row", ["first", "second"])
def test_cell(row, column, record_property):
    if (row, column) != {empty}:
        record_property(CELL, [row, column, None])
    assert (row, column) != {failing}

def test_missing(record_property):
    record_property(CELL, ["first", "missing", "it does not run here"])
    record_property(CELL, ["second", "missing", "it does not run here"])
    pytest.skip("it does not run here")
"""
pytestmark = pytest.mark.usefixtures("few_plugins")
ARGUMENTS = ("-p", "tests.context.table", "-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def _the_plugin_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sessions find this folder, which is no part of what is installed."""
    inherited = os.environ.get("PYTHONPATH")
    paths = [str(Path(__file__).parents[2]), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def run(
    pytester: pytest.Pytester, *arguments: str, **holes: object
) -> pytest.RunResult:
    """Run a session of its own that fills a table of two by two."""
    made = {"empty": None, "failing": None} | holes
    pytester.makepyfile(CELLS.format(**made))
    return pytester.runpytest_subprocess(*ARGUMENTS, *arguments)


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_the_table_is_printed_whoever_runs_the_tests(
    pytester: pytest.Pytester, workers: str
) -> None:
    """Under xdist the process that prints has nothing but reports."""
    result = run(pytester, workers, failing=("second", "other"))

    result.stdout.re_match_lines(
        [
            r"=+ context safety: scenario x runner =+",
            r" +missing +one +other",
            r"first\.+ +- +ok +ok",
            r"second\.+ +- +ok +FAILED",
            r"- missing: it does not run here",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_complete_table_lets_the_session_pass(pytester: pytest.Pytester) -> None:
    """A check that always fails is switched off."""
    result = run(pytester, "-n0")

    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_an_empty_cell_fails_the_session(
    pytester: pytest.Pytester, workers: str
) -> None:
    """A scenario that was never run on a loop has not been proved there."""
    result = run(pytester, workers, empty=("second", "one"))

    result.stdout.fnmatch_lines(["EMPTY: second was not run on one"])
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_whoever_asks_for_some_tests_gets_some_cells(pytester: pytest.Pytester) -> None:
    """A narrowed session has nothing to complete."""
    result = run(pytester, "-n0", "-k", "first", empty=("first", "one"))

    assert result.ret == pytest.ExitCode.OK
