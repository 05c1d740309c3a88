"""Streams of a library, followed in place: what the application holds stays its own.

A library's stream has two ends that agenttrace has to hear of, and no object of it may
be exchanged for another, so each is tapped where it is kept:

- the *iterator attribute* of the stream object, from which its items are pulled, holds
  a generator that drives the library's own (`generators`);
- the *byte body* of the HTTP response under it (`response.stream`, as httpx and its
  fork httpx2 have it) is wrapped: closing it is how every way of leaving a stream ends.

A close *inside* a pull is the pull's business: libraries close the body before they
report the end, the error or the cancellation, which then says how it ended.  A close
*outside* means that nobody wants the rest.  A body whose items nobody pulls through a
stream object (`iter_lines()`, `read()`) is driven itself, and read on the way.

What items and bytes mean is the recorder's business.  A `Visit` is a further request
of an operation that is open already: it is followed alike and makes no span.
"""

from __future__ import annotations

import sys
import types
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from agenttrace import safety
from agenttrace.boundary import generators
from agenttrace.boundary.opened import is_running, opened
from agenttrace.boundary.recorder import Progress
from agenttrace.boundary.silent import Silent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Iterable

    from agenttrace.boundary.call import Call
    from agenttrace.boundary.opened import OpenedStream
    from agenttrace.boundary.recorder import Recorder
    from agenttrace.model import Ending

    Pulls = Generator[Any, Any, Any]
    AsyncPulls = AsyncGenerator[Any, Any]
    Reader = Callable[[bytes], Iterable[object]]
    """Given the bytes of a body as they pass, returns the items complete with them."""


class Body:
    """The byte body of a response, whose end is the end of its call.

    Args:
        body: The library's own.
        call: The call that goes on in it.
        read: Reads the bytes, where no stream object reads items.
    """

    def __init__(self, body: Any, call: Call, read: Reader) -> None:  # noqa: ANN401 - a library's object
        self.call = call
        self._body = body
        self.opened: OpenedStream | None = None
        self._read: Reader | None = read
        self._pulls: weakref.ref[Any] | None = None
        self._itemised = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the body has
        if name in _OWN:  # a copy that was never initialised: there is nothing behind
            raise AttributeError(name)
        return getattr(self._body, name)

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator of bytes
        if self._itemised and self._is_pulled():
            return iter(self._body)
        return self._driven(iter(self._body))

    def __aiter__(self) -> Any:  # noqa: ANN401 - an asynchronous iterator of bytes
        if self._itemised and self._is_pulled():
            return aiter(self._body)
        return self._driven(aiter(self._body))

    def close(self) -> None:
        """Close the call, and the body with it."""
        self._closed()
        self._body.close()

    async def aclose(self) -> None:
        """Close the call, and the body with it."""
        self._closed()
        await self._body.aclose()

    def __del__(self) -> None:
        # A stream that was never begun is collected without being closed.
        call = vars(self).get("call")
        if call is not None and not call.done:
            safety.guarded("stream.dropped", call.abandon)

    def follow_items(self, stream: Any, attribute: str) -> None:  # noqa: ANN401 - a library's object
        """Follow the items that are pulled through *attribute* of *stream*."""
        pulls = follow_items(self.call, stream, attribute, self.opened)
        self._itemised = True
        # Weak, or whoever keeps the response would keep the stream as well.
        self._pulls = weakref.ref(pulls)

    def _is_pulled(self) -> bool:
        """Return whether it is the items that are pulled, and not the bytes beside."""
        pulls = None if self._pulls is None else self._pulls()
        return pulls is not None and is_running(pulls)

    def _driven(self, parts: Any) -> Any:  # noqa: ANN401 - an iterator of either colour
        pulls = _driven(self.call, parts, self._take, self.opened)
        self._pulls = weakref.ref(pulls)
        return pulls

    def _take(self, part: bytes) -> Progress:
        self.call.items -= 1  # the part is counted; what counts is in it
        if self._read is None:
            return Progress.NOTHING
        items = safety.guarded("stream.read", _all, self._read, part)
        if items is None:
            self._read = None  # it would only fail again, and in the middle
        for item in items or ():
            self.call.take(item)
        return Progress.NOTHING

    def _closed(self) -> None:
        if self.call.done:
            return
        if not self._is_pulled():
            safety.guarded("stream.closed", self.call.abandon)


class Visit(Silent):
    """A further request of an operation that is open: a poll, a stream taken up again.

    Args:
        call: The operation.
        recorder: Reads what the request brings.
        ended: Told how the request ended, which need not end the operation.
    """

    __slots__ = ()

    def __init__(
        self, call: Call, recorder: Recorder, ended: Callable[[Ending], None]
    ) -> None:
        super().__init__(recorder, call.context, ended)
        self.loop = call.loop


