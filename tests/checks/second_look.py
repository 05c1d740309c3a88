"""Runs the few tests that failed again: `python -m tests.checks.second_look FILE`.

FILE is what a session wrote about itself (`tests.checks.sessions`).  If no more than
three tests failed, each is run three times in a row, by itself, in a fresh process.  If
all of that passes, they are called unsteady in FILE, and the exit status is 0.  In all
other cases it is 1: more failed, one failed again, a process crashed, or the session
failed for another reason than a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.checks.sessions import CRASHED, FAILED, UNSTEADY, VARIABLE, read, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.checks.sessions import Results

AT_MOST: Final = 3
"""How many tests may have failed; more are no accident."""

TIMES: Final = 3
"""How often in a row each of them has to pass."""

_TESTS_FAILED: Final = 1


def refusal(results: Results) -> str | None:
    """Return why there is no second look at *results*, or None if there is one."""
    failed = _all(results, FAILED)
    if crashed := _all(results, CRASHED):
        return f"a process crashed in {crashed[0]}"
    if results["exit"] != _TESTS_FAILED or not failed:
        return f"exit status {results['exit']}, and {len(failed)} tests failed"
    if len(failed) > AT_MOST:
        return f"{len(failed)} tests failed, more than {AT_MOST}"
    return None


def is_steady(name: str, options: Sequence[str]) -> bool:
    """Tell whether the test *name* passes each time, under a suite's *options*.

    What it prints goes where this process prints.
    """
    # Neither the folder that `-m` would put on the path, nor the suite's own file.
    command = [sys.executable, "-P", "-m", "pytest", *options, "-n0", name]
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    return all(
        subprocess.run(command, env=environment, check=False).returncode == 0
        for _ in range(TIMES)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the second look that *arguments* ask for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.checks.second_look",
        description="Run the few tests that failed three times each, by themselves.",
    )
    parser.add_argument("file", type=Path, help="what the session wrote about itself")
    file: Path = parser.parse_args(arguments).file
    try:
        results = read(file)
    except OSError as error:
        return _told(f"the session did not come to its end: {error}", 1)
    if (why := refusal(results)) is not None:
        return _told(f"no second look: {why}", 1)
    failed = _all(results, FAILED)
    for name in failed:
        _told(f"second look at {name}", 0)
        if not is_steady(name, results["options"]):
            return _told(f"it failed again: {name}", 1)
    results["tests"].update(dict.fromkeys(failed, UNSTEADY))
    write(file, results)
    for name in failed:
        _told(f"UNSTEADY: {name} failed once and passed {TIMES} times by itself", 0)
    return 0


def _all(results: Results, word: str) -> list[str]:
    return sorted(name for name, became in results["tests"].items() if became == word)


def _told(line: str, status: int) -> int:
    sys.stdout.write(f"*** {line}\n")
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
