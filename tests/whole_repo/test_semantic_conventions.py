"""What agenttrace calls things is what OpenTelemetry calls them.

The oracle is `opentelemetry-semantic-conventions`: nothing else that can be installed
carries the registry.  Since 0.66 it marks every GenAI name as *moved*, to a repository
of their own, which deprecates no name.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Final

import pytest

from agenttrace import semconv

OURS: Final = "agenttrace."
STANDARD: Final = ("code.", "error.", "exception.", "gen_ai.", "server.", "service.")
STILL_GOOD: Final = (
    "Deprecated: Moved to the",  # to the GenAI conventions' own repository
    "Deprecated in favor of stable",  # the constant has moved, the name is the same
)


def registry() -> dict[str, str]:
    """Return the documentation of every name, as the package's sources have it.

    Read, not imported: the constants' docstrings exist only in the source.
    """
    names: dict[str, str] = {}
    spec = importlib.util.find_spec("opentelemetry.semconv.attributes.error_attributes")
    assert spec is not None
    assert spec.origin is not None
    top = Path(spec.origin).parents[1]
    for folder in ("_incubating/attributes", "_incubating/metrics"):
        for file in sorted((top / folder).glob("*.py")):
            names |= constants(file)
    for file in sorted((top / "attributes").glob("*.py")):
        names |= constants(file)
    return names


def constants(file: Path) -> dict[str, str]:
    """Return value and docstring of each string constant of a module."""
    body = ast.parse(file.read_text()).body
    found: dict[str, str] = {}
    for index, node in enumerate(body):
        match node:
            case ast.AnnAssign(value=ast.Constant(value=str(name))):
                after = body[index + 1] if index + 1 < len(body) else None
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = text.strip()
                    case _:
                        found[name] = ""
            case _:
                pass
    return found


def emitted() -> list[str]:
    """Return every dotted name that agenttrace writes."""
    return sorted(
        value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str) and "." in value
    )


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    """Return the registry, read once."""
    return registry()


@pytest.mark.parametrize("name", [n for n in emitted() if n.startswith(STANDARD)])
def test_a_standard_name_is_in_the_registry_and_not_deprecated(
    name: str, known: dict[str, str]
) -> None:
    """Dashboards and backends look for the registry's names, letter by letter."""
    text = known.get(name)

    assert text is not None
    assert not text.startswith("Deprecated") or text.startswith(STILL_GOOD)


def test_every_other_name_is_our_own_or_the_registrys(known: dict[str, str]) -> None:
    """A name of neither belongs to somebody else, and will be given a meaning there."""
    strangers = [
        name for name in emitted() if not name.startswith(OURS) and name not in known
    ]

    assert strangers == []


def test_the_oracle_tells_a_dead_name_from_a_moved_one(known: dict[str, str]) -> None:
    """A check that cannot fail holds no line."""
    assert not known["gen_ai.completion"].startswith(STILL_GOOD)
    assert known["error.type"]
