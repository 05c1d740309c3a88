"""The documentation is complete, and its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import TYPE_CHECKING

import agenttrace
from agenttrace import testing
from agenttrace.cli.group import COMMANDS
from agenttrace.settings import DESCRIBED
from agenttrace.testing import model_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FENCED = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)
DOCUMENTED = re.compile(
    r"^```\{public\}[ ]+(?P<names>.+)\n(?::of: (?P<of>\S+)\n)?", re.MULTILINE
)
COMMAND = re.compile(r"^```\{help\} (\w+)$", re.MULTILINE)
VERSION = agenttrace.__version__


def pages(tracked: list[Path]) -> list[Path]:
    """Return every Markdown page of the repository."""
    return [file for file in tracked if file.suffix == ".md"]


def links_of(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path and anchor of each link of *page* that stays in the repository."""
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of *page*'s headings, made as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    plain = (re.sub(r"[^\w\s-]", "", heading).lower() for heading in headings)
    return {text.strip().replace(" ", "-") for text in plain}


def documented(page: str, module: str) -> list[str]:
    """Return the names of *module* that are documented on *page*."""
    found = [
        match["names"].split()
        for match in DOCUMENTED.finditer(page)
        if (match["of"] or "agenttrace") == module
    ]
    return sorted(itertools.chain.from_iterable(found))


def test_every_link_leads_to_a_file(repo: Path, tracked: list[Path]) -> None:
    """Whoever follows one is in need of what it promises."""
    dead = [
        f"{page.relative_to(repo)}: {path}"
        for page in pages(tracked)
        for path, _ in links_of(page)
        if path and not (page.parent / path).exists()
    ]

    assert dead == []


def test_every_anchor_leads_to_a_heading(repo: Path, tracked: list[Path]) -> None:
    """A heading that is reworded takes its links along, or they die quietly."""
    dead = [
        f"{page.relative_to(repo)}: {path}#{anchor}"
        for page in pages(tracked)
        for path, anchor in links_of(page)
        if anchor
        and (target := page.parent / path if path else page).suffix == ".md"
        and anchor not in anchors_of(target)
    ]

    assert dead == []


def test_every_public_name_is_documented(repo: Path) -> None:
    """What is exported is promised; what is promised is explained."""
    reference = (repo / "docs/reference/api.md").read_text()

    assert documented(reference, "agenttrace") == sorted(agenttrace.__all__)


def test_every_public_name_of_the_testing_kit_is_documented(repo: Path) -> None:
    """The kit is public as well, and it is found on its page or not at all."""
    reference = (repo / "docs/reference/testing.md").read_text()

    assert documented(reference, "agenttrace.testing") == sorted(testing.__all__)
    assert documented(reference, "agenttrace.testing.model_server") == sorted(
        model_server.__all__
    )


def test_every_command_is_documented(repo: Path) -> None:
    """The page is made of their help texts; it has to ask for each."""
    page = (repo / "docs/reference/cli.md").read_text()

    assert sorted(COMMAND.findall(page)) == sorted(COMMANDS)


def test_every_argument_of_configure_is_documented(repo: Path) -> None:
    """A setting that nobody can find is a default.

    The page tables the settings by itself; the rest it has to say.
    """
    page = (repo / "docs/reference/configuration.md").read_text()
    arguments = set(inspect.signature(agenttrace.configure).parameters)

    said = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))

    assert said == arguments - {each.name for each in DESCRIBED}


def test_every_attribute_of_our_own_is_explained(repo: Path) -> None:
    """The page is made of these docstrings; OpenTelemetry explains its own names."""
    body = ast.parse((repo / "agenttrace/semconv/__init__.py").read_text()).body

    unexplained = [
        constant.value
        for statement, after in itertools.pairwise([*body, ast.Pass()])
        for constant in ast.walk(statement)
        if isinstance(constant, ast.Constant)
        and isinstance(constant.value, str)
        and constant.value.startswith("agenttrace.")
        and not isinstance(statement, ast.Expr)
        and not isinstance(after, ast.Expr)
    ]

    assert unexplained == []


def test_a_how_to_ends_in_how_to_tell_that_it_worked(repo: Path) -> None:
    """A reader who has done all of it wants to know whether, and if not, why."""
    endings = {
        page.name: HEADING.findall(FENCED.sub("", page.read_text()))[-2:]
        for page in (repo / "docs/how-to").glob("*.md")
    }

    assert endings
    assert set(map(tuple, endings.values())) == {("Verify", "Troubleshooting")}
