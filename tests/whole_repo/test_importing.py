"""Importing agenttrace costs and touches next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

INSTRUMENTED = {
    "agency_swarm",
    "agent_framework",
    "agents",
    "django",
    "fastapi",
    "openai",
    "starlette",
}
SLOW = {"google.protobuf", "grpc", "httpx", "httpx2", "pydantic", "requests", "sqlite3"}


def modules_after(statements: str, cwd: Path) -> set[str]:
    """Return what an interpreter of its own has loaded after *statements*."""
    path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - as sys.path has it
    result = subprocess.run(
        [sys.executable, "-c", f"{statements}\nimport sys; print(*sys.modules)"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        check=True,
        text=True,
    )
    return set(result.stdout.split())


def test_importing_agenttrace_imports_nothing_that_it_instruments(
    tmp_path: Path,
) -> None:
    """The order of imports is the application's, and so is the choice of them."""
    loaded = modules_after("import agenttrace", tmp_path)

    assert loaded & INSTRUMENTED == set()


def test_importing_agenttrace_imports_nothing_slow(tmp_path: Path) -> None:
    """The import has a budget; protobuf or an HTTP client alone would use it up."""
    before = modules_after("import opentelemetry.trace", tmp_path)

    loaded = modules_after("import agenttrace", tmp_path)

    assert (loaded - before) & SLOW == set()
