"""What was noticed of the application that will cost it runs one day.

A loop that one of its tools blocks, a client that two loops share, a request that may
wait for ten minutes: only the running process can know, and nobody reads its mind.  So
whoever comes across such a thing notes it here, once for each place, and counts the
rest.  It is logged once, at INFO, since nothing has gone wrong yet; the runtime writes
it beside the journal, where `agenttrace doctor` finds it.

It is imported when there is something to note.  What is wrong about a kind, and what to
do, is `diagnosis`' to say; content never comes here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

from agenttrace import safety
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    Later = Callable[[str, Callable[[], object]], object]

MOST: Final = 100
"""Places that are kept in mind."""
_LONGEST: Final = 300
"""Characters of one of the texts."""


class Kind(StrEnum):
    """What can be noticed."""

    LOOP_BLOCKED = "loop_blocked"
    """Something kept an event loop from turning."""
    LOOP_NESTED = "loop_nested"
    """A loop was run within a callback of a loop."""
    CLIENT_SHARED = "client_shared"
    """Requests of several event loops went through the connections of one client."""
    NO_TIMEOUT = "no_timeout"
    """A client has no time-out but its library's own, or none at all."""
    TIMEOUT_REFUSED = "timeout_refused"
    """A client was given a time-out that its HTTP library does not understand."""


class Notice(NamedTuple):
    """One thing that was noticed at one place.

    Attributes:
        kind: What it is.
        place: The line of the application's, as `file:line in function`; empty where
            none of its lines was on the stack.
        span: Name of the span that was current, empty without one.
        detail: What else is known of it.
        times: How often it was noticed there.
    """

    kind: str
    place: str
    span: str = ""
    detail: str = ""
    times: int = 1


_notices: dict[tuple[str, str, str], Notice] = {}
_lock = threading.RLock()
_changes = 0


def note(
    kind: Kind,
    place: str,
    *,
    span: str = "",
    detail: str = "",
    later: Later | None = None,
) -> None:
    """Take note of something.  Not for hot paths.

    Args:
        kind: What it is.
        place: The line of the application's.
        span: Name of the span that was current.
        detail: What else is known of it, of the first time.
        later: Makes the call that logs it, of which it is told the site.  For threads
            that must not: a handler of the log may hang.  None = it is made here.
    """
    global _changes  # noqa: PLW0603 - there is one process
    place, span, detail = place[:_LONGEST], span[:_LONGEST], detail[:_LONGEST]
    with _lock:
        # By its place, or its span where it has none: names are often made up.
        key = (str(kind), place, "" if place else span)
        known = _notices.get(key)
        if known is None:
            if len(_notices) >= MOST:
                return
            _notices[key] = Notice(str(kind), place, span, detail)
        else:
            _notices[key] = known._replace(times=known.times + 1)
        # Those that come again and again are written ever more rarely.
        times = _notices[key].times
        _changes += not times & (times - 1)
    if known is None:

        def say() -> None:
            safety.log_once(
                f"noticed: {key}",
                logging.INFO,
                "noticed %s%s%s%s (agenttrace doctor says more)",
                kind,
                f" at {place}" if place else "",
                f" in {span}" if span else "",
                f": {detail}" if detail else "",
            )

        if later is None:
            say()
        else:
            later("noticed", say)


def noticed() -> tuple[Notice, ...]:
    """Return what was noticed, in the order in which it first was."""
    with _lock:
        return tuple(_notices.values())


def changes() -> int:
    """Return a number that is another one when there is more to be written."""
    return _changes


def to_json() -> str:
    """Return what was noticed, for the file beside the journal."""
    return json.dumps([each._asdict() for each in noticed()])


def from_json(text: str) -> list[Notice]:
    """Return what `to_json` has written; what cannot be read is left out.

    >>> from_json('[{"kind": "loop_nested", "place": "a.py:1 in f", "times": 3}]')
    [Notice(kind='loop_nested', place='a.py:1 in f', span='', detail='', times=3)]
    >>> from_json("[1, {")
    []
    """
    try:
        rows: object = json.loads(text)
    except ValueError:
        return []
    if not isinstance(rows, list):
        return []
    found = map(_read, cast("list[object]", rows))
    return [each for each in found if each is not None]


def _read(row: object) -> Notice | None:
    if not isinstance(row, dict):
        return None
    told = cast("Mapping[str, Any]", row)
    texts = {name: told.get(name, "") for name in ("kind", "place", "span", "detail")}
    times = told.get("times")
    if not isinstance(times, int) or not all(
        isinstance(text, str) for text in texts.values()
    ):
        return None
    return Notice(**texts, times=times)


def place_here(is_application: Callable[[str], bool]) -> str:
    """Return the innermost line of the caller's that is the application's.

    Args:
        is_application: Tells by its file whether it is.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        code = frame.f_code
        if is_application(code.co_filename):
            return place_of(code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return ""


def place_of(file: str, line: int, function: str) -> str:
    """Return how a line is told.

    >>> place_of("/app/tools.py", 12, "search")
    '/app/tools.py:12 in search'
    """
    return f"{file}:{line} in {function}"


def set_aside() -> Callable[[], None]:
    """Forget everything; return what brings it back.  For `agenttrace.testing`."""
    before = dict(_notices)
    _notices.clear()

    def bring_back() -> None:
        _notices.clear()
        _notices.update(before)

    return bring_back


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it at the fork
    _lock = threading.RLock()
    # What was noticed in the parent is told there.
    _notices.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
