"""Knows whether the garbage collector is at work on this thread: for Python 3.11.

There it runs in the middle of any allocation, those of `ContextVar.set` among them.  A
finalizer that sets a variable meanwhile, any one of the same context, frees what that
`set` is reading, and the interpreter crashes; so it does, later, when one reads the
variable that is being reset.  From 3.12 on it runs between two instructions, and this
module has nothing to say.

So no variable is touched while the collector is at work: what finalizers make current
is kept here until it is done.  How it gets here and out again is `scope`'s business.
"""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any, Final

_get_ident: Final = threading.get_ident


class Collector:
    """The thread that collects garbage.

    Attributes:
        thread: Its identifier, 0 while there is none.
        current: What a finalizer has made current on it, None where none has.
    """

    __slots__ = ("current", "thread")

    def __init__(self) -> None:
        self.thread = 0
        self.current: Any = None

    def is_here(self) -> bool:
        """Return whether this runs in a finalizer that the collector called."""
        return self.thread != 0 and self.thread == _get_ident()


COLLECTOR: Final = Collector()


def _before_all(phase: str, _info: dict[str, Any]) -> None:
    """Take note that a collection starts, as the first callback of the collector."""
    if phase == "start":
        COLLECTOR.thread = _get_ident()
        callbacks = gc.callbacks
        if callbacks[-1] is not _after_all:
            # The application's callbacks run inside that allocation, too.
            if _after_all in callbacks:
                callbacks.remove(_after_all)
            callbacks.append(_after_all)


def _after_all(phase: str, _info: dict[str, Any]) -> None:
    """Take note that a collection has stopped, as the last callback."""
    if phase == "stop":
        COLLECTOR.thread = 0
        COLLECTOR.current = None


if sys.version_info < (3, 12):
    gc.callbacks.insert(0, _before_all)
