"""Recorders are colourless: they read facts and leave awaiting and ending alone.

A library's support is a table of patches and some recorders.  What waits, catches or
ends in there would have to be written twice, for the synchronous and the asynchronous
form, and the two would drift apart; `agenttrace.boundary` does it once.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_RECORDERS = {
    "_patching.py",  # installs and removes; a patch that fails must be caught
    "threading.py",  # carries contexts across executors; records nothing
}
COLOURED: dict[type[ast.AST], str] = {
    ast.AsyncFor: "async for",
    ast.AsyncFunctionDef: "async def",
    ast.AsyncWith: "async with",
    ast.Await: "await",
    ast.ExceptHandler: "except",
}


def offences(source: str) -> Iterator[str]:
    """Yield what a recorder must not contain, with its line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="end")):
                yield f"{node.lineno}: .end("
            case ast.comprehension(is_async=1):
                yield f"{node.target.lineno}: async for"
            case ast.stmt() | ast.expr() | ast.ExceptHandler():
                colour = COLOURED.get(type(node))
                if colour is not None:
                    yield f"{node.lineno}: {colour}"
            case _:
                pass


def test_recorders_neither_wait_nor_catch_nor_end(package: Path) -> None:
    """The boundary alone knows the shapes, so that a fix is made once."""
    found = {
        str(file.relative_to(package)): list(offences(file.read_text()))
        for file in (package / "instrumentation").rglob("*.py")
        if file.name not in NO_RECORDERS
    }

    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("async def f(): pass", "1: async def"),
        ("async def f():\n    await g()", "2: await"),
        ("async def f():\n    async for _ in g(): pass", "2: async for"),
        ("async def f():\n    return [x async for x in g()]", "2: async for"),
        ("async def f():\n    async with g(): pass", "2: async with"),
        ("try: f()\nexcept* OSError: pass", "2: except"),
        ("try: f()\nexcept OSError: pass", "2: except"),
        ("span.end()", "1: .end("),
    ],
)
def test_the_check_sees_each_of_them(source: str, offence: str) -> None:
    """A check that cannot fail holds no line."""
    found = list(offences(source))

    assert offence in found


def test_the_check_lets_a_recorder_pass() -> None:
    """`finally` and ending words in strings are no offence."""
    source = "try:\n    read(chunk)\nfinally:\n    text = 'await span.end()'"

    found = list(offences(source))

    assert found == []
