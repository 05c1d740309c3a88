"""No row of the budgets is exceeded by much: a smoke run, with room for neighbours.

A release is judged by `python -m tests.benchmarks` on a quiet machine.
"""

from __future__ import annotations

import pytest

from tests.benchmarks import harness, table
from tests.benchmarks.budgets import BUDGETS, CASES

ROUNDS = 2


@pytest.mark.parametrize("case", CASES)
def test_no_budget_is_exceeded_by_much(case: str) -> None:
    """What made things twice as slow has to be seen in the change that did it."""
    figures, _ = harness.measure(case, ROUNDS)

    excess = {
        each.row: (each.value, BUDGETS[each.row].limit, each.made_of)
        for each in figures
        if each.value > BUDGETS[each.row].limit
    }
    assert excess == {}


def test_every_row_is_measured_by_one_case() -> None:
    """A row that nobody measures is a promise that nobody keeps."""
    measured = [row for rows in CASES.values() for row in rows]

    assert sorted(measured) == sorted(BUDGETS)


@pytest.mark.parametrize(
    ("samples", "reached"),
    [
        ([0.21, 0.22, 0.23], "aim"),
        ([0.30, 0.34, 0.40], "must"),
        ([0.34, 0.36, 0.37, 0.38, 0.39], "missed"),
        ([0.33, 0.34, 0.36, 0.38, 0.39], "at must"),
    ],
)
def test_what_a_row_reaches_is_said_with_its_spread(
    samples: list[float], reached: str
) -> None:
    """The median of a few rounds is on this side of a limit today and on that one."""
    assert table.verdict(harness.Figure("span", samples)) == reached
