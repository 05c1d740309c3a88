"""Which process this is: what a header says of it that the standard library does not.

What an operating system does not tell is left out; nothing here fails.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Final

UNKNOWN: Final = bytes(16)


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
