"""When a process last made a sign of any kind, as far as its files tell.

For whoever has its open spans end then, and for whoever tells since when it has been
silent: both must say the same.  Nothing is written here, no lock taken, no clock read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agenttrace.delivery import otlp, segment_files
from agenttrace.delivery.frames import SegmentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.delivery.segment_files import Files
    from agenttrace.journal import Reading


def last_sign(journal: Reading, files: Files, now: int) -> int:
    """Return when the process of *journal* last made a sign of any kind.

    Its last tick, what stands in its slots, and what stands in the youngest frame of
    its spool: a span that was kept in memory is told there alone.

    Args:
        journal: The journal.
        files: The segments of its spool.
        now: Nanoseconds since the epoch; what is said to be later is no sign.

    Returns:
        Nanoseconds since the epoch, 0 where there is no sign at all.

    Raises:
        OSError: The journal cannot be read.
        JournalError: Its header is damaged by now.
    """
    return max(journal.last_sign(now), _in_youngest_frame(files, now))


def _in_youngest_frame(files: Files, now: int) -> int:
    """Return when the last span of the youngest frame ended; 0 where there is none.

    What cannot be read says nothing; that it cannot is told by who reads all of it.
    """
    for _, path in reversed(files):
        with contextlib.suppress(OSError, SegmentError):
            if records := segment_files.contents_at(path).records:
                return _latest(records[-1].frame.payload, now)
    return 0


def _latest(payload: bytes, now: int) -> int:
    try:
        ends: Sequence[int] = [span.end_time for span in otlp.decode(payload)]
    except ValueError:
        return 0
    return max((end for end in ends if end <= now), default=0)
