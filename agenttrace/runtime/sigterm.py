"""SIGTERM that delivers first, where it was asked for (`on_sigterm="flush"`).

By default the signal is left alone.  A server has a handler of its own, which ends in
the exit handlers; without one the process is gone at once, and recovery tells what was
open.  A Python handler cannot run while the main thread is in C, and would keep a
process that hangs there alive until SIGKILL: so this is for those who want it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def install(deliver: Callable[[], object], patience: Callable[[], float]) -> bool:
    """Have *deliver* called when SIGTERM comes, before it takes its usual effect.

    Args:
        deliver: Called on a thread of its own: the main thread may hold any lock when
            the signal comes.
        patience: Returns the seconds that are waited for it.

    Returns:
        Whether it is in place: not where the application has a handler, nor off the
        main thread, where Python allows none.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False

    def on_sigterm(number: int, _frame: FrameType | None) -> None:
        # A second one takes effect at once.
        signal.signal(number, signal.SIG_DFL)
        thread = threading.Thread(
            target=deliver, name="agenttrace-sigterm", daemon=True
        )
        try:
            thread.start()
            thread.join(patience())
        except RuntimeError:  # too many threads, or the interpreter is about to end
            pass
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, on_sigterm)
    return True
