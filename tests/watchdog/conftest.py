"""A runtime for tests of the watchdog."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrace.testing.runtimes import fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.testing.runtimes import FreshRuntime


@pytest.fixture
def traced() -> Iterator[FreshRuntime]:
    """Return a runtime of the test's own."""
    with fresh_runtime() as fresh:
        yield fresh
