"""What is said of spans that were left open: which, since when, where, what to do."""

from __future__ import annotations

import linecache
import os
import re
import textwrap
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agenttrace import semconv
from agenttrace.testing.origins import ORIGINS, Shape
from agenttrace.testing.trees import fits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from agenttrace.registry import OpenSpan
    from agenttrace.testing.spans import CapturedSpan

_MOST: Final = 20
"""Spans that are described; the others are counted."""
_MOMENT: Final = 0.05
"""Seconds after which what is open is taken to stay so."""
_WIDTH: Final = 80
_INDENT: Final = " " * 4
_HARD_SPACE: Final = "\N{NO-BREAK SPACE}"
_MOST_NAMES: Final = 3
"""Names in a headline."""

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
        "await it then. Or it has returned a stream: close that where it is left."
    ),
    Shape.CALL: (
        "The call has not returned, or what it returned has not come to its end: wait "
        "for it, or close it."
    ),
    Shape.BLOCK: (
        "It is a `with` block that has not been left: wait for the task or thread "
        "that is inside, or close what it is in: a generator, or an ExitStack."
    ),
    Shape.BACKGROUND: (
        "It is a task from background() that has not finished: await it, or cancel it "
        "and await it then."
    ),
    Shape.AGENTS_TRACE: (
        "It is the Agents SDK's: read the run to its end, or cancel it. A trace or "
        "span of your own ends with its `with` block, or with its finish()."
    ),
    Shape.BY_HAND: (
        "A span from start_span() ends with its end() and not before; "
        "`with agenttrace.span(...)` ends by itself."
    ),
}


def confirmed(find: Callable[[], list[OpenSpan]]) -> list[OpenSpan]:
    """Return the open spans that *find* finds, and goes on finding for a moment.

    Dropped spans are ended by whichever thread sweeps first; the ticker may have one
    in hand just now.  And of a thread that does one thing after the other there is
    always some span, and never the same.
    """
    deadline = time.monotonic() + _MOMENT
    first = set(left := find())
    while left and time.monotonic() < deadline:
        time.sleep(_MOMENT / 10)
        left = [span for span in find() if span in first]
    return left


def not_named(spans: Iterable[OpenSpan], names: Collection[str]) -> list[OpenSpan]:
    """Return those of *spans* that none of *names* fits, in which `*` is any text."""
    return [span for span in spans if not any(fits(name, span.name) for name in names)]


def message(
    left: Sequence[OpenSpan],
    to_allow: str,
    fixtures: Mapping[OpenSpan, str] = MappingProxyType({}),
) -> str:
    """Return what a test fails with that has left spans open.

    Args:
        left: The spans; at least one.
        to_allow: What the test says to be allowed that.
        fixtures: The names of those that were to end some of them.
    """
    is_open = "left open"
    if all(span in fixtures for span in left):
        by = dict.fromkeys(fixtures[span] for span in left)
        is_open += (
            f" by the {'fixture' if len(by) == 1 else 'fixtures'} {', '.join(by)}"
        )
    line = headline(left, is_open=is_open)
    return f"{line}\n\n{told(left, fixtures)}\n\nTo allow it: {to_allow}"


def headline(spans: Sequence[OpenSpan], *, is_open: str) -> str:
    """Return in one line how many *spans* there are, and their names.

    Args:
        spans: At least one.
        is_open: What they are: "left open", "still open".
    """
    number = "1 span" if len(spans) == 1 else f"{len(spans):,} spans"
    return f"{number} {is_open}: {named(spans)}"


def named(spans: Sequence[OpenSpan | CapturedSpan]) -> str:
    """Return the names of *spans*, of many the first."""
    names = list(dict.fromkeys(span.name for span in spans))
    if len(names) > _MOST_NAMES:
        names[_MOST_NAMES:] = ["..."]
    return ", ".join(names)


def told(
    spans: Sequence[OpenSpan], fixtures: Mapping[OpenSpan, str] = MappingProxyType({})
) -> str:
    """Return a paragraph for each of *spans*, the oldest first, indented.

    Those that were started in one place are told once.

    Args:
        spans: At least one.
        fixtures: The names of those that were to end some of them.
    """
    alike: dict[tuple[str, str | None, str | None], list[OpenSpan]] = {}
    for span in spans:
        key = (span.path(), span.origin, fixtures.get(span))
        alike.setdefault(key, []).append(span)
    groups = list(alike.items())
    parts = [_told(group, fixture) for (*_, fixture), group in groups[:_MOST]]
    further = sum(len(group) for _, group in groups[_MOST:])
    if further:
        parts.append(f"  and {further:,} more")
    return "\n\n".join(parts)


def listed(spans: Sequence[OpenSpan]) -> str:
    """Return a line for each of *spans*, ended or not: its name and its origin."""
    return "\n".join(
        f"  {span.name}{f' ({shown(span.origin)})' if span.origin else ''}"
        for span in spans
    )


def judged(span: CapturedSpan) -> str:
    """Return what the watchdog has found of *span*, as a paragraph, indented."""
    lines = [f"  {span.name}: {span.status_message or span.outcome}"]
    for event in span.events:
        if event.name == semconv.HANG:
            explained = (event.attributes or {}).get(semconv.HANG_EXPLANATION)
            lines += _wrapped(str(explained)) if explained else []
    return "\n".join(lines)


def _told(alike: Sequence[OpenSpan], fixture: str | None) -> str:
    span = alike[0]
    origin = ORIGINS.of(span)
    times = "" if len(alike) == 1 else f", {len(alike):,} times"
    lines = [f"  {span.path()}{times} (open for {_age(span)})"]
    if origin.place is not None:
        by_whom = "by a task or thread that runs" if origin.is_definition else "at"
        lines.append(f"{_INDENT}started {by_whom} {shown(origin.place)}")
        source = _source(origin.place)
        if source:
            lines.append(f"{_INDENT}    {source}")
    if fixture is not None:
        lines += _wrapped(
            f"The fixture {fixture} has begun it, and has been torn down: end it there."
        )
    if origin.shape is not None:
        lines += _wrapped(_REMEDIES[origin.shape])
    return "\n".join(lines)


def _age(span: OpenSpan) -> str:
    seconds = max(0, time.time_ns() - span.started_at) / 1e9
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _wrapped(text: str) -> list[str]:
    # What stands between backticks is to be copied, so it stays in one piece.
    whole = re.sub("`[^`]*`", lambda code: code[0].replace(" ", _HARD_SPACE), text)
    lines = textwrap.wrap(
        whole,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )
    return [line.replace(_HARD_SPACE, " ") for line in lines]


def shown(origin: str) -> str:
    """Return *origin* as short as it can be found from here."""
    here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - a text, no path to open
    return origin.removeprefix(here)


def _source(origin: str) -> str:
    file, _, line = origin.rpartition(":")
    return linecache.getline(file, int(line)).strip()
