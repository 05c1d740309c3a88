"""The keys of whoever watches a command, one at a time and without Return.

Ctrl-Z is a key like others, so that the command can put the terminal in order before it
stops; Ctrl-C is not.  Where there is no terminal to read from, no key ever comes.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]  # asked for before each use

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Wait = Callable[[float], str]
    """Waits for so many seconds at most, and returns the key, "" where none came."""

QUIT, STOP = "q", "\x1a"
"""The key that ends a command, and Ctrl-Z."""
_NO_CHARACTER: Final = b"\0" if sys.platform.startswith("linux") else b"\xff"
_LOCAL, _CHARACTERS = 3, 6
"""Where in what `tcgetattr` returns the local modes and the characters stand."""


@contextmanager
def keys() -> Generator[Wait]:
    """Yield what waits for a key; the terminal is as it was afterwards."""
    if termios is None:
        yield _without
        return
    if not sys.stdin.isatty():
        yield _without
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def wait(seconds: float) -> str:
        if not select.select([descriptor], [], [], seconds)[0]:
            return ""
        try:
            pressed = os.read(descriptor, 1)
        except OSError:
            pressed = b""
        # Ready, and yet there is nothing: the terminal is gone.
        return pressed.decode(errors="replace") if pressed else QUIT

    as_typed = termios.tcgetattr(descriptor)
    as_typed[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
    as_typed[_CHARACTERS][termios.VMIN] = 1
    as_typed[_CHARACTERS][termios.VTIME] = 0
    as_typed[_CHARACTERS][termios.VSUSP] = _NO_CHARACTER
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, as_typed)
        yield wait
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _without(seconds: float) -> str:
    time.sleep(seconds)
    return ""
