"""Writes rows to the store: several processes at once, and never above its size.

A write is one short transaction, and repeating it changes nothing: the first form of a
span stays.  Room is made inside the same transaction, by whole runs, the one that has
been silent longest first, so the file reuses its pages instead of growing.

The writer waits for other processes in slices and outside the gate, so that a fork of
the application waits for one transaction at most (`forks`).
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from agenttrace.delivery.store import schema
from agenttrace.delivery.store.forks import GATE, ForkedInsideError
from agenttrace.delivery.store.rows import (
    Row,
    UnreadableFrameError,
    size_of,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["FAILURES", "UnreadableFrameError", "Writer", "split"]

FAILURES: Final = (sqlite3.Error, OSError, ForkedInsideError)
"""What `Writer.write` raises."""

_SLICE: Final = 0.1
"""Seconds in which SQLite waits for another process before it gives the gate back."""
_LOG_PATIENCE: Final = 0.25
"""Seconds that a write spends on emptying a log that is too long."""
_VACUUM_PAGES: Final = 1024
"""Pages given back per write after the limit was lowered: 4 MiB, a few milliseconds."""
_VICTIMS: Final = 256
"""Runs that are evicted before it is measured how much room that made."""
_ATTEMPTS: Final = 3
"""Files that one write may find damaged or gone before the disk is not believed."""

_AT_ONCE: Final = 512
"""Rows that one statement inserts.

SQLite lets go of the interpreter while it works, and who has let go may wait 5 ms for
each thread that computes until it goes on: row by row, some thousand take a minute
beside four of these.
"""
_VALUES: Final = f"({', '.join('?' * len(Row._fields))})"


class Writer:
    """The writing end of one store.

    Args:
        path: The file.  It and its directory are created by the first write.
        max_bytes: About what the file and its log may take on disk.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path.absolute()
        self._max_bytes = max_bytes
        # What remains is for the log, which holds a copy of what was written last.
        self._max_pages_bytes = max_bytes - max_bytes // 8
        self._connection: sqlite3.Connection | None = None
        self._identity: schema.Identity | None = None
        GATE.add(self)

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open now."""
        return self._connection is not None

    @property
    def largest(self) -> int:
        """Bytes, as `rows.size_of` counts them, that one write can have."""
        return self._max_pages_bytes

    def write(self, rows: Sequence[Row], timeout: float) -> None:
        """Commit *rows*, giving other processes *timeout* seconds to let us.

        Raises:
            sqlite3.Error: The disk is full or read-only, or others write all the time.
            OSError: The directory cannot be used.
            ForkedInsideError: SQLite cannot be used in this process.
        """
        if not rows:
            return
        deadline = time.monotonic() + timeout
        damage: str | None = None
        attempts = 0
        while True:
            try:
                with GATE:
                    if damage is not None:
                        self._set_aside(damage)
                        damage = None
                    attempts += 1
                    if self._write(rows):
                        return
            except sqlite3.Error as error:
                if schema.is_busy(error) and time.monotonic() < deadline:
                    attempts = 0
                    time.sleep(_uneven())
                elif schema.is_damage(error) and attempts < _ATTEMPTS:
                    damage = str(error)
                else:
                    raise
            if attempts >= _ATTEMPTS:
                message = "the file is replaced or damaged as soon as it is written"
                raise OSError(message)

    def close(self) -> None:
        """Close the connection.  The next write opens another."""
        with suppress(ForkedInsideError), GATE:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; for a caller that holds the gate."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _write(self, rows: Sequence[Row]) -> bool:
        """Write *rows*; False where they must be written again.

        Between opening and committing, somebody may have set the file aside or
        deleted it.  What was committed then is where no reader will look.
        """
        try:
            connection = self._connected()
            self._empty_log(connection)
            self._transaction(connection, rows)
            if schema.identity_of(self.path) == self._identity:
                self._tidy(connection)
                return True
        except sqlite3.Error as error:
            if not schema.is_busy(error):
                self.disconnect()
            raise
        self.disconnect()
        return False

    def _set_aside(self, reason: str) -> None:
        with schema.exclusive(self.path):
            schema.set_aside(self.path, self._identity, reason)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            with schema.exclusive(self.path):
                schema.create_file(self.path)
                # Before it is opened: should it be replaced in between, the two
                # differ, and the write is repeated; the other order would miss it.
                self._identity = schema.identity_of(self.path)
                self._connection = schema.open_for_writing(
                    self.path, self._max_bytes, _SLICE
                )
        return self._connection

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        """Have the log copied back into the file where it has become too long.

        SQLite does so by itself, but never gets to its end, and so never begins the
        log anew, while several processes write without a pause.

        Raises:
            LockedError: It is as large as the store may be, and somebody who reads
                an old state keeps it from being emptied.
        """
        deadline = time.monotonic() + _LOG_PATIENCE
        while self._log_size() > self._max_bytes // 8:
            (busy, _, _) = connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
            if not busy:
                return
            if time.monotonic() >= deadline:
                if self._log_size() > self._max_bytes:
                    message = "somebody who reads keeps the log from being emptied"
                    raise schema.LockedError(message)
                return
            time.sleep(_uneven())

    def _log_size(self) -> int:
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _transaction(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._make_room(connection, rows)
            for some in _portions(rows, _room(connection)):
                connection.execute(_insert(len(some)), list(chain.from_iterable(some)))
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors, a full disk's say.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _make_room(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        excess = self._excess(connection, size_of(rows))
        if excess <= 0:
            return
        # A little more than needed, or every write from now on would evict a little.
        excess += self._max_bytes // 32
        written_to = {row.trace_id for row in rows}
        while excess > 0:
            victims = _oldest(connection, excess, written_to)
            if not victims and written_to:
                # Nothing else is left: the run that is being written has outgrown
                # the store by itself, and its newest part says how it ended.
                written_to.clear()
                continue
            if not victims:
                return
            connection.executemany("DELETE FROM traces WHERE trace_id = ?", victims)
            excess = self._excess(connection, size_of(rows))

    def _excess(self, connection: sqlite3.Connection, more: int) -> int:
        """Return the bytes by which the file would be too large with *more* in it."""
        pages = schema.pragma(connection, "page_count")
        unused = schema.pragma(connection, "freelist_count")
        used = (pages - unused) * schema.pragma(connection, "page_size")
        return used + more - self._max_pages_bytes

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Give back to the disk what earlier, larger limits took."""
        with suppress(sqlite3.Error):
            page_size = schema.pragma(connection, "page_size")
            pages = schema.pragma(connection, "page_count")
            surplus = pages - self._max_pages_bytes // page_size
            if surplus > 0:
                wanted = min(surplus, _VACUUM_PAGES)
                # Gives back a page per step and no row: execute() would stop at one.
                connection.executescript(f"PRAGMA incremental_vacuum({wanted})")


