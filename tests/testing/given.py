"""Traced functions to capture, and texts to compare with."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import agenttrace

if TYPE_CHECKING:
    from collections.abc import Generator


@agenttrace.tool
def search(query: str) -> list[str]:
    """Find one thing, but nothing for nothing."""
    if not query:
        message = "nothing to look for"
        raise ValueError(message)
    return [query]


@agenttrace.agent
def triage(question: str) -> Generator[str]:
    """Look something up, then answer word by word."""
    search(question)
    yield from question.split()


def expected(text: str) -> str:
    """Return *text*, indented as it stands in a test, without that."""
    return textwrap.dedent(text).strip("\n")
