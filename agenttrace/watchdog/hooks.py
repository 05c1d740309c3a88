"""Calls the application's hooks with reports, where it does no harm that they hang.

Not on the application's threads, which have done nothing to wait for them, and not on
the ticker's, which has to go on.  A thread of their own for as long as there is
something to call them with; what comes while they hang waits, up to a bound.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from agenttrace import safety

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenttrace.watchdog.verdict import Report

MOST: Final = 256
"""Reports that wait for hooks to come back; what is more is dropped and counted."""


class Hooks:
    """The hooks of a runtime.

    Args:
        hooks: Each is called with every report, in their order.
    """

    def __init__(self, hooks: Iterable[Callable[[Report], object]]) -> None:
        self._hooks = tuple(hooks)
        self._waiting: deque[Report] = deque()
        self._is_running = False
        self._lock = threading.Lock()

    def call(self, report: Report) -> None:
        """Have every hook called with *report*, soon.  Waits for none of them."""
        if not self._hooks:
            return
        if len(self._waiting) >= MOST:
            safety.count(safety.Count.REPORTS_DROPPED)
            return
        self._waiting.append(report)
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
        thread = threading.Thread(
            target=self._run, name="agenttrace-hooks", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the interpreter is about to end
            self._is_running = False

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                report = self._waiting.popleft()
            for hook in self._hooks:
                try:
                    hook(report)
                except Exception as error:  # noqa: BLE001 - the application's code
                    safety.note(f"stuck_hooks: {_name_of(hook)}", error)
                except BaseException:  # noqa: BLE001, S110 - an exit, or a cancellation: this thread is not the application's to end
                    pass


def _name_of(hook: object) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__qualname__))
