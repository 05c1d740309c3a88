"""The independent count: which spans have started and which are open, by run.

It listens to the registry of open spans, where spans begin, and knows nothing of
exporters, queues and stores, where they could get lost.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from agenttrace import OpenSpan

_BETWEEN: Final = " / "
_STEPS: Final = 3
"""How many of a path fit on a line beside the words around them."""


def deepest(path: str) -> str:
    """Return the last steps of *path*, where a run stands.

    >>> deepest("a / b / c / d / e")
    '... / c / d / e'
    >>> deepest("a / b")
    'a / b'
    """
    steps = path.split(_BETWEEN)
    return _BETWEEN.join(steps if len(steps) <= _STEPS else ["...", *steps[-_STEPS:]])


@dataclass(frozen=True, slots=True)
class Started:
    """One span that has started.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them.
        name: The name it started with.
    """

    trace_id: str
    span_id: str
    name: str


@dataclass(slots=True)
class Count:
    """What has started in one run, in order, and what of it is open."""

    started: list[Started] = field(default_factory=list[Started])
    open: dict[bytes, OpenSpan] = field(default_factory=dict[bytes, "OpenSpan"])

    @property
    def trace_ids(self) -> list[str]:
        """The traces it is spread over: one, if all is well."""
        return list(dict.fromkeys(span.trace_id for span in self.started))

    def number_of(self, operation: str) -> int:
        """Return how many of the spans are called *operation* and something."""
        return sum(span.name.startswith(f"{operation} ") for span in self.started)


class Tally:
    """A listener of the registry.  Its methods are called on any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = Count()

    @contextmanager
    def run(self) -> Generator[Count]:
        """Count for a new run, and let it end only when its spans have."""
        with self._changed:
            self._count = count = Count()
        yield count
        self.wait_until(lambda count: not count.open)

    def wait_until(
        self, condition: Callable[[Count], object], timeout: float = 10.0
    ) -> bool:
        """Block until *condition* holds; False if it does not in *timeout* seconds."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition(self._count), timeout))

    def where(self) -> str:
        """Return the names of the last steps down to the run's deepest open span."""
        with self._changed:
            paths = [span.path() for span in self._count.open.values()]
        return deepest(max(paths, key=len, default=""))

    def add(self, span: Started) -> None:
        """Note that *span* has started in another process, which has told so."""
        with self._changed:
            self._count.started.append(span)

    def started(self, span: OpenSpan) -> None:
        """Note that *span* has started."""
        with self._changed:
            self._count.started.append(
                Started(span.trace_id.hex(), span.span_id.hex(), span.name)
            )
            self._count.open[span.span_id] = span
            self._changed.notify_all()

    def ended(self, span: OpenSpan) -> None:
        """Note that *span* is not open any more."""
        with self._changed:
            self._count.open.pop(span.span_id, None)
            self._changed.notify_all()
