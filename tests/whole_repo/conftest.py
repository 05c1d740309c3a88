"""Where the repository is, and what belongs to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_NOT_OURS = {".git", ".hypothesis", "__pycache__", "_build", "build", "dist"}


@pytest.fixture(scope="session")
def repo() -> Path:
    """Return the top of the checkout."""
    return _ROOT


@pytest.fixture(scope="session")
def package() -> Path:
    """Return the checkout's `agenttrace` folder, not the installed copy of it."""
    return _ROOT / "agenttrace"


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Return every file that is, or is about to be, part of the repository.

    Asks git where there is one; an unpacked archive is all ours.
    """
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - whichever git the developer uses
        cwd=_ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listing.returncode == 0:
        files = [_ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        files = [
            file
            for file in _ROOT.rglob("*")
            if not _NOT_OURS.intersection(file.relative_to(_ROOT).parts)
        ]
    return sorted(file for file in files if file.is_file())
