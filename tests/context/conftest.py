"""Fixtures of everything about contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.context.recorded import recorded
from tests.context.runners import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["runner", "spans"]


@pytest.fixture
def spans() -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Configure agenttrace, and return what returns the spans that have ended."""
    with recorded() as ended:
        yield ended
