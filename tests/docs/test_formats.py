"""What the pages say of files is what their modules say, and what those write."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import struct
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from agenttrace.cli.group import group
from agenttrace.delivery import frames
from agenttrace.journal import format as journal
from tests.docs.pages import ROOT
from tests.docs.test_reference_pages import CLI, first_cells

if TYPE_CHECKING:
    from pathlib import Path

ROW = re.compile(r"^ *(\d+) +(\d+|)  ", re.MULTILINE)
FORMAT = re.compile(r"^```\{format\} (\S+)$", re.MULTILINE)


def rows(text: str) -> list[tuple[int, int]]:
    """Return offset and size of the rows of the tables in *text*."""
    return [(int(offset), int(size or 0)) for offset, size in ROW.findall(text)]


def gaps(table: list[tuple[int, int]]) -> list[int]:
    """Return the offsets that do not follow what stands before them."""
    return [
        offset
        for (before, size), (offset, _) in itertools.pairwise(table)
        if before + size != offset
    ]


@pytest.mark.parametrize("page", ["journal", "spool"])
def test_a_page_of_a_format_is_its_modules_own_description(page: str) -> None:
    """A table that is typed a second time is wrong after the first change."""
    [named] = FORMAT.findall((ROOT / f"docs/reference/{page}.md").read_text())

    assert rows(importlib.import_module(named).__doc__ or "")


def test_the_journals_tables_have_no_gaps_and_the_sizes_that_are_written() -> None:
    """Who writes a reader from the page must find every byte where it says."""
    described = rows(journal.__doc__ or "")
    slots = described.index((0, 8), 1)
    header, slot = described[:slots], described[slots:]

    assert gaps(header) == gaps(slot) == []
    assert header[-1] == (journal.HEADER_START, 0)
    assert (journal.LAST_TICK, 8) in header
    assert sum(slot[-1]) == journal.SLOT_SIZE
    assert (journal.ERROR_CELL + 1, journal.ERROR_SIZE) in slot
    assert journal.PAYLOAD_START + journal.PAYLOAD.size == journal.ERROR_CELL


def test_the_spools_tables_have_no_gaps_and_the_sizes_that_are_written() -> None:
    """The same, for the files that hold what was not delivered."""
    described = re.findall(
        r"^ {4}(\d+) +(24 n|\d+|\.\.\.) ", frames.__doc__ or "", re.MULTILINE
    )
    header = [(int(at), int(size)) for at, size in described[:4] if size.isdigit()]
    record = [(int(at), int(size)) for at, size in described[5:] if size.isdigit()]

    assert gaps(header) == gaps(record) == []
    assert sum(header[-1]) == frames.HEADER_SIZE == len(frames.header())
    assert header[-1][0] == frames.ACKNOWLEDGED_AT
    assert sum(record[-1]) == struct.calcsize("<III")
    assert described[4] == (str(frames.HEADER_SIZE), "...")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks: nothing is taken over")
def test_the_fields_of_a_recovery_are_those_that_are_told(tmp_path: Path) -> None:
    """Scripts are written by this table."""
    ran = CliRunner().invoke(group, ["recover", "--json", "--state-dir", str(tmp_path)])

    assert first_cells(CLI, "`--json` prints one object:") == set(
        json.loads(ran.stdout)
    )


def test_the_checks_of_the_doctor_are_those_that_are_told(tmp_path: Path) -> None:
    """A check that is not explained is a riddle, and a remedy for nothing."""
    ran = CliRunner().invoke(group, ["doctor", "--json", "--state-dir", str(tmp_path)])

    told = {each["check"] for each in json.loads(ran.stdout)}
    assert told <= first_cells(CLI, "{help} doctor")
