"""The table of what was measured, for terminals, for programs and for the page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks.budgets import BUDGETS
from tests.benchmarks.harness import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.harness import Figure

PAGE: Final = REPOSITORY / "docs" / "reference" / "benchmarks.md"
_BEGIN: Final = "<!-- begin: written by python -m tests.benchmarks --write -->"
_END: Final = "<!-- end -->"
_DISTRIBUTIONS: Final = ("opentelemetry-sdk", "openai")
_CPU_INFO: Final = Path("/proc/cpuinfo")


def circumstances(conditions: Sequence[str]) -> str:
    """Return when, on what and with what it was measured, as one sentence.

    Args:
        conditions: What of the defaults was not on.
    """
    versions = [f"{name} {version(name)}" for name in _DISTRIBUTIONS]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [datetime.now(UTC).date().isoformat(), _machine(), python, *versions]
    return ", ".join([*parts, *conditions]) + "."


def as_json(figures: Sequence[Figure], conditions: Sequence[str]) -> str:
    """Return everything for programs."""
    rows = [
        {
            **BUDGETS[each.row]._asdict(),
            **asdict(each),
            "value": each.value,
            "verdict": verdict(each),
        }
        for each in figures
    ]
    return json.dumps({"measured": circumstances(conditions), "rows": rows}, indent=2)


def as_markdown(figures: Sequence[Figure]) -> str:
    """Return the table of the page."""
    lines = [
        "| | measured | half of the rounds | must | aim | reaches |",
        "|---|---|---|---|---|---|",
    ]
    for each in figures:
        budget = BUDGETS[each.row]
        lines.append(
            f"| {budget.what} | {_number(each.value, budget.unit)} "
            f"| {_spread(each, budget.unit)} | {_number(budget.must, budget.unit)} "
            f"| {_number(budget.aim, budget.unit)} | {verdict(each)} |"
        )
    return "\n".join(lines)


def show(figures: Sequence[Figure], conditions: Sequence[str]) -> None:
    """Print the table, in colours where rich is installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - it comes with an extra
        from rich.table import Table  # noqa: PLC0415 - the same
    except ImportError:
        print(as_markdown(figures))  # noqa: T201 - what was asked for
        print(circumstances(conditions))  # noqa: T201 - the same
        return
    table = Table(caption=circumstances(conditions))
    for title in ("", "measured", "half of the rounds", "must", "aim", ""):
        table.add_column(title, justify="left" if not title else "right")
    colours = {
        "aim": "green",
        "must": "yellow",
        "at must": "dark_orange",
        "missed": "bold red",
    }
    for each in figures:
        budget = BUDGETS[each.row]
        word = verdict(each)
        table.add_row(
            f"{budget.what}\n[dim]{each.made_of}[/]" if each.made_of else budget.what,
            _number(each.value, budget.unit),
            _spread(each, budget.unit),
            _number(budget.must, budget.unit),
            _number(budget.aim, budget.unit),
            f"[{colours[word]}]{word}[/]",
        )
    Console().print(table)


def write(figures: Sequence[Figure], conditions: Sequence[str]) -> None:
    """Put the table into the page of the documentation."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    made = f"{_BEGIN}\n{as_markdown(figures)}\n\n{circumstances(conditions)}\n{_END}"
    PAGE.write_text(before + made + after)


def verdict(figure: Figure) -> str:
    """Return which of the two numbers *figure* reaches: `aim`, `must` or `missed`.

    Where *must* lies between the better quarter of the rounds and the other half, the
    same commit reaches it in one hour and misses it in the next: `at must`.
    """
    budget = BUDGETS[figure.row]
    if figure.value <= budget.aim:
        return "aim"
    if figure.value <= budget.must:
        return "must"
    return "at must" if figure.quartiles[0] <= budget.must else "missed"


def _spread(figure: Figure, unit: str) -> str:
    low, high = figure.quartiles
    return "" if low == high else f"{_number(low, unit)} to {_number(high, unit)}"


def _number(value: float, unit: str) -> str:
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def _machine() -> str:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(names)} cores, {names[0]}" if names else platform.machine()
