"""What reference pages list by hand is what there is."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, cast

import pytest

from agenttrace import render, semconv
from agenttrace.cli import asked
from agenttrace.semconv.metrics import HUNG, MEASURES, METRICS
from tests.docs.pages import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.model import Outcome

CLI = (ROOT / "docs/reference/cli.md").read_text()
METRICS_PAGE = (ROOT / "docs/reference/metrics.md").read_text()
STORE = (ROOT / "docs/reference/store.md").read_text()
TESTING = (ROOT / "docs/reference/testing.md").read_text()
TUTORIAL = (ROOT / "docs/tutorial/first-trace.md").read_text()


def first_cells(page: str, after: str) -> set[str]:
    """Return the code in the first column of the first table that follows *after*."""
    table = re.search(r"\n\|.*?\n(?!\|)", page.partition(after)[2], re.DOTALL)
    assert table is not None, f"no table after {after!r}"
    rows = table[0].strip().splitlines()[2:]
    return {code for row in rows for code in re.findall("`([^`]+)`", row.split("|")[1])}


def in_terminal(*arguments: str) -> str:
    """Return what a command prints."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@pytest.fixture
def store() -> Path:
    """Return a store in which the tutorial's two runs are."""
    in_terminal("examples/first_trace.py")
    return Path(os.environ["AGENTTRACE_STATE_DIR"]) / "traces.db"


@pytest.fixture
def told(store: Path) -> Mapping[str, Any]:
    """Return the last run as `agenttrace tree --json` tells it."""
    assert store.exists()
    printed = in_terminal("-m", "agenttrace.cli", "tree", "--json", "--last", "1")
    return cast("list[Mapping[str, Any]]", json.loads(printed))[0]


def shape(drawn: str) -> str:
    """Return a drawn tree without what differs from run to run."""
    drawn = re.sub(r"\b[0-9a-f]{8}\b", "TRACE", drawn)
    drawn = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", drawn)
    return re.sub(r"\d[\d.]* (?:µs|ms|s)\b", "DURATION", drawn).strip()


def test_the_tutorial_shows_what_its_reader_sees(store: Path) -> None:
    """A newcomer compares line by line, and looks for their mistake in a difference."""
    assert store.exists()
    [shown] = blocks(TUTORIAL, "text")

    drawn = in_terminal("-m", "agenttrace.cli", "tree", "--last", "2")

    assert shape(drawn) == shape(shown.code)


def test_the_fields_of_a_run_are_those_that_are_told(told: Mapping[str, Any]) -> None:
    """Scripts are written by this table."""
    assert first_cells(CLI, "Each run has these fields:") == set(told)


def test_the_fields_of_a_span_are_those_that_are_told(told: Mapping[str, Any]) -> None:
    """Scripts are written by this table."""
    assert first_cells(CLI, "and each span these:") == set(told["spans"][0])


def test_the_signs_are_those_that_are_drawn() -> None:
    """A sign that is not explained is a riddle."""
    rows = re.findall(r"^\| (\S) \| `(\w+)` \|", CLI, re.MULTILINE)

    drawn: Mapping[Outcome, tuple[str, str, str]] = vars(render)["_SYMBOLS"]
    assert dict(rows) == {sign: outcome.value for outcome, (sign, *_) in drawn.items()}


def test_the_columns_are_those_of_the_table(store: Path) -> None:
    """Queries are written by this table."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(spans)")}
        versions = connection.execute("PRAGMA user_version").fetchone()
    connection.close()

    assert first_cells(STORE, "`spans` has one row per span") == columns
    assert f"is the version of this schema, {versions[0]};" in STORE


@pytest.mark.parametrize("query", [block.code for block in blocks(STORE, "sql")])
def test_a_query_of_the_page_finds_something(query: str, store: Path) -> None:
    """A query that is copied and fails says that the schema is another one."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        rows = connection.execute(query).fetchall()
    connection.close()

    assert rows or "'chat'" in query  # the tutorial calls no model


def test_the_metrics_of_the_page_are_those_that_are_reported() -> None:
    """An alert on a name that is not there never comes.

    The table of all of them is made of the same one as the instruments.
    """
    named = set(re.findall(r"`(agenttrace(?:\.\w+)+)`", METRICS_PAGE))

    assert "```{metrics}\n```" in METRICS_PAGE
    assert "```{measures}\n```" in METRICS_PAGE
    assert named
    attributes = {semconv.ENDED_BY, HUNG}
    assert named - attributes <= {name for name, *_ in METRICS} | MEASURES.keys()


@pytest.mark.usefixtures("few_plugins")
def test_everything_that_the_pytest_plugin_adds_is_documented(
    pytester: pytest.Pytester,
) -> None:
    """What is added to a suite by itself must be found somewhere."""
    plugin = ("-p", "agenttrace.pytest_plugin")
    printed = "\n".join(
        pytester.runpytest_subprocess(*plugin, question).stdout.str()
        for question in ("--help", "--markers", "--fixtures")
    )

    added = set(re.findall(r"--agenttrace-\w+|\bagenttrace_(?!spans/)\w+", printed))

    assert added >= {"--agenttrace-leaks", "agenttrace_leaks", "agenttrace_spans"}
    assert [name for name in sorted(added) if f"`{name}" not in TESTING] == []


def test_the_fields_of_an_answer_are_those_that_are_told() -> None:
    """Scripts are written by these tables; a state that is not there is a riddle."""
    program = """
        import os, subprocess, sys, agenttrace
        agenttrace.configure()
        command = [sys.executable, "-m", "agenttrace.cli", "where", str(os.getpid())]
        with agenttrace.span("run"):
            subprocess.run([*command, "--json", "--timeout", "60"], check=True)
    """

    [process] = json.loads(in_terminal("-c", dedent(program)))["processes"]

    assert first_cells(CLI, "`processes`, each with these fields:") == set(process)
    assert first_cells(CLI, "Each step has these fields:") == set(process["steps"][0])
    assert first_cells(CLI, "These are the states:") == {
        *(asked.ANSWERED, asked.DEAD, asked.ENDED, asked.IDLE, asked.UNREADABLE),
        *asked.OWES,
    }
