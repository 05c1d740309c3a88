"""The Django middleware: whose view a step is of, and clients that leave a stream.

Spans that are started in a view say which one it is (`agenttrace.view`, `http.route`),
so that a stuck step is known by its view.  Works in both colours, and adapts to neither
where Django does not: it takes no thread and no turn of the event loop.

Under ASGI Django itself listens for clients that leave; `instrumentation.django` hears
it there.  A WSGI server says so by closing the response before its end, which is heard
here.  What a WSGI server cannot tell is that somebody left before the view returned.
"""

# Django brings no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from opentelemetry import context as otel

from agenttrace import safety, semconv, tracing
from agenttrace.attributes import clean
from agenttrace.context.bound import bound_in, bound_to
from agenttrace.context.request import Request, current_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


class AgenttraceMiddleware:
    """Tells spans which view they are of, and that their client has gone.

    Put it first: what other middlewares start is then told as well.

    Args:
        get_response: The next one, of either colour.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[
            [HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]
        ],
    ) -> None:
        self.get_response: Callable[[HttpRequest], Any] = get_response
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]  # Python 3.11 has no other that sees marks
        self.process_view: Callable[..., Any] = _note_view
        if self._is_async:
            markcoroutinefunction(self)
            self.process_view = _note_view_awaited

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - a response, or what is awaited for it
        """Answer *request*."""
        if self._is_async:
            return self._answered(request)
        if tracing.installed is tracing.DISABLED:
            return self.get_response(request)
        known = current_request()
        if known is not None:
            with _bound_for(known):
                return self.get_response(request)
        served = Request()
        followed = None
        try:
            with _of(served):
                response = self.get_response(request)
            if getattr(response, "streaming", False):
                followed = safety.guarded("django.stream", _follow, served, response)
        finally:
            if not followed:
                served.over()
        return response

    async def _answered(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase
        if tracing.installed is tracing.DISABLED:
            response = await self.get_response(request)
            return response
        known = current_request()
        if known is not None:
            with _bound_for(known):
                response = await self.get_response(request)
            return response
        # Nobody hears of clients then, for want of `instrument("django")`.
        served = Request()
        try:
            with _of(served):
                response = await self.get_response(request)
        finally:
            served.over()
        return response


def _bound_for(known: Request) -> AbstractContextManager[None]:
    """Have spans say which view of *known* they are of.

    An instrumentation in between may have exchanged the tracing context, and what is
    bound in it, for the one of the headers.
    """
    bound = bound_in(otel.get_current())
    if bound is known.attributes:
        return nullcontext()
    known.attributes.update(bound)
    return bound_to(known.attributes)


@contextmanager
def _of(served: Request) -> Generator[None]:
    """Have what is done in this block be done for *served*."""
    served.attributes.update(bound_in(otel.get_current()))
    with served, bound_to(served.attributes):
        yield


def _note_view(
    request: HttpRequest, view: Callable[..., Any], args: object, kwargs: object
) -> None:
    """Note which view is going to answer; a hook of Django's middlewares."""
    del args, kwargs
    served = current_request()
    if served is not None:
        safety.guarded("django.view", _name, served, request, view)


async def _note_view_awaited(
    request: HttpRequest, view: Callable[..., Any], args: object, kwargs: object
) -> None:
    _note_view(request, view, args, kwargs)


def _name(served: Request, request: HttpRequest, view: Any) -> None:  # noqa: ANN401 - a function, or anything that is called
    # A view class answers by a function of its own.
    view = getattr(view, "view_class", view)
    name = getattr(view, "__qualname__", type(view).__qualname__)
    served.attributes[semconv.VIEW] = clean(f"{view.__module__}.{name}")
    match = request.resolver_match
    if match is not None and match.route:
        served.attributes[semconv.HTTP_ROUTE] = clean(match.route)


def _follow(served: Request, response: Any) -> bool:  # noqa: ANN401 - a StreamingHttpResponse
    """Notice how a response ends that a WSGI server is going to iterate.

    Its steps are taken for *served*, like the view that made it.

    Returns:
        Whether it will be noticed.
    """
    closers: list[Callable[[], object]] | None
    closers = getattr(response, "_resource_closers", None)
    if response.is_async or hasattr(response, "file_to_stream") or closers is None:
        return False  # read in full before it is sent; a file
    steps = _Steps(served, iter(response.streaming_content))
    response.streaming_content = steps
    # Before those that close what is streamed, which is to know why.
    closers[:] = [steps.left, *map(steps.within, closers), served.over]
    return True


class _Steps:
    """The content of a response, each step of which is made for its request.

    Args:
        served: The request.
        content: The content.
    """

    def __init__(self, served: Request, content: Iterator[bytes]) -> None:
        self._served = served
        self._content = content
        self._is_read = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._served as served, bound_to(served.attributes):
                for part in self._content:
                    return part
        except Exception:
            self._is_read = True  # it broke: that it is closed says nothing
            raise
        self._is_read = True
        raise StopIteration

    def left(self) -> None:
        """Note that the server is done with it, before it was read if that is so."""
        if not self._is_read:
            self._served.go()

    def within(self, closer: Callable[[], object]) -> Callable[[], None]:
        """Return *closer* such that it closes for the request."""

        def close() -> None:
            with self._served as served, bound_to(served.attributes):
                closer()

        return close
