"""What is installed: versions, and distributions that write into our folder."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Final

from agenttrace.diagnosis.findings import Finding, ok, problem
from agenttrace.runtime.neighbours import OURS, foreign_distributions

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN: Final = ("opentelemetry-api", "opentelemetry-sdk", "openai")


def checks() -> Iterator[Finding]:
    """Yield what there is to say of the installation."""
    versions = [f"Python {platform.python_version()}", _version(OURS)]
    versions += [_version(name) for name in _SHOWN]
    yield ok("versions", ", ".join(filter(None, versions)))
    foreign = foreign_distributions()
    for name in foreign:
        yield problem(
            "distributions",
            f"{name} is installed too, and writes into the same folder as {OURS}",
            f"pip uninstall {name}, then pip install --force-reinstall {OURS}",
        )
    if not foreign:
        yield ok("distributions", "no other one writes into our folder")


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""
