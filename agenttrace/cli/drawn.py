"""The terminal as commands draw on it, with rich."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Console
from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import RenderableType

T = TypeVar("T")

PIPE_WIDTH: Final = 10_000
"""Columns where there is no terminal: who reads a pipe wants a line for each thing."""


def console() -> Console:
    """Return the standard output, for text that is nobody's markup."""
    # A name that the terminal's encoding does not have must not end the command.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH
    return found


@contextmanager
def screen(
    drawn: Callable[[T, Console], RenderableType],
) -> Generator[Callable[[T], None]]:
    """Yield what fills the terminal with a picture, over the one before.

    What was on it before is there again afterwards.

    Args:
        drawn: Returns the picture of what is seen.
    """
    on = console()
    with Live(
        console=on, screen=True, auto_refresh=False, vertical_overflow="crop"
    ) as live:

        def draw(seen: T) -> None:
            live.update(drawn(seen, on), refresh=True)

        yield draw
