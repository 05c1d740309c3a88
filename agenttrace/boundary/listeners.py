"""Who listens, and work that is done for a listener alone.

The seam between a server's middleware and what runs in a request.  The middleware says
where a request begins and that its client has gone:

    with listening() as audience:          # everything that starts in here joins it
        await app(scope, receive, send)
    ...
    audience.gone()                        # on a disconnect, from any task or thread

An instrumentation whose work goes on in a task of its own, such as a streamed agent
run, joins the audience that it finds with `join`, and is told by `Work.abandon`.  What
has ended by itself is not told, nor is what never joined: background tasks go on.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, cast

from opentelemetry import context as otel

from agenttrace import safety
from agenttrace.context.scope import detach
from agenttrace.model import EndedBy

if TYPE_CHECKING:
    from collections.abc import Generator

_KEY: Final = otel.create_key("agenttrace-audience")


class Work(Protocol):
    """Something that goes on for those who listen."""

    def abandon(self, ended_by: EndedBy, *, cancel: bool | None = None) -> None:
        """Hear that nobody listens any more.  On any thread, more than once, late.

        Args:
            ended_by: How that came: `close`, `gc`, `disconnect`.
            cancel: Whether to stop; None goes by the setting `on_abandon`.
        """
        ...


class Audience:
    """Those who listen to what is started in one context: the client of a request."""

    def __init__(self) -> None:
        # Weak: work that is over, or dropped, is not kept by who might have listened.
        # A list, which other threads may add to while it is copied.
        self._works: list[weakref.ref[Work]] = []

    def add(self, work: Work) -> None:
        """Let *work* hear when this audience has gone."""
        self._works.append(weakref.ref(work))

    def gone(
        self, ended_by: EndedBy = EndedBy.DISCONNECT, *, cancel: bool | None = True
    ) -> None:
        """Tell what goes on that nobody listens to it any more.

        Args:
            ended_by: How that came.
            cancel: Whether the work is to stop; None goes by the setting `on_abandon`.
        """
        for known in list(self._works):
            work = known()
            if work is not None:
                safety.guarded("listeners.gone", work.abandon, ended_by, cancel=cancel)


@contextmanager
def listening() -> Generator[Audience]:
    """Let everything that starts in this block have one audience, and return that."""
    audience = Audience()
    token = otel.attach(otel.set_value(_KEY, audience))
    try:
        yield audience
    finally:
        detach(token)


def join(work: Work) -> None:
    """Let *work* hear when the present audience has gone, if there is one."""
    audience = cast("Audience | None", otel.get_current().get(_KEY))
    if audience is not None:
        audience.add(work)
