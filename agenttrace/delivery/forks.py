"""Keeps a fork from coming in the middle of an import.

What a destination needs is imported on a thread of ours when it is first used.  A
process forked meanwhile would inherit the lock of a module that nobody is going to
release, and hang when it imports the same module, be it the application that does.
So the one waits for the other.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_PATIENCE: Final = 5.0
"""Seconds after which a fork goes ahead: it must not hang in order not to hang."""

_importing = threading.Lock()
_is_held_by_fork = False


@contextmanager
def no_fork() -> Generator[None]:
    """Let no fork of this process begin inside.  Not re-entrant; for imports only."""
    with _importing:
        yield


def _before() -> None:
    global _is_held_by_fork  # noqa: PLW0603 - told from one hook to the next
    _is_held_by_fork = _importing.acquire(timeout=_PATIENCE)


def _after_in_parent() -> None:
    if _is_held_by_fork:
        _importing.release()


def _after_in_child() -> None:
    global _importing  # noqa: PLW0603 - whoever held it is not in this process
    _importing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
