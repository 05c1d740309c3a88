"""Calls the application's hooks with reports, one after the other.

They are called on a thread of their own (`errands`); what comes while they hang waits,
up to a bound.  None of them is left behind for another: a hook need not be made for two
threads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.watchdog.errands import MOST, Errands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenttrace.watchdog.verdict import Report

__all__ = ["MOST", "Hooks"]

_NAME: Final = "agenttrace-hooks"


class Hooks:
    """The hooks of a runtime.

    Args:
        hooks: Each is called with every report, in their order.
    """

    def __init__(self, hooks: Iterable[Callable[[Report], object]]) -> None:
        self._hooks = tuple(hooks)
        self._errands = Errands(_NAME)

    def call(self, report: Report) -> None:
        """Have every hook called with *report*, soon.  Waits for none of them."""
        if not self._hooks:
            return
        if self._errands.is_full:
            safety.count(safety.Count.REPORTS_DROPPED)
            return
        self._errands.ask("stuck_hooks", partial(self._call, report))

    def _call(self, report: Report) -> None:
        for hook in self._hooks:
            try:
                hook(report)
            except Exception as error:  # noqa: BLE001 - the application's code
                safety.note(f"stuck_hooks: {_name_of(hook)}", error)
            except BaseException:  # noqa: BLE001, S110 - an exit, or a cancellation: this thread is not the application's to end
                pass


def _name_of(hook: object) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__qualname__))
