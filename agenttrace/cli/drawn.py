"""The terminal as commands draw on it, with rich."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.live import Live

from agenttrace.render import console

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console, RenderableType

T = TypeVar("T")


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
