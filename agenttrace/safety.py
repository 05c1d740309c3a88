"""The guard around everything that is not the application's own code, and its counters.

What agenttrace does on an application's thread either cannot fail or runs behind
`guard`.  A failure is counted, logged once per site at WARNING, and swallowed; under
`AGENTTRACE_STRICT=1`, as in our own test suite, it is raised.  Only `Exception` is
swallowed: a cancellation or an interrupt that arrives inside the guard is the
application's, and so is what a signal handler raises there, a time-out for one.

What is logged of a failure is its class and where it came from.  Its message may quote
what was traced: a redaction hook that fails on a prompt says which.

Counters are plain integers under the GIL; `metrics` and `Runtime.status` read them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

P = ParamSpec("P")
T = TypeVar("T")

logger: Final = logging.getLogger("agenttrace")
STRICT_VARIABLE: Final = "AGENTTRACE_STRICT"


class Count(StrEnum):
    """What agenttrace counts of itself."""

    GUARD_HITS = "guard_hits"
    FOREIGN_DETACHES = "foreign_detaches"
    ATTRIBUTE_FALLBACKS = "attribute_fallbacks"
    SPANS_UNSAMPLED = "spans_unsampled"
    SPANS_ACKNOWLEDGED = "spans_acknowledged"
    SPANS_DROPPED = "spans_dropped"
    SPANS_EVICTED = "spans_evicted"
    SPANS_NOT_JOURNALED = "spans_not_journaled"
    SPANS_LEFT = "spans_left"
    SPANS_RECOVERED = "spans_recovered"
    SPANS_REDELIVERED = "spans_redelivered"
    SPANS_NOT_SPOOLED = "spans_not_spooled"
    SPANS_STUCK = "spans_stuck"
    SPANS_OVERDUE = "spans_overdue"
    TASKS_CANCELLED = "tasks_cancelled"
    REPORTS_DROPPED = "reports_dropped"
    TICKS_LATE = "ticks_late"
    LOOKS_PUT_OFF = "looks_put_off"
    CALLS_HUNG = "calls_hung"
    MEASUREMENTS_DROPPED = "measurements_dropped"
    LATE_FINISHES = "late_finishes"
    LATE_GIVEN_UP = "late_given_up"
    ENCODER_FALLBACKS = "encoder_fallbacks"
    EXPORT_FAILURES = "export_failures"
    EXPORT_RETRIES = "export_retries"
    SEGMENTS_DAMAGED = "segments_damaged"
    STORES_SET_ASIDE = "stores_set_aside"
    LOOPS_BLOCKED = "loops_blocked"
    TOKENS_UNREADABLE = "tokens_unreadable"


_counts: Counter[str] = Counter()
# Re-entrant: the garbage collector may run a finalizer that counts while this thread
# is counting.
_lock = threading.RLock()
_seen: set[str] = set()
# Of the base class: a class of somebody's may answer with foreign code.
_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"]
_CONTEXT: Final[Any] = vars(BaseException)["__context__"]
_MOST_COVERED: Final = 8
"""Exceptions, each raised while the next one was handled, that are looked behind."""


def count(what: Count, amount: int = 1) -> None:
    """Add *amount* to a counter.  Not for hot paths: it takes a lock."""
    with _lock:
        _counts[what] += amount


def counts() -> dict[str, int]:
    """Return every counter by name, zeros included."""
    with _lock:
        return {what.value: _counts[what] for what in Count}


def guard_hits() -> dict[str, int]:
    """Return how often the guard swallowed something, by site."""
    with _lock:
        return {
            key.removeprefix("guard:"): value
            for key, value in _counts.items()
            if key.startswith("guard:")
        }


def swallow(site: str, error: Exception) -> None:
    """Take note of *error* at *site*: counted, logged once per site, raised if strict.

    Raises:
        BaseException: *error* itself, under `AGENTTRACE_STRICT=1`; and what a signal
            handler of the application raised, also where *error* came in its way.
    """
    if sys.is_finalizing():
        # Modules lose their contents then, one after the other: a generator that is
        # collected now fails here, and there is nobody left to be told.
        return
    try:
        interrupt = _interrupt_of(error)
        first = interrupt is None and _is_first(site)
    except RecursionError:
        return
    if interrupt is not None:
        raise interrupt
    if isinstance(error, RecursionError):
        # The application is at the end of its stack and is about to hear so itself:
        # there may be room for what it still wants to do, but none for a log record.
        return
    if os.environ.get(STRICT_VARIABLE, "") not in ("", "0"):
        raise error
    if first:
        _log(
            logging.WARNING,
            "%s failed with %s; the application goes on without it (logged once, "
            "counted in guard_hits)\n%s",
            site,
            type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)),
        )


def _is_first(site: str) -> bool:
    """Count a failure at *site*; return whether it is the first one there."""
    with _lock:
        _counts[Count.GUARD_HITS] += 1
        _counts[f"guard:{site}"] += 1
        first = site not in _seen
        _seen.add(site)
    return first


def guarded(
    site: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """Call *fn* behind the guard; None where it failed."""
    try:
        return fn(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - this is the guard
        swallow(site, error)
        return None


def note(site: str, error: Exception) -> None:
    """Take note of *error* behind the guard, on a thread where none can be raised.

    Strictness raises to whoever called; here is nobody, and the thread must go on.
    """
    with contextlib.suppress(Exception):
        swallow(site, error)


def log_once(site: str, level: int, message: str, *args: object) -> None:
    """Log *message* the first time *site* says it; the rest is silence."""
    with _lock:
        if site in _seen:
            return
        _seen.add(site)
    _log(level, message, *args)


def _log(level: int, message: str, *args: object) -> None:
    try:
        logger.log(level, message, *args)
    except Exception as error:
        if _is_of_a_signal_handler(error):
            raise
        count(Count.GUARD_HITS)


def _interrupt_of(error: Exception) -> BaseException | None:
    """Return what a signal handler raised behind the guard; None if it did not.

    It is *error*, or *error* was raised while somebody below us cleaned up after it, as
    the standard library does.  What the application handles at the moment, and has
    nothing to do with this, was caught in a frame that is none of *error*'s.
    """
    if _is_of_a_signal_handler(error):
        return error
    frames = {id(frame) for frame in _frames_of(error)}
    covered: BaseException | None = _CONTEXT.__get__(error)
    for _ in range(_MOST_COVERED):
        if covered is None or not any(
            id(each) in frames for each in _frames_of(covered)
        ):
            return None
        if _is_of_a_signal_handler(covered):
            return covered
        covered = _CONTEXT.__get__(covered)
    return None


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error*, past what its class may answer in its place."""
    return cast("TracebackType | None", _TRACEBACK.__get__(error))


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    trace = traceback_of(error)
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_of_a_signal_handler(error: BaseException) -> bool:
    """Return whether *error* was raised by a handler that runs between two lines.

    Python's own for Ctrl-C is none that can be seen: what it raises is known by type.
    """
    if issubclass(type(error), KeyboardInterrupt):
        return True
    codes = {frame.f_code for frame in _frames_of(error)}
    return any(
        getattr(signal.getsignal(number), "__code__", None) in codes
        for number in signal.valid_signals()
    )


def reset_for_tests() -> None:
    """Forget counters and what was logged.  For `agenttrace.testing` alone."""
    global _lock  # noqa: PLW0603 - a forked child may inherit it held
    _lock = threading.RLock()
    _counts.clear()
    _seen.clear()


def set_aside() -> Callable[[], None]:
    """Forget as `reset_for_tests` does; return what brings back what there was."""
    counted, seen = dict(_counts), set(_seen)
    reset_for_tests()

    def bring_back() -> None:
        reset_for_tests()
        _counts.update(counted)
        _seen.update(seen)

    return bring_back


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it at the fork
    _lock = threading.RLock()
    # What happened in the parent is told there; over all processes it adds up.
    _counts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
