"""What came of the catalogue, for terminals, for programs and for the page."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.hangs.catalogue import Blocked, Verdict
from tests.hangs.running import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.hangs.catalogue import Workload
    from tests.hangs.running import Result, Results

PAGE: Final = REPOSITORY / "docs" / "explanation" / "false-alarms.md"
_BEGIN: Final = "<!-- begin: written by python -m tests.hangs --write -->"
_END: Final = "<!-- end -->"
_DISTRIBUTIONS: Final = ("opentelemetry-sdk", "openai", "openai-agents", "uvloop")


class Row(NamedTuple):
    """What came of one program.

    Args:
        workload: The program.
        runs: How often it was run.
        failed: How often it was not as it should be.
        late: Seconds from limit to verdict, of every run that had one.
    """

    workload: Workload
    runs: int
    failed: int
    late: list[float]

    @property
    def verdict(self) -> str:
        """What is to be heard of it."""
        expected = self.workload.expected
        if isinstance(expected, Verdict):
            return f"`{expected.outcome}`, `{expected.cause}`"
        return "a blocked loop" if isinstance(expected, Blocked) else "nothing"


def rows_of(found: Sequence[Result]) -> list[Row]:
    """Return a row for each program, those that hang first."""
    runs = Counter(each.job.workload.name for each in found)
    failed = Counter(each.job.workload.name for each in found if each.wrong)
    late: dict[str, list[float]] = {}
    workloads: dict[str, Workload] = {}
    for each in found:
        name = each.job.workload.name
        workloads[name] = each.job.workload
        if each.late is not None:
            late.setdefault(name, []).append(each.late)
    rows = [
        Row(workload, runs[name], failed[name], late.get(name, []))
        for name, workload in workloads.items()
    ]
    return sorted(rows, key=lambda row: (row.workload.is_healthy, row.workload.module))


def summary(results: Results) -> str:
    """Return the two numbers, in two sentences."""
    rows = rows_of(results.found)
    hangs = [row for row in rows if not row.workload.is_healthy]
    healthy = [row for row in rows if row.workload.is_healthy]
    late = [each for row in hangs for each in row.late]
    parts: list[str] = []
    if hangs:
        runs = sum(row.runs for row in hangs)
        good = runs - sum(row.failed for row in hangs)
        parts.append(
            f"{len(hangs)} programs that hang, {runs} runs: {good} found, with the "
            "right span, cause and line"
        )
    if late:
        parts[-1] += f", {median(late):.2f} s after the limit (median)"
    if healthy:
        runs = sum(row.runs for row in healthy)
        alarms = sum(row.failed for row in healthy)
        parts.append(
            f"{len(healthy)} healthy programs, {runs} runs: {alarms} false alarms"
        )
    return ". ".join(parts) + "."


def circumstances(results: Results) -> str:
    """Return when, on what and with what it was run, as one sentence."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [
        datetime.now(UTC).date().isoformat(),
        f"{os.cpu_count()} cores",
        f"{platform.system()} {platform.release().partition('-')[0]}",
        python,
        *(f"{name} {version(name)}" for name in _DISTRIBUTIONS),
        f"{results.seconds / 60:.0f} minutes",
    ]
    return ", ".join(parts) + "."


def as_json(results: Results) -> str:
    """Return everything for programs."""
    rows = [
        {
            "name": row.workload.name,
            "title": row.workload.title,
            "is_healthy": row.workload.is_healthy,
            "runs": row.runs,
            "failed": row.failed,
            "late": [round(each, 3) for each in row.late],
        }
        for row in rows_of(results.found)
    ]
    failed = [
        {"name": each.job.workload.name, "loop": each.job.loop, "wrong": each.wrong}
        for each in results.failed
    ]
    told = {"summary": summary(results), "measured": circumstances(results)}
    return json.dumps({**told, "rows": rows, "failed": failed}, indent=2)


def as_markdown(results: Results) -> str:
    """Return the two tables of the page."""
    rows = rows_of(results.found)
    lines = [
        "| hangs | to be told | runs | found | after the limit, at worst |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.workload.title} | {row.verdict} | {row.runs} "
        f"| {row.runs - row.failed} | {_worst(row)} |"
        for row in rows
        if not row.workload.is_healthy
    ]
    lines += ["", "| is healthy | runs | false alarms |", "|---|---|---|"]
    lines += [
        f"| {row.workload.title} | {row.runs} | {row.failed} |"
        for row in rows
        if row.workload.is_healthy
    ]
    return "\n".join(lines)


def show(results: Results) -> None:
    """Print the table, in colours where rich is installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - it comes with an extra
        from rich.table import Table  # noqa: PLC0415 - the same
    except ImportError:
        print(f"{as_markdown(results)}\n\n{summary(results)}")  # noqa: T201 - what was asked for
        return
    table = Table(caption=circumstances(results))
    for title in ("", "to be told", "runs", "as it should be", "after the limit"):
        table.add_column(
            title, justify="left" if title in ("", "to be told") else "right"
        )
    for row in rows_of(results.found):
        colour = "bold red" if row.failed else "green"
        table.add_row(
            row.workload.title,
            row.verdict.replace("`", ""),
            str(row.runs),
            f"[{colour}]{row.runs - row.failed}[/]",
            _worst(row),
        )
    console = Console()
    console.print(table)
    for each in results.failed:
        console.print(f"{each.job.workload.name} on {each.job.loop}:", style="bold red")
        for complaint in each.wrong:
            console.print(f"  {complaint}", markup=False)
    console.print(summary(results))


def write(results: Results) -> None:
    """Put the tables into the page of the documentation."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    made = (
        f"{_BEGIN}\n{summary(results)}\n\n{as_markdown(results)}\n\n"
        f"{circumstances(results)}\n{_END}"
    )
    PAGE.write_text(before + made + after)


def _worst(row: Row) -> str:
    return f"{max(row.late):.1f} s" if row.late else ""
