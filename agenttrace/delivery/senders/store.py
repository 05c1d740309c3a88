"""Sends frames to the embedded store: what is used when no endpoint is configured.

The store is a destination like any other.  COMMIT is its acknowledgement; patience
beyond one attempt, and telling the user, are the spooler's.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agenttrace.delivery.senders import Answer, Delivered, Later, Refused
from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    import os

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.store import Writer

DEFAULT_MAX_BYTES: Final = 256 << 20


class StoreSender:
    """Writes every frame in one transaction; sending it again changes nothing.

    Args:
        path: The file, by custom `traces.db` in the state directory.  Created, with
            its directory, when the first frame comes; private to the user.
        max_bytes: About what it may take on disk, 1 MiB or more.  The runs that have
            been silent longest make room, whole runs at a time.
    """

    def __init__(
        self, path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        # Absolute now: the application may change its directory before the first run.
        self._path = Path(path).absolute()
        self._max_bytes = max_bytes
        self._writer: Writer | None = None

    def __repr__(self) -> str:
        """Return where it writes to."""
        return f"StoreSender({str(self._path)!r})"

    def send(self, frame: Frame, timeout: float) -> Answer:
        """Commit *frame*, waiting at most *timeout* seconds for other processes."""
        # Here, on the sending thread: an application that configures a store and
        # never runs an agent does not pay for importing SQLite and protobuf.
        with no_fork_at_first("store"):
            from agenttrace.delivery.store import writer  # noqa: PLC0415 - see above

            # What splitting a frame will import.
            importlib.import_module(
                "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
            )

        if self._writer is None:
            self._writer = writer.Writer(self._path, self._max_bytes)
        try:
            batch = writer.split(frame.payload)
        except writer.UnreadableFrameError as error:
            return Refused(str(error))
        if batch.size > self._writer.largest:
            return Refused(
                f"{batch.size} bytes of spans ({len(batch.rows)}) do not fit into a "
                f"store that may hold {self._writer.largest}"
            )
        try:
            self._writer.write(batch.rows, timeout)
        except writer.FAILURES as error:
            # All of these may pass: a disk is emptied, mounted again, repaired; what
            # a forked child cannot write, the process that adopts its spool can.
            return Later(f"{self._path}: {error}")
        if batch.rejected:
            return Delivered(batch.rejected, "spans without a valid id")
        return Delivered()

    def close(self) -> None:
        """Close the connection to the file."""
        if self._writer is not None:
            self._writer.close()
