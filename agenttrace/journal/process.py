"""Which process this is: what a header says of it that the standard library does not.

What an operating system does not tell is left out; nothing here fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN: Final = bytes(16)
_LAST_DIGITS: Final = 4
"""Digits of an instance's name that count the journals of its process."""
_INSTANCE: Final = f"([0-9]+-[0-9a-f]+)[0-9a-f]{{{_LAST_DIGITS}}}"

_instances: Iterator[str] = iter(())


def next_instance() -> str:
    """Return a name for one more journal of this process: no other one ever has it."""
    global _instances  # noqa: PLW0603 - there is one process
    with contextlib.suppress(StopIteration):
        return next(_instances)
    begins = f"{os.getpid()}-{os.urandom(6).hex()}"
    _instances = map((begins + "{:04x}").format, range(16**_LAST_DIGITS))
    return next(_instances)


def of_process(instance: str) -> str:
    """Return what the names of all journals of the process of *instance* begin with.

    >>> of_process("7-0123456789ab0000")
    '7-0123456789ab'
    """
    match = re.fullmatch(_INSTANCE, instance)
    return instance if match is None else match[1]


def _after_fork() -> None:
    global _instances  # noqa: PLW0603 - the child is another process
    _instances = iter(())


def boot_id() -> bytes:
    """Return 16 bytes that change with each start of the machine, zeros if unknown."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes().decode()
        return uuid.UUID(text.strip()).bytes
    except (OSError, ValueError):  # not Linux
        return UNKNOWN


def started_at() -> int:
    """Return when this process started, nanoseconds since the epoch; else now."""
    now = time.time_ns()
    try:
        stat = Path("/proc/self/stat").read_bytes()
        # The second field is the name in parentheses, which may hold anything.
        ticks = int(stat.rpartition(b")")[2].split()[19])
        # As the clock that counts sleep too, which is what the ticks count.
        up = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return now - up + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return now


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
