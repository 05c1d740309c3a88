"""Reads a run bit by bit: what has arrived of it since it was read before.

A mark says how far that was.  Runs are evicted, a large one loses its oldest part, and
a damaged file is begun anew, so a mark is believed only where its row is still the span
that it was, and no row of the run has gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenttrace import safety
from agenttrace.delivery import otlp

if TYPE_CHECKING:
    import sqlite3

    from agenttrace.model import SpanData


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a run was read.

    Args:
        row: The latest row.
        span_id: Whose it is: rows are counted anew in another file.
        rows: How many rows of the run there were.
    """

    row: int
    span_id: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What has arrived of one run.

    Args:
        spans: What is new, in the order of arrival.
        mark: How far that is, to ask again with; None where nothing of it is here.
        anew: They are all that is here: what there was before is gone, or was not asked
            for.
    """

    spans: list[SpanData]
    mark: Mark | None
    anew: bool


def arrived(
    connection: sqlite3.Connection, trace_id: bytes, since: Mark | None
) -> Arrivals:
    """Return what has arrived since; all of it where *since* is not true any more."""
    connection.execute("BEGIN")  # both answers are of one moment
    # Sorted here: SQLite would rather look at every run's rows than sort these.
    rows: list[tuple[int, bytes, bytes]] = sorted(
        connection.execute(
            "SELECT id, span_id, otlp FROM spans WHERE trace_id = ? AND id >= ?",
            (trace_id, since.row if since else 0),
        )
    )
    (whole,) = connection.execute(
        "SELECT count(*) FROM spans WHERE trace_id = ?", (trace_id,)
    ).fetchone()
    connection.execute("COMMIT")
    if since is not None:
        is_true = bool(rows) and rows.pop(0)[:2] == (since.row, since.span_id)
        if not is_true or since.rows + len(rows) != whole:
            return arrived(connection, trace_id, None)
    mark = Mark(*rows[-1][:2], whole) if rows else since
    spans = [span for *_, payload in rows for span in decode(payload)]
    return Arrivals(spans, mark, anew=since is None)


def decode(payload: bytes) -> list[SpanData]:
    """Return the span of a row; none where its bytes are damaged, and that is noted."""
    return safety.guarded("store.decode", otlp.decode, payload) or []
