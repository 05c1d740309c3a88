"""What commands share that go on until they are told to end.

They look again and again, and draw what they see over what was there, or print it line
by line.  What is seen and how it is drawn is their own business.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    from agenttrace.cli.keyboard import Wait

T = TypeVar("T")

_SHARE: Final = 4
"""How many times as long it rests as a look has taken: it is a guest on the machine."""


def is_screen() -> bool:
    """Return whether there is a terminal that can be drawn on."""
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    return sys.stdout.isatty() and not Console().is_dumb_terminal


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
    """Have SIGTERM end it like Ctrl-C: what is to be put in order is."""
    # Off the main thread, as in a test, there are no signals to come.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def draw(
    look: Callable[[], T],
    screen: Callable[[], AbstractContextManager[Callable[[T], None]]],
    every: float,
) -> None:
    """Draw what there is to see until q is pressed.

    Args:
        look: Returns it.
        screen: Opens what draws it.
        every: Seconds between two looks.
    """
    from agenttrace.cli.keyboard import QUIT, keys  # noqa: PLC0415 - not needed for JSON

    while True:
        with keys() as key, screen() as drawn:
            pressed = _draw_until_key(look, every, drawn, key)
        if pressed == QUIT:
            return
        # With the terminal as the shell expects it, and not as it is while we draw.
        os.kill(os.getpid(), signal.SIGSTOP)


def _draw_until_key(
    look: Callable[[], T], every: float, drawn: Callable[[T], None], key: Wait
) -> str:
    """Draw what there is to see until a key is pressed that means something."""
    from agenttrace.cli.keyboard import QUIT, STOP  # noqa: PLC0415 - as above

    while True:
        begun = time.monotonic()
        drawn(look())
        now = time.monotonic()
        look_at = now + _rest(every, now - begun)
        while (left := look_at - time.monotonic()) > 0:
            pressed = key(left).lower()
            if pressed in {QUIT, STOP}:
                return pressed


def print_lines(look: Callable[[], Iterable[object]], every: float) -> None:
    """Print what there is to see for ever, each object as JSON in one line.

    Args:
        look: Returns it.
        every: Seconds between two looks.
    """
    while True:
        begun = time.monotonic()
        for told in look():
            click.echo(json.dumps(told, allow_nan=False))
        time.sleep(_rest(every, time.monotonic() - begun))


def _rest(every: float, taken: float) -> float:
    return max(every - taken, _SHARE * taken)
