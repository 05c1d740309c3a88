"""Reads the store: the latest runs, and the spans of one.

Looking changes nothing: the file is opened read-only for each question and closed
again, writers are never kept waiting, and no file appears.  A store that is not there
has no runs.
"""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from agenttrace.delivery.store import schema
from agenttrace.delivery.store.arrivals import Arrivals, Mark, arrived, decode
from agenttrace.delivery.store.forest import Tokens, arrange, sum_of, total_tokens
from agenttrace.delivery.store.forks import GATE
from agenttrace.errors import AgenttraceError
from agenttrace.model import Outcome

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from agenttrace.model import SpanData

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds to wait for another process that opens or repairs the file."""
_ATTEMPTS: Final = 5
_ID_DIGITS: Final = 32
_TOLD: Final = 5
"""Runs that are named where a part of a trace id fits many."""

# The earliest root: there is one, unless a run was continued from elsewhere.
_RUNS: Final = """
    SELECT
        traces.trace_id, traces.started, traces.ended, traces.spans, traces.errors,
        root.name, root.outcome,
        coalesce(root.service, (
            SELECT service FROM spans WHERE trace_id = traces.trace_id LIMIT 1
        )),
        (
            SELECT count(*) FROM spans
            WHERE outcome = 'stuck' AND outcome <> 'ok' AND trace_id = traces.trace_id
        )
    FROM traces LEFT JOIN spans AS root ON root.id = (
        SELECT id FROM spans
        WHERE trace_id = traces.trace_id AND parent_id IS NULL
        ORDER BY started LIMIT 1
    )
"""
_WITH_SERVICE: Final = """EXISTS (
    SELECT 1 FROM spans WHERE trace_id = traces.trace_id AND service = :service
)"""
_WITH_OUTCOME: Final = "traces.trace_id IN (SELECT trace_id FROM spans {where})"
_ALL_OK: Final = """traces.errors = 0 AND traces.trace_id NOT IN (
    SELECT trace_id FROM spans WHERE outcome <> 'ok'
)"""


class StoreUnreadableError(AgenttraceError):
    """The store is damaged, out of reach, or not one that this version can read."""

    def __init__(self, path: Path, reason: object) -> None:
        message = f"{path} cannot be read ({reason})."
        # A writer does nothing about a directory, or a file that it may not open.
        if isinstance(reason, sqlite3.Error) and schema.is_damage(reason):
            message += (
                " The next process that writes there sets a damaged file aside and "
                "begins a new one."
            )
        super().__init__(message)


class AmbiguousTraceError(AgenttraceError, ValueError):
    """A part of a trace id fits several runs."""

    def __init__(self, prefix: str, found: list[str]) -> None:
        more = ", ..." if len(found) > _TOLD else ""
        super().__init__(
            f"{prefix!r} fits several runs, more digits tell them apart: "
            f"{', '.join(found[:_TOLD])}{more}"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to, as far as its spans are here.

    Args:
        trace_id: 32 hexadecimal digits.
        name: Name of the root; None while it is not here.
        service: `service.name` of the root, or of any span.
        started: Earliest start, nanoseconds since the epoch.
        duration: Seconds from the earliest start to the latest end.
        outcome: How the root ended; None while it is not here or does not say.
        spans: How many are here.
        errors: How many of them have the status ERROR.
        tokens: Input and output tokens, None where nobody has said or asked.
        stuck: How many of them were judged to be stuck, whatever the root came to.
    """

    trace_id: str
    name: str | None
    service: str | None
    started: int
    duration: float
    outcome: Outcome | None
    spans: int
    errors: int
    tokens: Tokens
    stuck: int = 0

    @property
    def title(self) -> str:
        """The name of the root, or what is to be said instead."""
        return self.name if self.name is not None else "(root not here yet)"


