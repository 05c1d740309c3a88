"""The instants at which tests kill a process are nothing to an application."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from agenttrace import crashpoints

if TYPE_CHECKING:
    from pathlib import Path


def setters(source: str) -> list[int]:
    """Return the lines of *source* that could set the hook."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (
            isinstance(node, ast.Attribute)
            and node.attr == "hook"
            and isinstance(node.ctx, ast.Store)
        )
        or (isinstance(node, ast.Global) and "hook" in node.names)
    ]


def test_no_module_sets_the_hook(package: Path) -> None:
    """A way to kill a process must not be a setting."""
    found = {
        file.name: lines
        for file in package.rglob("*.py")
        if (lines := setters(file.read_text()))
    }

    assert found == {}
    assert crashpoints.hook is None


def test_a_module_that_sets_it_would_be_found() -> None:
    """A search that finds nothing holds no line."""
    assert setters("import crashpoints\ncrashpoints.hook = print\n") == [2]
    assert setters("def f():\n    global hook\n    hook = print\n") == [2]


def test_without_a_hook_nothing_happens() -> None:
    """It is called on every frame."""
    crashpoints.crash_point("anywhere")
