"""Who has left what is done for them, known to all that is started on their behalf.

A library that hands a stream to its caller, and reads it from a run on another task,
cancels the run when the caller has left.  What the run sees is a cancellation; why that
came to be, only the stream knows.  So whoever may give a reason stands in the context
of what it has started, and is asked there when that ends.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Protocol, cast

from opentelemetry import context as otel

from agenttrace import safety
from agenttrace.boundary.recorder import PlainRecorder
from agenttrace.boundary.silent import Silent
from agenttrace.model import EndedBy, Ending, Opening, Outcome

if TYPE_CHECKING:
    from opentelemetry.context.context import Context


class Work(Protocol):
    """What is done for somebody, who may leave."""

    def abandon(self, ended_by: EndedBy, *, cancel: bool | None = None) -> None:
        """Hear that nobody waits for it any more; None goes by the settings."""
        ...


class Knows(Protocol):
    """Knows why what was started on its behalf is cancelled."""

    def reason(self, ending: Ending) -> Ending:
        """Return *ending*, or what it came of."""
        ...

    def started(self, work: Work) -> None:
        """Hear that *work* was started on its behalf."""
        ...


def who_knows(context: Context) -> Knows | None:
    """Return on whose behalf *context* is, if there is anybody to ask."""
    return cast("Knows | None", context.get(_KEY))


def on_behalf_of(known: Knows, context: Context) -> Context:
    """Return *context* with *known* to be asked in it."""
    return otel.set_value(_KEY, known, context)


def on_no_behalf(context: Context) -> Context:
    """Return *context* with nobody to be asked in it."""
    return (
        context if who_knows(context) is None else otel.set_value(_KEY, None, context)
    )


class Behalf:
    """Somebody who reads what others do, and may leave.

    Args:
        outer: On whose behalf that is.
    """

    def __init__(self, outer: Knows | None) -> None:
        self._outer = outer
        self._left: EndedBy | None = None
        self._work: weakref.WeakSet[Work] = weakref.WeakSet()
        if outer is not None:
            outer.started(self)

    def started(self, work: Work) -> None:
        """Hear that *work* was started to be read by them."""
        self._work.add(work)

    def abandon(self, ended_by: EndedBy, *, cancel: bool | None = None) -> None:
        """Hear that they have left, and pass it on."""
        if self._left is None:
            self._left = ended_by
        for each in tuple(self._work):
            each.abandon(ended_by, cancel=cancel)

    def reason(self, ending: Ending) -> Ending:
        """Return that they have left, if *ending* is a cancellation and they have."""
        if ending.outcome is Outcome.CANCELLED and self._left is not None:
            return Ending(Outcome.ABANDONED, self._left)
        return ending if self._outer is None else self._outer.reason(ending)


class ReadThrough(Silent):
    """A stream of a library's that passes on what a run of another task says.

    Args:
        context: What is current inside it.
    """

    __slots__ = ("_behalf",)

    def __init__(self, context: Context) -> None:
        self._behalf = Behalf(who_knows(context))
        super().__init__(_UNREAD, on_behalf_of(self._behalf, context), self._over)

    def leave(self, error: BaseException) -> None:
        """Hear that it is closed, before the library cancels what it reads from."""
        if isinstance(error, GeneratorExit):
            left_by = self.left_by()
            # As for a run of its own: a client that has gone does not come back.
            cancel = True if left_by is EndedBy.DISCONNECT else None
            safety.guarded("left", self._behalf.abandon, left_by, cancel=cancel)

    def _over(self, ending: Ending) -> None:
        if ending.outcome is Outcome.CANCELLED:
            # Its reader was cancelled, and what the library cancels then is not all.
            self._behalf.abandon(EndedBy.CLOSE)


_KEY: Final = otel.create_key("agenttrace-on-behalf-of")
_UNREAD: Final = PlainRecorder(Opening("stream"))
