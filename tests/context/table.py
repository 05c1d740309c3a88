"""Prints the table scenario x runner, and fails the session if a cell of it is empty.

A plugin, because under xdist the process that prints collects no tests: all it knows is
in the reports.  Each test that takes the fixture `runner` names its cell in a property
of its report.  A cell is empty if no report came for it although its row was begun; a
session that was told to leave tests out, or was stopped, has nothing to complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

CELL: Final = "agenttrace-cell"
"""The property that names a cell: row, column, and why it cannot exist or None."""

_NARROWING: Final = ("keyword", "markexpr", "lf", "failedfirst", "stepwise", "deselect")
_OK: Final = "ok"
_FAILED: Final = "FAILED"


def cells_of(
    reports: Iterable[Any],
) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Return the word in each cell, and why columns that cannot exist do not."""
    cells: dict[tuple[str, str], str] = {}
    reasons: dict[str, str] = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name != CELL:
                continue
            row, column, missing = value
            if missing is not None:
                reasons[column] = missing
                cells[row, column] = "-"
            elif report.failed:
                cells[row, column] = _FAILED
            elif report.when == "call" and cells.get((row, column)) != _FAILED:
                cells[row, column] = _OK if report.passed else str(report.outcome)
    return cells, reasons


def empty_cells(cells: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return the cells that no report came for, of rows and columns that were begun."""
    rows = {row for row, _ in cells}
    columns = {column for _, column in cells}
    return sorted({(row, column) for row in rows for column in columns} - cells.keys())


def _reports(config: pytest.Config) -> list[Any]:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    return [
        report
        for kind in ("passed", "failed", "error", "skipped", "")
        for report in reporter.stats.get(kind, ())
        if hasattr(report, "when")
    ]


def _is_narrowed(config: pytest.Config) -> bool:
    return any(config.getoption(option, None) for option in _NARROWING) or any(
        "::" in argument for argument in config.args
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a complete session whose table is not."""
    if hasattr(session.config, "workerinput") or _is_narrowed(session.config):
        return
    cells, _ = cells_of(_reports(session.config))
    if empty_cells(cells) and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
    ):
        # Not TESTS_FAILED: those few that did may be looked at again, a cell may not.
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    cells, reasons = cells_of(_reports(config))
    if not cells:
        return
    rows = sorted({row for row, _ in cells})
    columns = sorted({column for _, column in cells})
    first = max(map(len, rows)) + 2
    terminalreporter.section("context safety: scenario x runner")
    write = terminalreporter.write_line
    write(" " * first + "".join(f"{column:>15}" for column in columns))
    for row in rows:
        words = (cells.get((row, column), "EMPTY") for column in columns)
        write(row.ljust(first, ".") + "".join(f"{word:>15}" for word in words))
    for column, reason in sorted(reasons.items()):
        write(f"- {column}: {reason}")
    for row, column in empty_cells(cells):
        write(f"EMPTY: {row} was not run on {column}")
