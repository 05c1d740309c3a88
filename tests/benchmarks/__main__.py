"""Measures every row of the budgets: `python -m tests.benchmarks`.

It takes minutes, and a machine on which nothing else runs.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from tests.benchmarks import harness, table
from tests.benchmarks.budgets import CASES

ROUNDS: Final = 12
PROCESSES: Final = 3


def main() -> int:
    """Measure and show; return 1 if a *must* was missed."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"renew {table.PAGE.name}")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    figures: list[harness.Figure] = []
    conditions: list[str] = []
    for case in arguments.cases or CASES:
        print(f"{case} ...", file=sys.stderr, flush=True)  # noqa: T201 - progress
        found, under = harness.measure(case, arguments.rounds, PROCESSES)
        figures += found
        conditions = list(dict.fromkeys([*conditions, *under]))
    if arguments.json:
        print(table.as_json(figures, conditions))  # noqa: T201 - what was asked for
    else:
        table.show(figures, conditions)
    if arguments.write:
        table.write(figures, conditions)
    return int(any(table.verdict(each) == "missed" for each in figures))


if __name__ == "__main__":
    sys.exit(main())
