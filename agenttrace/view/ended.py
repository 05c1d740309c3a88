"""What has ended of one run, read bit by bit, and which of it is new since when.

A run of ten thousand spans that grows is neither read nor told anew for each of them:
the store is asked for what has arrived since, and whoever has a version of the run is
told what is another thing since then.  That is more than what has arrived, because a
span tells the tokens of all beneath it.  Only the trees are made anew whenever
something has arrived, of all that is in memory: a tenth of a second where there are so
many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.delivery.store import Node, build_forest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.delivery.store import Reader
    from agenttrace.delivery.store.arrivals import Mark
    from agenttrace.model import SpanData


class Ended:
    """What has ended of one run.

    Args:
        trace_id: Its id, all of it.
        lives: Numbers, each of which comes once: what was told before the run was
            forgotten, and began anew, is no version of it any more.

    Attributes:
        nodes: Its spans by their ids, parents before their children.
    """

    def __init__(self, trace_id: str, lives: Iterator[int]) -> None:
        self._trace_id = trace_id
        self._lives = lives
        self._forget()

    def _forget(self) -> None:
        self._life = next(self._lives)
        self._reading = 0
        self._spans: list[SpanData] = []
        self._mark: Mark | None = None
        self._changed: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}

    def read(self, reader: Reader) -> None:
        """Read what has arrived since.

        Raises:
            StoreUnreadableError: The store is damaged, out of reach or not one.
        """
        arrived = reader.arrivals(self._trace_id, self._mark)
        if arrived.anew and self._mark is not None:
            self._forget()
        self._mark = arrived.mark
        if not arrived.spans:
            return
        self._reading += 1
        self._spans += arrived.spans
        before, self.nodes = self.nodes, {}
        for top in build_forest(self._spans):
            for node in top.walk():
                key = node.span.span_id.hex()
                known = before.get(key)
                if known is None or known.tokens != node.tokens:
                    self._changed[key] = self._reading
                self.nodes[key] = node

    def since(self, have: str | None) -> tuple[str, bool, list[Node]]:
        """Return the version, whether it is told whole, and what is to be told.

        Args:
            have: The version that is there already; None for nothing.
        """
        version = f"{self._life}.{self._reading}"
        life, _, reading = (have or "").partition(".")
        if life != str(self._life) or not reading.isdecimal():
            return version, True, list(self.nodes.values())
        told = int(reading)
        if told == self._reading:
            return version, False, []
        changed = [key for key, since in self._changed.items() if since > told]
        return version, False, [self.nodes[key] for key in changed]
