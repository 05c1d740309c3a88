"""One collection of garbage that has really taken place."""

from __future__ import annotations

import gc
import threading
import time
from typing import Final

_PATIENCE: Final = 10.0
"""Seconds that another thread's collection may take."""
_PAUSE: Final = 0.001


def collect_garbage() -> None:
    """Run the garbage collector over all that is dropped by now.

    `gc.collect` returns at once, and says nothing, where another thread is collecting:
    that one has begun earlier and may find less.  This waits for its turn, but not in
    a finalizer, which is part of the collection that it would wait for.
    """
    me = threading.get_ident()
    mine: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        if threading.get_ident() == me:
            mine.append(phase)

    deadline = time.monotonic() + _PATIENCE
    gc.callbacks.append(note)
    try:
        gc.collect()
        while not mine and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            gc.collect()
    finally:
        gc.callbacks.remove(note)
