"""What happens to tracing when the process forks, and when it exits.

The hooks are registered once and ask for the runtime of the moment: they cannot be
taken back, and runtimes come and go.
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Protocol

from agenttrace import safety

if TYPE_CHECKING:
    from collections.abc import Callable


class Lives(Protocol):
    """What the hooks need of a runtime."""

    def after_fork(self) -> None:
        """Be the runtime of a child process."""
        ...

    def at_exit(self) -> None:
        """Deliver what can be delivered in bounded time."""
        ...


_runtime: Callable[[], Lives | None] | None = None


def watch(runtime: Callable[[], Lives | None]) -> None:
    """Call the hooks of whatever *runtime* returns, from now on."""
    global _runtime
    first, _runtime = _runtime is None, runtime
    if first:
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    runtime = _runtime() if _runtime is not None else None
    if runtime is not None:
        safety.guarded("after_fork", runtime.after_fork)


def _at_exit() -> None:
    runtime = _runtime() if _runtime is not None else None
    if runtime is not None:
        safety.guarded("at_exit", runtime.at_exit)
