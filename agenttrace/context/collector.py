"""Knows whether the garbage collector is at work on this thread: for Python 3.11.

There it runs in the middle of any allocation, those of `ContextVar.set` among them.  A
finalizer that sets a variable meanwhile, any one of the same context, frees what that
`set` is reading, and the interpreter crashes.  From 3.12 on it runs between two
instructions, and this module has nothing to say.

So no variable is set while the collector is at work.  What that means for scopes and
generators is their business.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_get_ident: Final = threading.get_ident


class Collector:
    """The thread that collects garbage, as a callback of the collector.

    Attributes:
        thread: Its identifier, 0 while there is none.
    """

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = 0

    def __call__(self, phase: str, _info: dict[str, Any]) -> None:
        """Take note that a collection starts or stops."""
        self.thread = _get_ident() if phase == "start" else 0

    def is_here(self) -> bool:
        """Return whether this runs in a finalizer that the collector called."""
        return self.thread != 0 and self.thread == _get_ident()

    @contextmanager
    def elsewhere(self) -> Generator[None]:
        """Let variables be set: in a context that nothing else is in the middle of."""
        thread, self.thread = self.thread, 0
        try:
            yield
        finally:
            self.thread = thread


COLLECTOR: Final = Collector()

if sys.version_info < (3, 12):
    gc.callbacks.append(COLLECTOR)
