"""What `traces.db` looks like, and how one is opened, recognised and set aside.

One SQLite file in WAL mode.  `spans` holds one row per span: its OTLP bytes, and the
columns that are worth filtering on.  `traces` is the account of every run, kept by
triggers, so that it is right whoever writes; deleting its row deletes the run.  `runs`
is a view for people.  `docs/reference/store.md` explains the columns and has queries.

The version stands in `PRAGMA user_version`, whose file it is in
`PRAGMA application_id`.  A file that is not ours, is damaged, or comes from a newer
agenttrace is never written to and never fatal: it is renamed to
`traces.db.damaged-<n>`, and a new one is begun.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.settings import STORE_FILE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

FILE_NAME: Final = STORE_FILE
VERSION: Final = 1
APPLICATION_ID: Final = int.from_bytes(b"agtr", "big")
KEPT_DAMAGED: Final = 3
"""Files set aside that are kept; the oldest goes first, or a bad disk would fill."""

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without locks answer: each its own, and each platform others."""
_WAL_PAGES: Final = 1000
"""Pages of the write-ahead log after which SQLite copies it back, at most."""

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever its name."""

_TABLES: Final = frozenset({"spans", "traces"})

# SQLite keeps the comments: `.schema` shows them to whoever looks.
_SCHEMA: Final = (
    """
    CREATE TABLE spans (
        id INTEGER PRIMARY KEY,       -- in the order of arrival
        trace_id BLOB NOT NULL,       -- 16 bytes
        span_id BLOB NOT NULL,        -- 8 bytes
        parent_id BLOB,               -- 8 bytes; NULL: a root
        name TEXT NOT NULL,
        operation TEXT,               -- gen_ai.operation.name
        service TEXT,                 -- service.name
        started INTEGER NOT NULL,     -- nanoseconds since 1970, UTC
        ended INTEGER NOT NULL,       -- nanoseconds since 1970, UTC
        status TEXT NOT NULL,         -- unset, ok, error
        outcome TEXT,                 -- agenttrace.outcome; error, if only status is
        ended_by TEXT,                -- agenttrace.ended_by
        input_tokens INTEGER,         -- gen_ai.usage.input_tokens
        output_tokens INTEGER,        -- gen_ai.usage.output_tokens
        otlp BLOB NOT NULL            -- ExportTraceServiceRequest with this span alone
    )
    """,
    """
    CREATE TABLE traces (
        trace_id BLOB PRIMARY KEY,
        started INTEGER NOT NULL,     -- earliest start
        ended INTEGER NOT NULL,       -- latest end
        spans INTEGER NOT NULL,
        errors INTEGER NOT NULL,      -- spans whose status is error
        bytes INTEGER NOT NULL,       -- of their otlp
        last_span INTEGER NOT NULL    -- spans.id of the last one to arrive
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX spans_by_id ON spans (trace_id, span_id)",
    "CREATE INDEX spans_roots ON spans (trace_id, started) WHERE parent_id IS NULL",
    "CREATE INDEX spans_not_ok ON spans (outcome, trace_id) WHERE outcome <> 'ok'",
    "CREATE INDEX traces_by_start ON traces (started)",
    """
    CREATE TRIGGER span_arrives AFTER INSERT ON spans BEGIN
        INSERT INTO traces VALUES (
            new.trace_id, new.started, new.ended,
            1, new.status = 'error', length(new.otlp), new.id
        )
        ON CONFLICT (trace_id) DO UPDATE SET
            started = min(started, excluded.started),
            ended = max(ended, excluded.ended),
            spans = spans + 1,
            errors = errors + excluded.errors,
            bytes = bytes + excluded.bytes,
            last_span = excluded.last_span;
    END
    """,
    """
    CREATE TRIGGER trace_goes AFTER DELETE ON traces BEGIN
        DELETE FROM spans WHERE trace_id = old.trace_id;
    END
    """,
    """
    CREATE VIEW runs AS
    SELECT
        lower(hex(traces.trace_id)) AS trace_id,
        root.name AS name,
        root.service AS service,
        root.outcome AS outcome,
        datetime(traces.started / 1000000000, 'unixepoch') AS started,
        (traces.ended - traces.started) / 1e9 AS seconds,
        traces.spans AS spans,
        traces.errors AS errors
    FROM traces LEFT JOIN spans AS root ON root.id = (
        SELECT id FROM spans
        WHERE trace_id = traces.trace_id AND parent_id IS NULL
        ORDER BY started LIMIT 1
    )
    ORDER BY traces.started DESC
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


class LockedError(sqlite3.OperationalError):
    """Another process is creating the store or setting it aside right now."""


class NotOurStoreError(sqlite3.DatabaseError):
    """A file is an SQLite database, but not one that this version can use."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether *error* says that the file itself is at fault."""
    if isinstance(error, NotOurStoreError):
        return True
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether *error* only says that another process is writing."""
    return isinstance(error, LockedError) or _primary(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
    )


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    # The upper bytes say more of the same, such as SQLITE_BUSY_RECOVERY.
    return code & 0xFF if isinstance(code, int) else None


def identity_of(path: Path) -> Identity | None:
    """Return which file *path* names now, None where it names none.

    By `stat`, never by opening: closing any descriptor of a file drops all locks
    that this process has on it, SQLite's included.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Let only one process at a time open *path* for writing or set it aside.

    SQLite finds the write-ahead log by its name.  Whoever opened the store while
    another process renames its files one by one would mix the log of one with the
    pages of the other.  For the caller that holds the gate.

    Raises:
        LockedError: Another process is at it.
        OSError: The directory cannot be written to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32":
        # Windows renames no file that is open, so there is nothing to mix.
        yield
        return
    descriptor = os.open(_beside(path, ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            message = "another process opens the store"
            raise LockedError(message) from None
        except OSError as error:
            # A file system without locks: SQLite will say what it thinks of it.
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def create_file(path: Path) -> None:
    """Create *path*, private to the user, where it is missing.

    SQLite gives its `-wal` and `-shm` the mode of the file they belong to.

    Raises:
        OSError: The directory cannot be written to.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # Somebody deleted the file and not these: SQLite would replay the old log
        # into the new file.
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                _beside(path, suffix).unlink()


def open_for_writing(path: Path, max_bytes: int, patience: float) -> sqlite3.Connection:
    """Return a connection to *path*, which is given our schema if it is empty.

    Args:
        path: The file; it exists.
        max_bytes: Its size limit; the write-ahead log stays small beside it.
        patience: Seconds that a statement waits for other processes.

    Raises:
        sqlite3.Error: See `is_damage` and `is_busy`.
    """
    connection = sqlite3.connect(
        # Never creates: a file that vanished this instant would come back with the
        # mode that the umask allows.
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=patience,
        isolation_level=None,
        # One thread at a time, but not always the same one.
        check_same_thread=False,
    )
    try:
        _recognise_or_create(connection)
        page_size = pragma(connection, "page_size")
        log_pages = max(16, min(_WAL_PAGES, max_bytes // 32 // page_size))
        # NORMAL: a commit survives the death of the process; a power failure may
        # take the last ones, but not the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_pages}")
        connection.execute(f"PRAGMA journal_size_limit = {log_pages * page_size}")
    except BaseException:
        connection.close()
        raise
    return connection


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return the number that the pragma *name* answers with."""
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def check(connection: sqlite3.Connection) -> None:
    """Make sure that this is a store that this version can read and write.

    Raises:
        NotOurStoreError: It is something else.
        sqlite3.Error: It cannot be read at all.
    """
    version = pragma(connection, "user_version")
    if pragma(connection, "application_id") != APPLICATION_ID:
        message = "not a store of agenttrace"
        raise NotOurStoreError(message)
    if version != VERSION:
        message = f"a store of version {version}, this agenttrace knows {VERSION}"
        raise NotOurStoreError(message)
    if not _tables(connection) >= _TABLES:
        message = "a store without its tables"
        raise NotOurStoreError(message)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether nobody has written anything to this database yet."""
    return (
        pragma(connection, "user_version") == 0
        and pragma(connection, "application_id") == 0
        and not _tables(connection)
    )


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in found}


def _recognise_or_create(connection: sqlite3.Connection) -> None:
    if not is_empty(connection):
        check(connection)
        return
    # Both are properties of the file and must precede its first table.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have come first.
        if is_empty(connection):
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    check(connection)


def set_aside(path: Path, seen: Identity | None, reason: str) -> None:
    """Rename the damaged file *path* and what belongs to it.

    Args:
        path: The file.
        seen: Which file was found damaged.  Another process may have set it aside
            already, and what *path* names now is then left alone.
        reason: What is wrong with it, for the log.

    Raises:
        OSError: It cannot be renamed.
    """
    if seen is None or identity_of(path) != seen:
        return
    numbers = [number for number, _ in _set_aside_before(path)]
    name = f"{path.name}.damaged-{max(numbers, default=0) + 1}"
    path.rename(path.with_name(name))
    # The log is part of the database; its index is rebuilt from it.
    with suppress(OSError):
        _beside(path, "-wal").rename(path.with_name(f"{name}-wal"))
    with suppress(OSError):
        _beside(path, "-shm").unlink()
    safety.count(safety.Count.STORES_SET_ASIDE)
    safety.log_once(
        "store.damaged",
        logging.WARNING,
        "%s cannot be used (%s): renamed to %s, a new one is begun (logged once, "
        "counted in stores_set_aside)",
        path,
        reason,
        name,
    )
    for _, old in sorted(_set_aside_before(path))[:-KEPT_DAMAGED]:
        for suffix in ("", "-wal"):
            with suppress(OSError):
                _beside(old, suffix).unlink()


def _set_aside_before(path: Path) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(path.name) + r"\.damaged-(\d+)")
    found: list[tuple[int, Path]] = []
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match:
            found.append((int(match[1]), entry))
    return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
