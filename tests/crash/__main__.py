"""The soak as a program: `python -m tests.crash --kills 2000 --delay 0.3`.

Exit status 1 if a span was lost, told wrong or told in two forms, or if no kill found
one of the states.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.census import Found
from tests.crash.soak import Report, Soak

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak that *arguments* ask for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description="Kill a worker again and again; compare what arrives with truth.",
    )
    parser.add_argument("--kills", type=int, default=200, help="how many (200)")
    parser.add_argument(
        "--delay", type=float, default=0.0, help="seconds until the collector answers"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(2**32),  # noqa: S311 - nothing secret
        help="to repeat a run",
    )
    said = parser.parse_args(arguments)
    print(f"seed {said.seed}")
    with tempfile.TemporaryDirectory(prefix="agenttrace-crash-") as directory:
        progress = _Progress(said.kills)
        soak = Soak(Path(directory), kills=said.kills, delay=said.delay, seed=said.seed)
        report = soak.run(progress.tell)
    _close(report)
    return 0 if report.is_good else 1


class _Progress:
    """Tells how far a soak is: in place on a terminal, else ten lines."""

    def __init__(self, kills: int) -> None:
        self._kills = kills
        self._next = 0

    def tell(self, report: Report) -> None:
        line = f"{report.kills} of {self._kills} kills"
        if sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        elif report.kills >= self._next:
            self._next = report.kills + self._kills // 10
            print(line, file=sys.stderr, flush=True)


def _close(report: Report) -> None:
    found = report.findings
    print(f"\n{report.kills} kills in {report.seconds:.0f} s found:")
    for state in Found:
        print(f"  {state:<40}{report.states[state]:>8}")
    print(f"  {'(aimed at an instant that never came)':<40}{report.missed:>8}")
    print("spans:")
    rows = {
        "started": found.known,
        "told": found.told,
        "lost": len(found.lost),
        "with a wrong outcome, parent or service": len(found.wrong),
        "in two forms": len(found.split),
        "told again, byte for byte": found.redelivered,
        "  of so many in flight at the kills": report.in_flight,
        "  and more often than that explains": len(found.unexplained),
        **{f"  {outcome}": n for outcome, n in sorted(found.outcomes.items())},
    }
    for name, number in rows.items():
        print(f"  {name:<40}{number:>8}")
    for name, examples in (
        ("lost", found.lost),
        ("wrong", found.wrong),
        ("split", found.split),
        ("unexplained", found.unexplained),
        ("left behind", report.files),
        ("never seen", report.unseen),
    ):
        for example in examples[:_EXAMPLES]:
            print(f"{name}: {example}")
    print("nothing was lost" if report.is_good else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
