"""Instants at which a test may kill the process, or hold up one of our threads.

What is promised of a crash is promised of the worst instant.  Code that keeps such a
promise names its instants here, off the application's threads; in production a name
costs one call.  There is no setting: `hook` is None unless a test assigns to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

hook: Callable[[str], None] | None = None
"""What a test does at an instant, given its name.  None in production."""


def crash_point(name: str) -> None:
    """Let a test have the instant *name*."""
    if hook is not None:
        hook(name)