class Reader:
    """The reading end of one store.

    Args:
        path: The file.  It need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    def runs(
        self,
        limit: int,
        *,
        since: int | None = None,
        service: str | None = None,
        outcome: Outcome | None = None,
        tokens: bool = True,
    ) -> list[Run]:
        """Return the latest runs, newest start first.

        Args:
            limit: How many at most.
            since: Only runs that started at this time (ns, epoch) or later.
            service: Only runs in which this service took part.
            outcome: Only runs in which any span ended so; `Outcome.OK`: only runs in
                which every span did.
            tokens: Whether they are summed, which looks at every span.

        Raises:
            StoreUnreadableError: The file is damaged, out of reach or not a store.
        """
        conditions = ["traces.started >= :since"] if since is not None else []
        if service is not None:
            conditions.append(_WITH_SERVICE)
        if outcome is Outcome.OK:
            conditions.append(_ALL_OK)
        elif outcome is not None:
            # The second condition is what lets SQLite use the index.
            where = "WHERE outcome = :outcome AND outcome <> 'ok'"
            conditions.append(_WITH_OUTCOME.format(where=where))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self._ask(
            lambda connection: [
                _run(connection, row, tokens=tokens)
                for row in connection.execute(
                    f"{_RUNS}{where} ORDER BY traces.started DESC LIMIT :limit",
                    {
                        "limit": limit,
                        "since": since,
                        "service": service,
                        "outcome": outcome,
                    },
                ).fetchall()
            ],
            missing=[],
        )

    def run(self, prefix: str, *, tokens: bool = True) -> Run | None:
        """Return the run whose trace id begins with *prefix*, None if there is none.

        Args:
            prefix: Hexadecimal digits, as many as it takes.
            tokens: Whether they are summed, which looks at every span.

        Raises:
            AmbiguousTraceError: There are several.
            StoreUnreadableError: The file is damaged, out of reach or not a store.
        """
        low, high = _range_of(prefix)
        found: list[Run] = self._ask(
            lambda connection: [
                _run(connection, row, tokens=tokens)
                for row in connection.execute(
                    f"{_RUNS} WHERE traces.trace_id BETWEEN ? AND ? LIMIT ?",
                    (low, high, _TOLD + 1),
                ).fetchall()
            ],
            missing=[],
        )
        if len(found) > 1:
            raise AmbiguousTraceError(prefix, [run.trace_id for run in found])
        return found[0] if found else None

    def spans(
        self, trace_id_prefix: str, *, limit: int | None = None
    ) -> list[SpanData]:
        """Return the spans of the run whose trace id begins so, by start.

        A span whose bytes are damaged is left out, and that is logged once.

        Args:
            trace_id_prefix: Hexadecimal digits, as many as it takes.
            limit: How many at most, from the start of the run.

        Raises:
            AmbiguousTraceError: It fits several runs.
            StoreUnreadableError: The file is damaged, out of reach or not a store.
        """
        run = self.run(trace_id_prefix, tokens=False)
        if run is None:
            return []
        trace_id = bytes.fromhex(run.trace_id)
        payloads: list[tuple[bytes]] = self._ask(
            lambda connection: connection.execute(
                "SELECT otlp FROM spans WHERE trace_id = ? "
                "ORDER BY started, span_id LIMIT ?",
                (trace_id, -1 if limit is None else limit),
            ).fetchall(),
            missing=[],
        )
        return [span for (payload,) in payloads for span in decode(payload)]

    def arrivals(self, trace_id: str, since: Mark | None = None) -> Arrivals:
        """Return what has arrived of a run.

        Args:
            trace_id: Its id, all of it.
            since: How far it was read; None for all of it.

        Raises:
            StoreUnreadableError: The file is damaged, out of reach or not a store.
        """
        return self._ask(
            lambda connection: arrived(connection, bytes.fromhex(trace_id), since),
            missing=Arrivals([], None, anew=True),
        )

    def _ask(self, question: Callable[[sqlite3.Connection], T], *, missing: T) -> T:
        """Return the answer to *question*, *missing* where there is no file."""
        for attempt in range(_ATTEMPTS):
            before = self._stamp()
            if before is None:
                return missing
            # Without a log the file is complete, and nobody writes: then it can be
            # read without any other file, which SQLite would create and leave.
            mode = "mode=ro" if self._has_log() else "mode=ro&immutable=1"
            try:
                with GATE, closing(self._open(mode)) as connection:
                    if schema.is_empty(connection):
                        return missing
                    schema.check(connection)
                    answer = question(connection)
            except sqlite3.Error as error:
                if attempt + 1 < _ATTEMPTS and self._stamp() != before:
                    continue
                raise StoreUnreadableError(self.path, error) from None
            if mode == "mode=ro" and schema.identity_of(self.path) == before[0]:
                return answer
            # Somebody began to write, or replaced the file, while we were reading.
            if self._stamp() == before and not self._has_log():
                return answer
        raise StoreUnreadableError(self.path, "it keeps being replaced")

    def _open(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
        )

    def _has_log(self) -> bool:
        # `-journal`: on a file system without shared memory there is no WAL.
        return any(
            self.path.with_name(self.path.name + suffix).exists()
            for suffix in ("-wal", "-journal")
        )

    def _stamp(self) -> tuple[schema.Identity, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnreadableError(self.path, error.strerror or error) from None
        if not stat.S_ISREG(found.st_mode):
            # SQLite would call a directory an I/O error, and wait for a pipe.
            raise StoreUnreadableError(self.path, "not a file")
        return (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns


def _run(
    connection: sqlite3.Connection,
    row: tuple[bytes, int, int, int, int, str | None, str | None, str | None, int],
    *,
    tokens: bool,
) -> Run:
    trace_id, started, ended, spans, errors, name, outcome, service, stuck = row
    return Run(
        trace_id=trace_id.hex(),
        name=name,
        service=service,
        started=started,
        duration=max(0, ended - started) / 1e9,
        outcome=_outcome(outcome),
        spans=spans,
        errors=errors,
        tokens=_tokens(connection, trace_id) if tokens else (None, None),
        stuck=stuck,
    )


def _outcome(value: str | None) -> Outcome | None:
    try:
        return Outcome(value) if value is not None else None
    except ValueError:
        # A newer agenttrace, or somebody's own attribute.
        return None


def _tokens(connection: sqlite3.Connection, trace_id: bytes) -> Tokens:
    rows: list[tuple[bytes, bytes | None, int | None, int | None]] = connection.execute(
        "SELECT span_id, parent_id, input_tokens, output_tokens FROM spans "
        "WHERE trace_id = ? ORDER BY started, span_id",
        (trace_id,),
    ).fetchall()
    trees = arrange({span_id: parent_id for span_id, parent_id, _, _ in rows})
    totals = total_tokens(trees, {row[0]: (row[2], row[3]) for row in rows})
    return sum_of(totals[top] for top in trees.tops)


def _range_of(prefix: str) -> tuple[bytes, bytes]:
    """Return the lowest and the highest trace id that begin with *prefix*.

    >>> [end.hex()[:4] for end in _range_of("4F2")]
    ['4f20', '4f2f']
    """
    digits = prefix.strip().lower()
    if len(digits) > _ID_DIGITS or set(digits) - set("0123456789abcdef"):
        # Nothing has an id like that: an empty range.
        return b"\x01", b"\x00"
    return (
        bytes.fromhex(digits.ljust(_ID_DIGITS, "0")),
        bytes.fromhex(digits.ljust(_ID_DIGITS, "f")),
    )
