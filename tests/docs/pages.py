"""Reads the code blocks of a page, and runs its Python as a reader would.

A block is Python if its fence says `python`.  One that cannot be run says why, in a
comment above it that no reader sees:

    <!-- not run: the mistake that this page is about -->
    ```python

In the same way `<!-- file: NAME -->` puts a block into a file that the others import.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_BLOCK: Final = re.compile(
    r"^(?:<!-- (?P<mark>not run|file): (?P<said>.*?) -->\n+)?"
    r"^(?P<fence>```+)(?P<kind>\w+)\n(?P<code>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_MARK: Final = re.compile(r"^<!-- (?:not run|file)\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        kind: What its fence says it is.
        code: What stands in it.
        line: The line of the page that its first line is, from 0.
        reason: Why it is not run, None if it is.
        file: The file it is to be in, None if it is part of the program.
    """

    kind: str
    code: str
    line: int
    reason: str | None = None
    file: str | None = None


def pages() -> list[str]:
    """Return every page that has Python to run, by its path from the top."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        str(page.relative_to(ROOT))
        for page in found
        if "_build" not in page.parts
        and any(block.kind == "python" for block in blocks(page.read_text()))
    ]


def blocks(text: str, kind: str = "") -> list[Block]:
    """Return the blocks of a page, of one *kind* if that is said."""
    found = [
        Block(
            match["kind"],
            match["code"],
            text.count("\n", 0, match.start("code")),
            match["said"] if match["mark"] == "not run" else None,
            match["said"] if match["mark"] == "file" else None,
        )
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if kind in ("", block.kind)]


def marks(text: str) -> int:
    """Return how often a page says what is to become of a block."""
    return len(_MARK.findall(text))


def program(text: str) -> str:
    """Return the Python of a page, each line where it stands on the page.

    So the line that a traceback names is the page's own.
    """
    lines = [""] * text.count("\n")
    for block in blocks(text, "python"):
        if block.reason is None and block.file is None:
            code = block.code.splitlines()
            lines[block.line : block.line + len(code)] = code
    return "\n".join(lines) + "\n"


def run(
    text: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the Python of a page in a process of its own; tests by pytest."""
    script = folder / "page.py"
    script.write_text(program(text))
    for block in blocks(text, "python"):
        if block.file is not None:
            (folder / block.file).write_text(block.code)
    how = [sys.executable, script.name]
    env = {**os.environ, **environment}
    if re.search(r"^(async )?def test_", script.read_text(), re.MULTILINE):
        how[1:1] = ["-m", "pytest", "-q", "-p", "agenttrace.pytest_plugin"]
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        how,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
