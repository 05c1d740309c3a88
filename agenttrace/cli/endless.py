"""What commands share that go on until they are told to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


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
