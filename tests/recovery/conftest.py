"""What has died in these tests, and who gets what it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.recovery.given import Backend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where processes keep their files."""
    return tmp_path / "instances"


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """Return who takes everything."""
    return Backend(tmp_path / "log")
