"""Knows whether the garbage collector is at work on this thread: for Python 3.11.

There it runs in the middle of any allocation, those of `ContextVar.set` among them.  A
finalizer that sets a variable meanwhile, any one of the same context, frees what that
`set` is reading, and the interpreter crashes; so it does, later, when one reads the
variable that is being reset.  From 3.12 on it runs between two instructions, and this
module has nothing to say.

So no variable is touched while the collector is at work: what finalizers make current
is kept here until it is done.  How it gets here and out again is `scope`'s business.

What the collector calls is no Python code: the first thing that such code does is to
let pending signal handlers run, and what they raise is printed there and lost.  A
Ctrl-C in a long collection would be.  So it calls `__setattr__`, of the interpreter's
own, with the phase and a dictionary that is another one each time: who has which tells
whether the collector is at work, and for which thread.
"""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any, Final


class Phases:
    """The dictionary of each phase when it was last told.

    Attributes:
        start: That of the last start.
        stop: That of the last stop.
    """

    __slots__ = ("start", "stop")

    def __init__(self) -> None:
        self.start: object = None
        self.stop: object = None


class Collector:
    """What the collector does, as told before anybody else is.

    Attributes:
        event: The dictionary of the last phase, whichever it was.
    """

    __slots__ = ("_current", "event")

    def __init__(self) -> None:
        self.event: object = None
        self._current: tuple[object, Any] = (None, None)

    def is_here(self) -> bool:
        """Return whether this runs in a finalizer that the collector called."""
        event = self.event
        if event is FINISHED.stop:
            return False
        here = vars(_here)
        return event is here.get("start", here) or event is here.get("stop", here)

    @property
    def current(self) -> Any:  # noqa: ANN401 - see `scope.Value`
        """What a finalizer has made current in this collection, None where none has."""
        during, value = self._current
        return value if during is _here.start else None

    @current.setter
    def current(self, value: Any) -> None:  # noqa: ANN401 - see `scope.Value`
        self._current = (_here.start, value)


def come_last() -> None:
    """Be told of a stop after all others, who run inside that allocation as well.

    Those that were added since, and trace at a stop alone, go unnoticed.
    """
    callbacks = gc.callbacks
    if _COLLECTS_BETWEEN_INSTRUCTIONS or callbacks[-1] is _tell_last:
        return
    while _tell_last in callbacks:
        callbacks.remove(_tell_last)
    # Twice: where a callback takes itself off, the collector passes over the next one.
    callbacks += (_tell_last, _tell_last)


for phase in Phases.__slots__:  # told of either, it sets `event`
    setattr(Collector, phase, vars(Collector)["event"])

COLLECTOR: Final = Collector()
FINISHED: Final = Phases()
"""As told after everybody else: its `stop` is the collector's `event` between two."""
_here: Final = threading.local()
_tell_last: Final = FINISHED.__setattr__
_COLLECTS_BETWEEN_INSTRUCTIONS: Final = sys.version_info >= (3, 12)

if not _COLLECTS_BETWEEN_INSTRUCTIONS:
    gc.callbacks[:0] = (COLLECTOR.__setattr__, _here.__setattr__)
    come_last()
