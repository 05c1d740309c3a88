"""How a run is read on a stage, and how who reads it leaves it.

It is kept, so that what ends its spans is what happens to it, and not the collector.
Two ways of each, with an event loop and without one.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final

from agenttrace.testing.conforming.subjects import (
    Iterated,
    close,
    close_plain,
    entered,
    entered_plain,
    is_stream,
    step,
    step_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing.conforming.stage import Stage

    Factory = Callable[[], Any]

_ENOUGH: Final = 100
"""Items without any span, after which a value is not read on: it may have no end."""


async def read(stage: Stage, factory: Factory, *, most: int = -1) -> Any:  # noqa: ANN401 - a stream, or what a run returns
    """Begin a run and read it, to its end or for *most* items.

    The stream is kept: what ends its spans has to be what happens to it.  So is the
    block that it is read in, where the run is a context manager, to be left later.
    """
    stream: Any = None
    async with AsyncExitStack() as stack:
        stream, is_in_block = await entered(factory(), stack)
        stream = stage.iterated(stream)
        stage.kept.append(stream)
        if is_in_block:
            stack.callback(stage.in_block())
        stage.current("when it is begun")
        while is_stream(stream):
            if stage.items == most:
                stage.block = stack.pop_all() if is_in_block else None
                break
            more, _ = await step(stream)
            if not more:
                break
            stage.items += 1
            stage.current(f"after item {stage.items}")
            if stage.items == _ENOUGH and stage.is_value:
                break
    return stream


async def leave(stage: Stage, stream: Any) -> None:  # noqa: ANN401 - any stream
    """Leave *stream* as who reads it does: its block, or else by closing it."""
    block, stage.block = stage.block, None
    if block is None:
        await close(stream)
    else:
        if isinstance(stream, Iterated):
            # Nobody but a loop has the iterator: it is gone when the loop is left.
            await close(stream.iterator)
        await block.__aexit__(*sys.exc_info())


def read_plain(stage: Stage, factory: Factory, *, most: int = -1) -> Any:  # noqa: ANN401 - a stream, or what a run returns
    """Begin a run and read it, to its end or for *most* items.

    The stream is kept, and so is the block that it is read in, where the run is a
    context manager, to be left later.
    """
    stream: Any = None
    with ExitStack() as stack:
        stream, is_in_block = entered_plain(factory(), stack)
        stream = stage.iterated(stream)
        stage.kept.append(stream)
        if is_in_block:
            stack.callback(stage.in_block())
        stage.current("when it is begun")
        while is_stream(stream):
            if stage.items == most:
                stage.block = stack.pop_all() if is_in_block else None
                break
            more, _ = step_plain(stream)
            if not more:
                break
            stage.items += 1
            stage.current(f"after item {stage.items}")
            if stage.items == _ENOUGH and stage.is_value:
                break
    return stream


def leave_plain(stage: Stage, stream: Any) -> None:  # noqa: ANN401 - any stream
    """Leave *stream* as who reads it does: its block, or else by closing it."""
    block, stage.block = stage.block, None
    if block is None:
        close_plain(stream)
    else:
        if isinstance(stream, Iterated):
            close_plain(stream.iterator)
        block.__exit__(*sys.exc_info())
