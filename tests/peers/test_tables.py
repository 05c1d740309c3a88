"""The tables on other instrumentations say what was found, and of whom."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import pytest

from tests.peers.__main__ import PAGE
from tests.peers.tables import AS_ERROR, BEGIN, END, broken, page_part, with_part

DATE = dt.date(2026, 1, 2)
CALLS: Final[dict[str, Any]] = {
    "create()": {
        "cases": 9,
        "failed": 3,
        "broken": {
            "every span ends": [
                "when it is left: still open:\n  chat",
                "when it is cut: open",
            ],
            "a span says how it ended": [
                "when it is cancelled: 'chat' has the status ERROR: it was cancelled",
                "when it is cut: 'chat' says that it was ok: it was error",
            ],
        },
        "skipped": [],
    }
}
FOUND: Final[dict[str, Any]] = {
    "logfire": {"versions": {"logfire": "5", "openai": "3"}, "calls": CALLS},
    "langfuse": {"failed": "ImportError: no"},
}


def test_cases_are_counted_and_cancellations_by_themselves() -> None:
    """Whether they are errors is a convention; that a span stays open is none."""
    assert broken(CALLS) == {
        "every span ends": {
            "`create()` when it is left": "still open",
            "`create()` when it is cut": "open",
        },
        AS_ERROR: {
            "`create()` when it is cancelled": "'chat' has the status ERROR: it was "
            "cancelled"
        },
        "a span says how it ended": {
            "`create()` when it is cut": "'chat' says that it was ok: it was error"
        },
    }


def test_the_part_names_versions_numbers_and_who_was_not_run() -> None:
    """A number without a version is hearsay in a month."""
    lines = page_part(FOUND, DATE).splitlines()

    assert (lines[0], lines[-1]) == (BEGIN, END)
    assert "Examined on 2026-01-02, with openai 3." in lines
    assert "| Logfire | 5 | 3 of 9 |" in lines
    assert "| Langfuse | - | not run: `ImportError: no` |" in lines
    assert "| Logfire | 2 | 1 | 1 |" in lines
    assert (
        "- Logfire, *every span ends*: `create()` when it is left: still open" in lines
    )


def test_the_part_is_put_where_the_page_has_its_place() -> None:
    """What stands around it is written by people."""
    part = page_part(FOUND, DATE)
    page = with_part(f"before\n{BEGIN}\nold\n{END}\nafter\n", part)

    assert page == f"before\n{part}\nafter\n"
    assert with_part(PAGE.read_text(), part).count(BEGIN) == 1
    with pytest.raises(ValueError, match="has no"):
        with_part("no place\n", part)
