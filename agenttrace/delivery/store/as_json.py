"""Runs and spans as JSON has them: the command line and the page tell the same."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar, cast

from agenttrace import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenttrace.delivery.store.forest import Node
    from agenttrace.delivery.store.reader import Run

_MAX_DEPTH: Final = 200
"""Levels that the JSON nests; what is deeper follows flat, for readers that recurse."""


class _Tree(Protocol):
    @property
    def children(self) -> Sequence[Self]: ...


T = TypeVar("T", bound=_Tree)


def nested(
    tops: Sequence[T], told: Callable[[T], dict[str, object]]
) -> list[dict[str, object]]:
    """Return what *told* says of each, with what is beneath it in `children`."""
    all_of_them: list[dict[str, object]] = []
    waiting = [(each, all_of_them, 1) for each in reversed(tops)]
    while waiting:
        each, beside, depth = waiting.pop()
        below: list[dict[str, object]] = []
        beside.append({**told(each), "children": below})
        at = (below, depth + 1) if depth < _MAX_DEPTH else (beside, depth)
        waiting.extend((child, *at) for child in reversed(each.children))
    return all_of_them


def run_as_json(run: Run) -> dict[str, object]:
    """Return *run*, without its spans."""
    return {
        "trace_id": run.trace_id,
        "name": run.name,
        "service": run.service,
        "outcome": run.outcome,
        **times(run.started, run.started + round(run.duration * 1e9)),
        "span_count": run.spans,
        "error_count": run.errors,
        "stuck_count": run.stuck,
        "input_tokens": run.tokens[0],
        "output_tokens": run.tokens[1],
    }


def span_as_json(node: Node) -> dict[str, object]:
    """Return the span of *node*, without what is beneath it."""
    span = node.span
    return {
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex() or None,
        "parent_elsewhere": node.parent_elsewhere,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes.get("service.name"),
        "scope": span.scope.name,
        "outcome": node.outcome,
        "ended_by": node.ended_by,
        **times(span.start_time, span.end_time),
        "status": span.status.name.lower(),
        "status_message": span.status_message,
        "error": node.error,
        "attributes": _plain(span.attributes),
        "events": [
            {
                "name": event.name,
                "time": clock.iso(event.time, "auto"),
                "time_ns": event.time,
                "attributes": _plain(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": _plain(link.attributes),
            }
            for link in span.links
        ],
    }


def times(start: int, end: int) -> dict[str, object]:
    """Return when something was, from *start* to *end*, nanoseconds since the epoch."""
    return {
        "start": clock.iso(start, "auto"),
        "start_ns": start,
        "end": clock.iso(end, "auto"),
        "end_ns": end,
        "duration": max(0, end - start) / 1e9,
    }


def _plain(value: object) -> object:
    """Return *value* as JSON can say it: bytes as base64, as OTLP's JSON does."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        return {str(key): _plain(item) for key, item in pairs.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value
