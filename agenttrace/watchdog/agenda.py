"""What is to be looked at, and when: one heap of instants, a list of spans for each.

Spans are put in and never taken out: one that has ended is found out when it comes up,
and one that has shown progress is put in again then.  So a heartbeat and an end cost
nothing here, and spans that are open and not due are not touched.

A list for each instant, and not an entry for each span, because there may be a hundred
thousand of them: they cost a pointer each.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agenttrace.registry import OpenSpan

GRAIN: Final = 50_000_000
"""Nanoseconds.  Instants are rounded up to a multiple."""
_ROOM: Final = 4096
"""Entries of ended spans that are kept until they come up."""


class Agenda:
    """Spans by the instant at which they are to be looked at."""

    __slots__ = ("_count", "_instants", "_spans")

    def __init__(self) -> None:
        self._instants: list[int] = []
        self._spans: dict[int, list[OpenSpan]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, span: OpenSpan, instant: int) -> None:
        """Have *span* come up at *instant*, in nanoseconds, or up to a grain later."""
        grain = -(-instant // GRAIN)
        spans = self._spans.get(grain)
        if spans is None:
            self._spans[grain] = [span]
            heapq.heappush(self._instants, grain)
        else:
            spans.append(span)
        self._count += 1

    def due(self, now: int, most: int) -> list[OpenSpan]:
        """Take out what is due by *now*, in the order of its instants.

        Args:
            now: The instant, in nanoseconds.
            most: How many to take at once: the rest stays due.
        """
        found: list[OpenSpan] = []
        instants = self._instants
        while instants and instants[0] * GRAIN <= now and len(found) < most:
            spans = self._spans[instants[0]]
            room = most - len(found)
            found += spans[:room]
            del spans[:room]
            if not spans:
                del self._spans[heapq.heappop(instants)]
        self._count -= len(found)
        return found

    def tidy(self, open_count: int, room: int = _ROOM) -> bool:
        """Let go of ended spans where they are many more than those that are open.

        Each has to have ended before it is let go, so this costs a little for each of
        them and nothing for those that stay.

        Args:
            open_count: How many spans are open.
            room: How many ended spans may be kept all the same.

        Returns:
            Whether they were so many.
        """
        if self._count <= 2 * open_count + room:
            return False
        kept: dict[int, list[OpenSpan]] = {}
        for grain, spans in self._spans.items():
            still = [span for span in spans if span.is_open]
            if still:
                kept[grain] = still
        self._spans = kept
        self._instants = sorted(kept)
        self._count = sum(map(len, kept.values()))
        return True
