"""What is examined: a factory of runs, and what such a run turns out to be."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Sized
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ASYNC: Final = "async"
PLAIN: Final = "plain"
KINDS: Final = (ASYNC, PLAIN)
_ASYNC_FLAGS: Final = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


class ConsumerError(Exception):
    """What goes wrong in whoever reads a stream."""


class InjectedError(Exception):
    """What goes wrong where a run waits: a connection that breaks, say."""


class Interrupt(BaseException):
    """What no `except Exception` catches."""


def name_of(factory: Callable[[], object]) -> str:
    """Return what the report calls *factory*."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    name = str(getattr(factory, "__qualname__", type(factory).__qualname__))
    module = getattr(factory, "__module__", None)
    short = name.replace("<locals>.", "").replace("<lambda>", "the run")
    return short if module in (None, "__main__") else f"{module}.{short}"


def kind_of(factory: Callable[[], object]) -> str:
    """Return whether the runs of *factory* need an event loop.

    Where its flags do not say, it is called: what is only made, and not begun, is let
    go of again.
    """
    if any(is_async(factory) for is_async in _ASYNC_FLAGS):
        return ASYNC
    if inspect.isgeneratorfunction(factory):
        return PLAIN
    try:
        made = factory()
    except Exception as error:  # noqa: BLE001 - the run's own; the first case says so
        wants_a_loop = isinstance(error, RuntimeError) and "event loop" in str(error)
        return ASYNC if wants_a_loop else PLAIN
    if inspect.isawaitable(made) or _is_only_async(made):
        if inspect.iscoroutine(made):
            made.close()
        return ASYNC
    if hasattr(made, "__aenter__") and not hasattr(made, "__enter__"):
        return ASYNC
    with contextlib.suppress(Exception):
        close_plain(made)
    return PLAIN


def _is_only_async(made: object) -> bool:
    """Return whether *made* can be read on a loop only.

    A proxy may have the methods of both kinds, whatever it stands for: that decides.
    """
    if not hasattr(made, "__aiter__"):
        return False
    return not hasattr(getattr(made, "__wrapped__", made), "__next__")


class Iterated:
    """A stream that is iterable and no iterator: it is read by one, and closed.

    Args:
        source: What was made.
        iterator: What reads it.
    """

    def __init__(self, source: object, iterator: object) -> None:
        self.source = source
        self.iterator = iterator

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the iterator has
        return getattr(self.iterator, name)


def is_stream(made: object) -> bool:
    """Return whether *made* is read item by item; a list has been read."""
    return hasattr(made, "__anext__") or hasattr(made, "__next__")


def may_be_read(made: object) -> bool:
    """Return whether *made*, which is no stream, may be one of somebody's own make.

    What has a length has been read.  Only its spans tell a stream from a value that can
    be iterated, as pydantic's models can.
    """
    if is_stream(made) or inspect.isawaitable(made):
        return False
    return isinstance(made, Iterable) and not isinstance(made, Sized | Iterated)


async def entered(
    made: Any,  # noqa: ANN401 - anything
    stack: AsyncExitStack,
) -> tuple[Any, bool]:
    """Return the stream or value that *made* leads to, and whether it is in a block.

    It is where a context manager had to be entered for it, which *stack* exits.
    """
    if inspect.isawaitable(made):
        made = await made
    if is_stream(made):
        return made, False
    if hasattr(made, "__aiter__"):
        return Iterated(made, made.__aiter__()), False
    if hasattr(made, "__aenter__"):
        within = await stack.enter_async_context(made)
        if within is made:
            return made, True
        read, _ = await entered(within, stack)
        return read, True
    return made, False


def entered_plain(
    made: Any,  # noqa: ANN401 - anything
    stack: ExitStack,
) -> tuple[Any, bool]:
    """Return the stream or value that *made* leads to, and whether it is in a block.

    It is where a context manager had to be entered for it, which *stack* exits.
    """
    if is_stream(made):
        return made, False
    if hasattr(made, "__enter__"):
        within = stack.enter_context(made)
        if within is made:
            return made, True
        read, _ = entered_plain(within, stack)
        return read, True
    return made, False


async def close(stream: Any) -> None:  # noqa: ANN401 - any stream
    """Close *stream*, as streams of all makes are."""
    if isinstance(stream, Iterated):
        await close(stream.iterator)
        stream = stream.source
    for name in ("aclose", "close"):
        method = getattr(stream, name, None)
        if method is not None:
            closed = method()
            if inspect.isawaitable(closed):
                await closed
            return


def close_plain(stream: Any) -> None:  # noqa: ANN401 - any stream
    """Close *stream*, if it can be."""
    if isinstance(stream, Iterated):
        close_plain(stream.iterator)
        stream = stream.source
    method = getattr(stream, "close", None)
    if method is not None:
        method()


async def step(stream: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any stream
    """Return whether there was a next item, and the item."""
    if hasattr(stream, "__anext__"):
        try:
            return True, await stream.__anext__()
        except StopAsyncIteration:
            return False, None
    return step_plain(stream)


def step_plain(stream: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any stream
    """Return whether there was a next item, and the item."""
    try:
        return True, stream.__next__()
    except StopIteration:
        return False, None
