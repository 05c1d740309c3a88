"""What is said of spans that were left open: which, since when, where, what to do."""

from __future__ import annotations

import linecache
import os
import textwrap
import time
from typing import TYPE_CHECKING, Final

from agenttrace.testing.origins import ORIGINS, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.registry import OpenSpan

MOST: Final = 20
"""Spans that are described; of the others the number is."""
_WIDTH: Final = 80
_INDENT: Final = " " * 4

_REMEDIES: Final = {
    Shape.GENERATOR: (
        "It is a generator that was not read to its end: close it where it is left, "
        "with contextlib.closing()."
    ),
    Shape.ASYNC_GENERATOR: (
        "It is an async generator that was not read to its end: close it where it is "
        "left, with contextlib.aclosing()."
    ),
    Shape.COROUTINE: (
        "It is a coroutine that has not finished: await its task, or cancel it and "
        "await it then."
    ),
    Shape.CALL: (
        "The call has not returned, or what it returned has not come to its end: wait "
        "for it, or close it."
    ),
    Shape.BLOCK: (
        "It is a `with` block that has not been left: wait for the task or thread "
        "that is inside, or close the generator."
    ),
    Shape.BY_HAND: (
        "start_span() makes spans that end() has to be called on: "
        "`with agenttrace.span(...)` ends them by itself."
    ),
}


def told(spans: Sequence[OpenSpan]) -> str:
    """Return a paragraph for each of *spans*, the oldest first, indented."""
    shown = [_told(span) for span in spans[:MOST]]
    if len(spans) > MOST:
        shown.append(f"  and {len(spans) - MOST:,} more")
    return "\n\n".join(shown)


def counted(number: int) -> str:
    """Return *number* spans in words.

    >>> counted(1), counted(2)
    ('1 span', '2 spans')
    """
    return "1 span" if number == 1 else f"{number:,} spans"


def _told(span: OpenSpan) -> str:
    seconds = max(0, time.time_ns() - span.started_at) / 1e9
    lines = [f"  {span.path()} (open for {seconds:.2f} s)"]
    if span.origin is not None:
        lines.append(f"{_INDENT}started at {_shown(span.origin)}")
        source = _source(span.origin)
        if source:
            lines.append(f"{_INDENT}    {source}")
    shape = ORIGINS.shape_of(span)
    if shape is not None:
        lines += textwrap.wrap(
            _REMEDIES[shape],
            _WIDTH,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _shown(origin: str) -> str:
    """Return *origin* as short as it can be found from here."""
    here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - a text, no path to open
    return origin.removeprefix(here)


def _source(origin: str) -> str:
    file, _, line = origin.rpartition(":")
    return linecache.getline(file, int(line)).strip()
