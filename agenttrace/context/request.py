"""The request that work is done for, and who wants to hear that its client has gone.

This is the seam between what serves requests (`asgi`, `django`) and what is done for
them.  Who serves makes a `Request`, current while the application answers, and says
`go()` when the server tells that nobody listens any more.  Who does something that is
for the client alone finds it at its start and asks to be told:

    request = current_request()
    if request is not None:
        forget = request.on_gone(result.cancel)  # and forget() when it is done

A listener is called once, where the server said it: on the loop's own thread, between
two lines of the application.  So it must not wait, and what it raises is swallowed.
After the end of the request nobody is told any more: what is done in the background is
none of its client's business.  A listener for work that the application has put there
before (`create_task`, `background()`) must not be asked for.

It stands in a variable of its own and not in OpenTelemetry's context: FastAPI exchanges
that for the one of the incoming headers.  It knows no span, and closes nothing itself.
"""

from __future__ import annotations

import contextlib
import contextvars
import weakref
from typing import TYPE_CHECKING, Any, Final, Self

from agenttrace import safety
from agenttrace.context.collector import COLLECTOR, FINISHED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Protocol

    class Opened(Protocol):
        """A stream or run that was opened for a request (see `boundary.opened`)."""

        def is_left(self) -> bool:
            """Return whether it is open and nobody is inside it, or will be."""
            ...

        async def close(self) -> None:
            """Close it."""
            ...


class Request:
    """One request, from when the application gets it until it is done with it.

    A context manager: it is the current request inside.  Whoever made it says when it
    is `over()`.

    Attributes:
        is_gone: Whether its client went away before it was answered.
        is_over: Whether the application is done with it.
        attributes: What every span that starts in it says, if the framework tells
            what is asked for.
    """

    __slots__ = (
        "_listeners",
        "_streams",
        "_token",
        "attributes",
        "is_gone",
        "is_over",
    )

    def __init__(self) -> None:
        self.is_gone = False
        self.is_over = False
        self.attributes: dict[str, object] = {}
        self._listeners: list[Callable[[], object]] = []
        self._streams: list[weakref.ref[Opened]] = []
        self._token: Any = None

    def __repr__(self) -> str:
        state = "gone" if self.is_gone else "over" if self.is_over else "open"
        return f"<Request: {state}>"

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if COLLECTOR.is_here():
            return  # see there; and whose context this was is gone
        try:
            _CURRENT.reset(token)
        except (ValueError, RuntimeError):
            # A coroutine that somebody else closes: nothing of ours is current there.
            return

    def on_gone(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have *listener* called when the client goes; at once if it has.

        When the request is over it never is.

        Args:
            listener: Called with nothing; must not wait.

        Returns:
            What takes it back.  Called late, or twice, it does nothing.
        """
        if self.is_over:
            return _nothing
        if self.is_gone:
            safety.guarded("request.gone", listener)
            return _nothing
        # A listener of its own, so that the same one can be there twice.
        mine = _Listener(listener)
        self._listeners.append(mine)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(mine)

        if self.is_gone and mine in self._listeners:  # in this very moment
            forget()
            safety.guarded("request.gone", listener)
        return forget

    def go(self) -> None:
        """Note that the client has gone, and tell everybody who wants to hear it."""
        if self.is_gone or self.is_over:
            return
        self.is_gone = True
        # Whom the collector takes off the list meanwhile is not told either.
        with contextlib.suppress(IndexError):
            while True:
                safety.guarded("request.gone", self._listeners.pop(0))

    def over(self) -> None:
        """Note that the application is done with it: nobody is told any more."""
        self.is_over = True
        self._listeners.clear()

    def opened(self, stream: Opened) -> None:
        """Note that *stream* was opened for this request.  It is not held."""
        if not self.is_over:
            streams = self._streams
            streams.append(weakref.ref(stream, streams.remove))

    def left(self) -> list[Opened]:
        """Return the streams that are open, with nobody inside them any more.

        None unless the client has gone: else the application may go on with them, in
        its next request for instance.
        """
        if not self.is_gone:
            return []
        streams = [each() for each in tuple(self._streams)]
        return [each for each in streams if each is not None and each.is_left()]


class _Listener:
    """A listener, to be told from another one of the same function."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __call__(self) -> None:
        self._call()


def current_request() -> Request | None:
    """Return the request that this is done for, if something here serves requests."""
    if COLLECTOR.event is not FINISHED.stop and COLLECTOR.is_here():
        # A finalizer must not read what may just be set; see there.
        return contextvars.copy_context().get(_CURRENT)
    return _CURRENT.get()


@contextlib.contextmanager
def apart() -> Generator[None]:
    """Have what is started in this block be for no client."""
    token = _CURRENT.set(None)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _nothing() -> None:
    pass


_CURRENT: Final = contextvars.ContextVar[Request | None](
    "agenttrace-request", default=None
)
