"""What a newcomer finds: two commands that work, entry points, files of a good size."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import agenttrace

if TYPE_CHECKING:
    from pathlib import Path

FIRST_COMMAND = 'pip install ".[demo]" && agenttrace demo'
TEST_COMMAND = 'pip install ".[test]" && pytest'
MOST_LINES = 400
BASH = shutil.which("bash")


def test_the_checks_run_the_readmes_two_commands_to_the_letter(repo: Path) -> None:
    """A command that is only written down stops working unseen."""
    readme = (repo / "README.md").read_text()
    checks = (repo / ".ci/run").read_text()

    assert FIRST_COMMAND in readme
    assert TEST_COMMAND in readme
    assert FIRST_COMMAND in checks
    assert TEST_COMMAND in checks


def test_what_other_interpreters_need_not_run_is_there(repo: Path) -> None:
    """A file that was renamed is left out without a word no more, and run."""
    checks = (repo / ".ci/run").read_text()
    _, _, rest = checks.partition("second_suite() {")
    body, _, _ = rest.partition("\n}")
    left_out = " ".join(re.findall(r"same\+?=\(([^)]*)\)", body)).split()

    assert "crash" in left_out
    assert [name for name in left_out if not (repo / "tests" / name).exists()] == []


@pytest.mark.skipif(BASH is None, reason="they are written for bash")
def test_the_checks_name_the_stage_that_failed(repo: Path) -> None:
    """Even where what they report with does not run either."""
    done = subprocess.run(
        [str(BASH), repo / ".ci/run"],
        env={**os.environ, "PYTHON": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "==> FAILED: interpreters" in done.stderr


@pytest.mark.skipif(BASH is None, reason="they are written for bash")
def test_the_checks_fetch_from_all_places_that_pip_does(
    repo: Path, tmp_path: Path
) -> None:
    """A list that uv cannot read is passed over without a word."""
    config = """
        [global]
        index-url = https://one.example/simple
        extra-index-url =
            https://two.example/simple
            https://three.example/simple
        find-links =
            /wheels
            /more
        """
    (tmp_path / "pip.conf").write_text(dedent(config))
    environment = {
        name: value for name, value in os.environ.items() if name[:4] != "PIP_"
    }
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env={
            **environment,
            "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
            "PIP_TRUSTED_HOST": "two.example three.example",
        },
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    (tmp_path / "pip").write_bytes(told.stdout)
    _, start, rest = (repo / ".ci/run").read_text().partition("sources_of_pip() {")
    functions, _, _ = rest.partition("\nadd() {")

    done = subprocess.run(
        [str(BASH), "-euo", "pipefail", "-c", f"{start}{functions}\nsources_of_pip"],
        env={**environment, "scratch": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )

    wanted = {
        "UV_DEFAULT_INDEX": "https://one.example/simple",
        "UV_INDEX": "https://two.example/simple https://three.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "two.example three.example",
    }
    said = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert wanted.items() <= said.items()


def test_every_entry_point_leads_somewhere(repo: Path) -> None:
    """One that cannot be loaded breaks every pytest run on the machine."""
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"]} | project["entry-points"]

    for group, entries in groups.items():
        for name, target in entries.items():
            assert EntryPoint(name, target, group).load() is not None


def test_the_version_is_told_the_same_everywhere(repo: Path) -> None:
    """It is written twice, so that telling it needs no scan of the installation."""
    project = tomllib.loads((repo / "pyproject.toml").read_text())["project"]

    assert agenttrace.__version__ == project["version"]


def test_no_module_is_too_long_to_be_read_at_one_go(package: Path) -> None:
    """A module that grows past this has come to own two things."""
    too_long = {
        str(file.relative_to(package)): lines
        for file in package.rglob("*.py")
        if (lines := len(file.read_text().splitlines())) >= MOST_LINES
    }

    assert too_long == {}


def test_imports_that_a_fork_waits_for_share_no_name(package: Path) -> None:
    """The one that comes later is taken for done, and no fork waits for it."""
    imported: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.With):
                continue
            match node.items[0].context_expr:
                case ast.Call(ast.Name("no_fork_at_first"), [ast.Constant(str(name))]):
                    lines = ";".join(map(ast.unparse, node.body))
                    imported.setdefault(name, set()).add(lines)
                case _:
                    pass

    assert len(imported) > 1
    assert [name for name, lines in imported.items() if len(lines) > 1] == []


def test_no_module_is_called_after_nothing(package: Path) -> None:
    """What is kept in a `utils` belongs to somebody else."""
    nameless = {"common.py", "helpers.py", "misc.py", "utils.py", "util.py"}

    assert [file for file in package.rglob("*.py") if file.name in nameless] == []
