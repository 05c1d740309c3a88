"""The catalogue as a program: `python -m tests.hangs --runs 10`.

Exit status 1 if a hang was not found, or told wrong, or a healthy program was blamed.
It takes about a minute and a half for each of the runs, on two cores.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tests.hangs import table
from tests.hangs.catalogue import everything
from tests.hangs.running import AT_A_TIME, Result, jobs_of, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what *arguments* ask for; return the exit status."""
    workloads = everything()
    parser = argparse.ArgumentParser(
        prog="python -m tests.hangs",
        description="Run programs that hang, and healthy ones; compare what is told.",
    )
    parser.add_argument("--runs", type=int, default=1, help="of each (1)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=(), help="these; `--list` has them"
    )
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument(
        "--at-a-time", type=int, default=AT_A_TIME, help=f"processes ({AT_A_TIME})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"renew {table.PAGE.name}")
    said = parser.parse_args(arguments)
    if said.list:
        for each in workloads:
            print(f"{each.name:<45} {each.title}")
        return 0
    if unknown := set(said.only) - {each.name for each in workloads}:
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    chosen = [each for each in workloads if not said.only or each.name in said.only]
    jobs = jobs_of(chosen, said.runs)
    results = run_all(jobs, _Progress(len(jobs)).tell, at_a_time=said.at_a_time)
    if said.json:
        print(table.as_json(results))
    else:
        table.show(results)
    if said.write:
        table.write(results)
    return int(bool(results.failed))


class _Progress:
    """Tells how far it is: in place on a terminal, else twenty lines; and failures."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._done = self._next = 0

    def tell(self, result: Result) -> None:
        self._done += 1
        line = f"{self._done} of {self._jobs} runs"
        if result.wrong:
            name, loop = result.job.workload.name, result.job.loop
            print(f"\nFAILED: {name} on {loop}", file=sys.stderr, flush=True)
            for each in result.wrong:
                print(f"  {each}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
        elif self._done >= self._next:
            self._next = self._done + self._jobs // 20
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
