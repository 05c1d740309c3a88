"""What a session of tests says about itself in a file: the format, and nothing else.

A session writes one if the environment variable `TEST_RESULTS` names it
(`tests.checks.results`).  `.ci/run` has one for each of its environments.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE: Final = "TEST_RESULTS"
"""The environment variable that names the file."""

PASSED: Final = "passed"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"

CRASHED: Final = "crashed"
"""The process that ran the test is gone."""

UNSTEADY: Final = "unsteady"
"""The test failed, and passed when it was run again by itself (only a second look says
so)."""


class Results(TypedDict):
    """What a session came to.

    Keys:
        python: Its version.
        versions: Those of the libraries that the matrix is about, where installed.
        exit: The session's exit status.
        seed: Of the order of the tests, or None.
        options: What it was called with, without paths.
        tests: By node id, one of the words above.
        reasons: By node id, why a test was skipped.
    """

    python: str
    versions: dict[str, str]
    exit: int
    seed: int | None
    options: list[str]
    tests: dict[str, str]
    reasons: dict[str, str]


def read(file: Path) -> Results:
    """Return what stands in *file*.

    Raises:
        OSError: There is no such file: the session did not come to its end.
    """
    results: Results = json.loads(file.read_text())
    return results


def write(file: Path, results: Results) -> None:
    """Write *results* to *file*."""
    file.write_text(json.dumps(results, indent=1))


def read_all(folder: Path) -> dict[str, Results]:
    """Return what stands in each file of *folder*, by the file's name."""
    return {file.stem: read(file) for file in sorted(folder.glob("*.json"))}
