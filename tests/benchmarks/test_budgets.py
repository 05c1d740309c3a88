"""No row of the budgets is exceeded by much: a smoke run, with room for neighbours.

A release is judged by `python -m tests.benchmarks` on a quiet machine.
"""

from __future__ import annotations

import pytest

from tests.benchmarks import harness
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
