"""Prints the unsteady tests of several sessions: `python -m tests.checks.unsteady DIR`.

DIR holds what the sessions wrote about themselves.  Nothing is printed if all were
steady.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.checks.sessions import UNSTEADY, read_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.checks.sessions import Results


def table(sessions: Mapping[str, Results]) -> list[str]:
    """Return the lines of the table, none if there is nothing to tell."""
    rows = [
        (session, str(results["seed"]), name)
        for session, results in sessions.items()
        for name, became in sorted(results["tests"].items())
        if became == UNSTEADY
    ]
    if not rows:
        return []
    return [
        "==> unsteady tests: each failed, and passed by itself.  Each is a bug.",
        *(
            f"    {session:<10} {seed:>11}  {name}"
            for session, seed, name in [("session", "seed", "test"), *rows]
        ),
    ]


if __name__ == "__main__":
    for line in table(read_all(Path(sys.argv[1]))):
        sys.stdout.write(f"{line}\n")
