"""The write-ahead log: frames go to disk before they are sent, while there is a disk.

Owns what happens when the disk refuses: the frame goes on from memory, somebody is told
once, and the disk is tried again after a while.  Nothing here raises.  The files are
`segments`'; this is called by the threads of delivery alone, which may wait for a disk.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from agenttrace.crashpoints import crash_point
from agenttrace.safety import Count, count, log_once, note

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.segment_files import Place
    from agenttrace.delivery.segments import Segments
    from agenttrace.delivery.spool import Settle

_TRY_AGAIN: Final = 5.0


class WriteAhead:
    """Appends frames to *segments*, and settles them there.

    Args:
        segments: The files.
        try_again: Seconds to leave a disk alone that has refused.
    """

    def __init__(self, segments: Segments, *, try_again: float = _TRY_AGAIN) -> None:
        self._segments = segments
        self._try_again = try_again
        self._not_before = 0.0

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._segments.size

    def append(self, frame: Frame) -> Settle | None:
        """Write *frame*; return what settles it, None where the disk does not take it.

        By one thread.
        """
        try:
            if time.monotonic() >= self._not_before:
                place = self._segments.append(frame)
                crash_point("frame appended")
                return partial(self._settle, place)
        except OSError as error:
            self._not_before = time.monotonic() + self._try_again
            self._tell_of_appending(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, memory takes the frame
            note("delivery.append", error)
        count(Count.SPANS_NOT_SPOOLED, len(frame.ids))
        return None

    def rest(self) -> None:
        """Append nothing for a while: an idle log has no file."""
        try:
            self._segments.rest()
        except OSError as error:
            self._tell_of_settling(error)

    def close(self) -> None:
        """Append no more; the files go with the last frame that is settled."""
        try:
            self._segments.close()
        except OSError as error:
            self._tell_of_settling(error)

    def abandon(self) -> None:
        """Leave everything to the parent, in a forked child."""
        try:
            self._segments.abandon()
        except Exception as error:  # noqa: BLE001 - the child has other things to do
            note("delivery.abandon", error)

    def _settle(self, place: Place) -> None:
        try:
            self._segments.settle(place)
            crash_point("acknowledged")
        except OSError as error:
            self._tell_of_settling(error)
        except Exception as error:  # noqa: BLE001 - a lane has other frames to send
            note("delivery.settle", error)

    def _tell_of_settling(self, error: OSError) -> None:
        log_once(
            "delivery.settle",
            logging.WARNING,
            "what is delivered cannot be noted in %s (%s): spans may be sent twice "
            "(told once)",
            self._segments.directory,
            _reason(error),
        )

    def _tell_of_appending(self, error: OSError) -> None:
        log_once(
            "delivery.append",
            logging.WARNING,
            "spans cannot be written to %s (%s): they are sent all the same, and are "
            "lost if the process dies before that (told once, counted in %s)",
            self._segments.directory,
            _reason(error),
            Count.SPANS_NOT_SPOOLED.value,
        )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
