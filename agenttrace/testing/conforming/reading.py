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
    may_be_read,
    step,
    step_plain,
)
from agenttrace.testing.recording import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.testing.conforming.stage import Stage
    from agenttrace.testing.spans import Key

    Factory = Callable[[], Any]

_ENOUGH: Final = 100
"""Items without any span, after which a value is not read on: it may have no end."""


def iterated(stage: Stage, made: Any) -> Any:  # noqa: ANN401 - a stream, or a value
    """Return what *made* is read by: itself, unless it can only be iterated."""
    if not stage.reads_iterables or not may_be_read(made):
        return made
    stage.before_reading = _spans_of(stage)
    return Iterated(made, iter(made))


def is_value(stage: Stage) -> bool:
    """Return whether what was iterated is no stream: no span began or ended by it."""
    before = stage.before_reading
    return before is not None and before == _spans_of(stage)


def _spans_of(stage: Stage) -> tuple[set[Key], set[Key]]:
    """Return the spans that have ended, and those that are open."""
    return {each.key for each in stage.spans}, {*map(key_of, stage.spans.open)}


async def read(stage: Stage, factory: Factory, *, most: int = -1) -> Any:  # noqa: ANN401 - a stream, or what a run returns
    """Begin a run and read it, to its end or for *most* items.

    The stream is kept: what ends its spans has to be what happens to it.  So is the
    block that it is read in, where the run is a context manager, to be left later.
    """
    stream: Any = None
    async with AsyncExitStack() as stack:
        stream, is_in_block = await entered(factory(), stack)
        stream = iterated(stage, stream)
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
            if stage.items == _ENOUGH and is_value(stage):
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
        stream = iterated(stage, stream)
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
            if stage.items == _ENOUGH and is_value(stage):
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