def follow(call: Call, response: Any, read: Reader) -> Body:  # noqa: ANN401 - a library's object
    """Let *call* go on until the body of *response* has come to its end.

    Args:
        call: The call that the response answers.
        response: A response of httpx or of its fork, with the body not yet read.
        read: Reads the bytes, unless `Body.follow_items` finds better.
    """
    inner = response.stream
    # The type checkers do not believe that every class can be hashed.
    known = _bases_of(cast("Hashable", type(response)))
    bases = tuple(base for base in known if isinstance(inner, base))
    body: Body = _body_class(bases)(inner, call, read)
    call.alive = alive_of(response)
    body.opened = opened(call)
    if body.opened is not None:
        body.opened.answered_by(response, is_async=hasattr(inner, "aclose"))
    response.stream = body
    return body


def follow_items(
    call: Call,
    stream: Any,  # noqa: ANN401 - a library's object
    attribute: str,
    reader: OpenedStream | None = None,
) -> Any:  # noqa: ANN401 - a generator of either colour
    """Let *call* go on until all is pulled through *attribute* of *stream*.

    By itself for a stream whose bytes are there already; closing that one has no effect
    that could be noticed.  Returns what is pulled from now on.
    """
    pulls = _driven(call, getattr(stream, attribute), call.recorder.item, reader)
    setattr(stream, attribute, pulls)
    call.alive = alive_of(stream)
    return pulls


def body_of(response: object) -> Body | None:
    """Return the followed body of *response*, if it has one whose call is open."""
    body = getattr(response, "stream", None)
    return body if isinstance(body, Body) and not body.call.done else None


def alive_of(owner: object) -> Callable[[], object]:
    """Return what tells whether *owner* is still referenced."""
    # With a callback the reference is cleared before any finalizer runs, in every
    # version: the finalizers of the stream ask it.
    return weakref.ref(owner, _ignore)


def _driven(
    call: Call,
    pulls: Any,  # noqa: ANN401 - an iterator of either colour
    read: Callable[[Any], Progress],
    reader: OpenedStream | None,
) -> Any:  # noqa: ANN401 - a generator of either colour
    """Return a generator of the same colour that pulls from *pulls* inside *call*."""
    if reader is None:
        return _drives(call, pulls, read)
    reader.read = read
    driven = _drives(call, pulls, reader)
    reader.pulled_by(driven)
    return driven


def _drives(call: Call, pulls: Any, read: Callable[[Any], Progress]) -> Any:  # noqa: ANN401 - iterators of either colour
    driven: Any
    if type(pulls) is types.GeneratorType:
        driven = generators.drive(call, [cast("Pulls", pulls)], read)
    elif type(pulls) is types.AsyncGeneratorType:
        driven = generators.drive_async(call, cast("AsyncPulls", pulls), read)
    elif hasattr(pulls, "__anext__"):
        return generators.drive_async(call, _async_generator(pulls), read)
    else:
        return generators.drive(call, [_generator(pulls)], read)
    driven.__name__, driven.__qualname__ = pulls.__name__, pulls.__qualname__
    return driven


def _generator(pulls: Any) -> Pulls:  # noqa: ANN401 - any iterator
    yield from pulls


async def _async_generator(pulls: Any) -> AsyncPulls:  # noqa: ANN401 - any asynchronous iterator
    try:
        async for item in pulls:
            yield item
    finally:
        close = getattr(pulls, "aclose", None)
        if close is not None:
            await close()


def _all(read: Reader, part: bytes) -> list[object]:
    return list(read(part))


def _ignore(_: object) -> None:
    pass


@lru_cache(maxsize=64)
def _bases_of(response: Hashable) -> tuple[type, ...]:
    """Return the classes by which a library knows the bodies of its *response* class.

    Looked up where the class comes from: which of the libraries it is, and whether it
    is loaded at all, is the application's choice.
    """
    for cls in cast("type", response).__mro__:
        module = sys.modules.get(cls.__module__.partition(".")[0])
        if hasattr(module, _BASES[0]):
            return tuple(getattr(module, name) for name in _BASES)
    return ()


@lru_cache(maxsize=16)
def _body_class(bases: tuple[type, ...]) -> type[Body]:
    """Return `Body` as a subclass of *bases*: responses check what they iterate."""
    return type("Body", (Body, *bases), {})


_OWN: Final = frozenset({"call", "_body"})
_BASES: Final = ("SyncByteStream", "AsyncByteStream")
