"""A clock that stands still until a test moves it, for the watchdog and for spans.

The ticker's thread leaves out its ticks meanwhile, so that limits pass when the test
says so, on the thread that says it, and at no other time.  This module owns the time;
what is due is the watchdog's business.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from agenttrace.clock import COARSE
from agenttrace.runtime import core
from agenttrace.runtime.process import PROCESS
from agenttrace.testing.runtimes import runtime_without_destination

if TYPE_CHECKING:
    from types import TracebackType

    from agenttrace.registry import OpenSpan
    from agenttrace.runtime import Runtime

_SECOND: Final = 1_000_000_000
_TICK: Final = _SECOND // 5
_BEHIND: Final = _SECOND
"""Nanoseconds behind which a start was not told by this clock."""
_READERS: Final = ("agenttrace.spans.lean", "agenttrace.spans.recorded")
"""Modules that ask for the time by a name of their own, `_now`."""
_TELLING: Final = 30.0
"""Seconds that telling a verdict may take: processors are asked."""


class ManualClock:
    """Time that passes when a test says so.

    In its block agenttrace's time stands still: the limits of spans
    (`heartbeat_timeout`, `max_duration`) pass with `advance` alone, without sleeping,
    and spans are as long as the test says.  The event loop's time, and everybody
    else's, goes on as always.  The watchdog is that of the runtime in use, be it
    configured in the block; where there is none, one without a destination is.  In a
    process that is forked in the block, time goes on.

    Raises:
        RuntimeError: There is one already.

    >>> import agenttrace
    >>> from agenttrace.testing import ManualClock, capture_spans
    >>> with capture_spans() as spans, ManualClock() as clock:
    ...     with agenttrace.span("look up", heartbeat_timeout=30):
    ...         clock.advance(31)
    >>> spans.span("look up").outcome
    <Outcome.STUCK: 'stuck'>
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._held = ExitStack()
        self._runtime: Runtime | None = None
        self._now = time.time_ns()
        self._steady = time.monotonic_ns()

    def __enter__(self) -> Self:
        """Stop the time.

        Raises:
            RuntimeError: There is a manual clock already.
        """
        if _masters:
            message = "there is a manual clock already: time has one master at a time"
            raise RuntimeError(message)
        with ExitStack() as stack:
            self._runtime = stack.enter_context(runtime_without_destination())
            self._now, self._steady = time.time_ns(), time.monotonic_ns()
            self._held = stack.enter_context(ExitStack())
            self._hold(self._held)
            self._tick()
            self._stack = stack.pop_all()
        return self

    def _hold(self, stack: ExitStack) -> None:
        """Stop the time, and have *stack* let it go on."""
        _masters.append(self)
        stack.callback(_masters.remove, self)
        PROCESS.ticker.pause()
        stack.callback(PROCESS.ticker.resume)
        stack.callback(COARSE.renew)
        stack.callback(setattr, COARSE, "read", COARSE.read)
        COARSE.read = self._read
        for name in _READERS:
            module: Any = importlib.import_module(name)
            stack.callback(setattr, module, "_now", module._now)  # noqa: SLF001 - see there
            module._now = self._read  # noqa: SLF001 - the same
        PROCESS.spans.add_listener(self)
        stack.callback(PROCESS.spans.remove_listener, self)

    def let_go(self) -> None:
        """Let time go on in a child process, whose runtime is its parent's copy."""
        self._held.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let time go on, from what it is in truth."""
        self._stack.close()

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self._now / _SECOND

    def advance(self, seconds: float) -> None:
        """Let time pass, and have the watchdog judge what comes due meanwhile.

        It goes tick by tick (0.2 s), so that what is due first is judged first.

        Args:
            seconds: How many.

        Raises:
            ValueError: They are negative, or no finite number.
            RuntimeError: It is not inside the block of the clock.
        """
        if not 0 <= seconds < math.inf:
            message = f"advance({seconds!r}): must be a finite number of seconds, >= 0"
            raise ValueError(message)
        if self not in _masters:
            message = "advance() is for the block: `with ManualClock() as clock: ...`"
            raise RuntimeError(message)
        until = self._now + round(seconds * _SECOND)
        while self._now < until:
            passed = min(_TICK, until - self._now)
            self._now += passed
            self._steady += passed
            for span in PROCESS.spans.snapshot():
                if span.holds:
                    span.held += passed
            self._tick()

    def started(self, span: OpenSpan) -> None:
        """Have *span* start now, if whoever started it asked another clock."""
        if span.started_at < self._now - _BEHIND:
            span.started_at = self._now

    def ended(self, span: OpenSpan) -> None:
        """Leave *span* as it is."""

    def _tick(self) -> None:
        COARSE.renew()
        # The application may have configured another one in the block.
        runtime = core.current() or self._runtime
        if runtime is not None:
            runtime.judge(self._steady)
            # What is told of a verdict is told on another thread: it is waited for.
            if not PROCESS.errands.finish(_TELLING):
                # One that hangs is left behind, as the ticker has it.
                PROCESS.errands.see_to()
                PROCESS.errands.finish(_TELLING)

    def _read(self) -> int:
        return self._now


_masters: Final[list[ManualClock]] = []
"""The clock whose block this is; one at most."""


def _after_fork() -> None:
    for clock in _masters[:]:
        clock.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
