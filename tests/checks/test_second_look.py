"""A few failed tests are looked at again; everything else that fails stays failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.checks.second_look import AT_MOST, refusal
from tests.checks.sessions import (
    CRASHED,
    FAILED,
    PASSED,
    SKIPPED,
    UNSTEADY,
    VARIABLE,
    Results,
    read,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.usefixtures("few_plugins")
ROOT = Path(__file__).parents[2]
PLUGINS = "xdist.plugin,tests.checks.results"
SUITE = """
import os, pathlib, pytest

TIMES = pathlib.Path("times")

def test_steady():
    pass

def test_not_here():
    pytest.skip("it needs a moon")

def test_unsteady():
    TIMES.write_text((TIMES.read_text() if TIMES.exists() else "") + "x")
    assert TIMES.read_text() != "x"

@pytest.fixture
def broken():
    yield
    assert os.environ.get("BROKEN") is None

def test_broken(broken):
    pass

def test_gone():
    if os.environ.get("GONE"):
        os._exit(3)
"""


def results(tests: dict[str, str], status: int = 1) -> Results:
    """Return what a session wrote that came to *tests*."""
    return Results(
        python="3.11.0",
        versions={},
        exit=status,
        seed=1,
        options=[],
        tests=tests,
        reasons={},
    )


def named(words: Iterable[str]) -> dict[str, str]:
    """Return tests that came to *words*."""
    return {f"test_{number}": word for number, word in enumerate(words)}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python's in the folder of the test."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "PYTEST_PLUGINS": PLUGINS}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def a_session(file: Path, *options: str, **variables: str) -> None:
    """Run the suite, which writes its results to *file*."""
    run("pytest", *options, **{VARIABLE: str(file)}, **variables)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (results(named([FAILED] * AT_MOST)), None),
        (results(named([PASSED, SKIPPED, FAILED])), None),
        (results(named([FAILED] * (AT_MOST + 1))), "more than 3"),
        (results(named([FAILED, CRASHED])), "crashed in test_1"),
        (results(named([PASSED])), "exit status 1, and 0 tests failed"),
        (results(named([FAILED]), status=5), "exit status 5"),
        (results(named([FAILED]), status=2), "exit status 2"),
    ],
)
def test_only_a_few_failed_tests_are_looked_at_again(
    found: Results, why: str | None
) -> None:
    """What else fails is no accident of one test, and is not to be smoothed over."""
    said = refusal(found)

    assert (said is None) == (why is None)
    assert why is None or why in str(said)


def test_a_test_that_passes_by_itself_is_called_unsteady_and_the_stage_goes_on(
    pytester: pytest.Pytester,
) -> None:
    """One accident does not stop a release, and it does not go unsaid either."""
    pytester.makepyfile(test_it=SUITE)
    file = pytester.path / "results.json"
    a_session(file, "-n0", "-p", "no:cacheprovider", "test_it.py")
    first = read(file)

    looked = run("tests.checks.second_look", str(file))

    assert looked.returncode == 0, looked.stdout
    assert first["tests"] == {
        "test_it.py::test_steady": PASSED,
        "test_it.py::test_not_here": SKIPPED,
        "test_it.py::test_unsteady": FAILED,
        "test_it.py::test_broken": PASSED,
        "test_it.py::test_gone": PASSED,
    }
    assert first["reasons"] == {"test_it.py::test_not_here": "it needs a moon"}
    assert read(file)["tests"]["test_it.py::test_unsteady"] == UNSTEADY
    assert "*** UNSTEADY: test_it.py::test_unsteady" in looked.stdout
    assert (pytester.path / "times").read_text() == "xxxx"


def test_a_test_that_fails_again_fails_the_stage(pytester: pytest.Pytester) -> None:
    """A failure in teardown counts as well."""
    pytester.makepyfile(test_it=SUITE)
    file = pytester.path / "results.json"
    write(file, results({"test_it.py::test_broken": FAILED}))

    looked = run("tests.checks.second_look", str(file), BROKEN="1")

    assert looked.returncode == 1
    assert "*** it failed again: test_it.py::test_broken" in looked.stdout
    assert read(file)["tests"]["test_it.py::test_broken"] == FAILED


def test_a_worker_that_is_gone_is_no_failed_test(pytester: pytest.Pytester) -> None:
    """It is the test that ran which is blamed, whatever killed the process."""
    pytester.makepyfile(test_it=SUITE)
    file = pytester.path / "results.json"

    a_session(file, "-n1", GONE="1")

    assert read(file)["tests"]["test_it.py::test_gone"] == CRASHED
    assert refusal(read(file)) == "a process crashed in test_it.py::test_gone"


def test_a_session_without_results_failed(pytester: pytest.Pytester) -> None:
    """Nobody knows what it would have found."""
    looked = run("tests.checks.second_look", str(pytester.path / "none.json"))

    assert looked.returncode == 1
    assert "did not come to its end" in looked.stdout