def _room(connection: sqlite3.Connection) -> int:
    """Return how many rows a statement can have: older versions allow 999 values."""
    values = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return min(_AT_ONCE, max(values // len(Row._fields), 1))


def _portions(rows: Sequence[Row], largest: int) -> Iterator[Sequence[Row]]:
    """Yield *rows* in portions of a power of two, so that statements are few.

    >>> [len(some) for some in _portions(range(23), 9)]
    [8, 8, 4, 2, 1]
    """
    first = 0
    while left := len(rows) - first:
        size = 1 << (min(left, largest).bit_length() - 1)
        yield rows[first : first + size]
        first += size


@cache
def _insert(rows: int) -> str:
    """Return the statement that inserts so many, but none that is there already."""
    return (
        f"INSERT INTO spans ({', '.join(Row._fields)}) "  # noqa: S608 - our own names
        f"VALUES {', '.join([_VALUES] * rows)} "
        "ON CONFLICT (trace_id, span_id) DO NOTHING"
    )


def _uneven() -> float:
    """Return a few milliseconds: equal ones would let two processes meet again."""
    return random.uniform(0.001, 0.01)  # noqa: S311 - no secret


def _oldest(
    connection: sqlite3.Connection, excess: int, spared: set[bytes]
) -> list[tuple[bytes]]:
    """Return the runs to evict for *excess* bytes, silent longest first."""
    victims: list[tuple[bytes]] = []
    freed = 0
    found = connection.execute(
        "SELECT trace_id, bytes FROM traces ORDER BY last_span LIMIT ?",
        (_VICTIMS + len(spared),),
    )
    for trace_id, size in found.fetchall():
        if freed >= excess:
            break
        if trace_id not in spared:
            victims.append((trace_id,))
            freed += size
    return victims
