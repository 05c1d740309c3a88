"""Tells what is traced in a request of Django's that its client has gone.

Under ASGI alone: there Django's handler listens for it, and cancels the view.  No span
is made: names of views come from the middleware (`agenttrace.django`), and what a
response that is streamed by a WSGI server needs is that middleware's too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel

from agenttrace import tracing
from agenttrace.context.bound import bound_in, bound_to
from agenttrace.instrumentation._patching import Instrumentor, Patch
from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from agenttrace.context.request import Request


def _handle(
    handle: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine
    # The first request imports what serves requests: most processes have none.
    with no_fork_at_first("django.served"):
        from agenttrace.boundary.served import serve  # noqa: PLC0415 - see above

    if kwargs or len(args) != _ARGUMENTS or tracing.installed is tracing.DISABLED:
        return handle(*args, **kwargs)
    return serve(handle, *args, around=_spans_of)


def _spans_of(request: Request) -> AbstractContextManager[None]:
    """Return what has spans say which view they are of, as soon as that is known."""
    request.attributes.update(bound_in(otel.get_current()))
    return bound_to(request.attributes)


_ARGUMENTS: Final = 3

INSTRUMENTOR: Final = Instrumentor(
    "django",
    (Patch("django.core.handlers.asgi", "ASGIHandler.handle", _handle),),
    majors=range(5, 7),
)
