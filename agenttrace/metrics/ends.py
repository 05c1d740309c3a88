"""How many spans have ended and how, and what is above those.

Counted off their final forms, a batch at a time, by the thread that has encoded them:
its caches have them still, and to hand them over would cost more than to count them.
So nothing here calls a meter provider.

What else is measured of a few of them is `finals`' business.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind, StatusCode

from agenttrace import safety, semconv
from agenttrace.metrics.bounded import MOST, remember
from agenttrace.metrics.open_work import RUNS, attributes_of, name_of, step_of
from agenttrace.model import EndedBy, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenttrace.metrics.bounded import Bounded, Values
    from agenttrace.model import SpanData

PREFIX: Final = f"{semconv.SCOPE}."
"""Of the names of spans that are no steps: they tell of another, or of a loop."""
AGENT: Final = b"an agent"
"""What is above a span, where it is an agent or a workflow itself."""
_LEAKED: Final[Values] = {
    semconv.OUTCOME: Outcome.ABANDONED.value,
    semconv.ENDED_BY: EndedBy.GC.value,
}

Key = tuple[tuple[str, str | int | bool], ...]
Said = tuple[object, object, object, object]
"""What ends are counted by: operation, agent, outcome, what ended it."""


class Ends:
    """Counts ends.

    Args:
        bounded: What attributes are taken from.
    """

    def __init__(self, bounded: Bounded) -> None:
        self._bounded = bounded
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Key, int] = {}
        self._keys: dict[Said, Key] = {}
        """What is counted as what."""
        self._above: dict[bytes, bytes] = {}
        self._above_before: dict[bytes, bytes] = {}
        """What is above those that have ended lately, by their ids.

        In two halves: to take the oldest out of one that is full, one by one, costs
        more than all the rest.
        """

    def forget(self) -> None:
        """Begin at nothing, also where another thread was counting at a fork."""
        self._begin()

    def told(self) -> Iterator[tuple[int, Values]]:
        """Return how many spans have ended, and how."""
        return as_series(self._counts)

    def above(self, span_id: bytes) -> bytes | None:
        """Return the id above a span that has ended, empty for none.

        Returns:
            `AGENT` where it is an agent itself, None where nothing is known of it.
        """
        return self._above.get(span_id, self._above_before.get(span_id))

    def count(self, spans: Sequence[SpanData]) -> Sequence[SpanData]:
        """Count final forms, of spans that have ended at about the same time.

        Several threads may.

        Returns:
            Those of which more than that is measured.
        """
        ends: dict[Said, int] = {}
        above: dict[bytes, bytes] = {}
        more: list[SpanData] = []
        for span in spans:
            # Each by itself: what is wrong with one must not cost the others.
            try:
                if _count(span, ends, above):
                    more.append(span)
            except Exception as error:  # noqa: BLE001 - see above
                safety.note("metrics.observe", error)
        with self._lock:
            if len(self._above) >= MOST // 2:
                self._above_before, self._above = self._above, {}
            self._above.update(above)
            for said, count in ends.items():
                safety.guarded("metrics.observe", self._add, said, count)
        return more

    def _add(self, said: Said, count: int) -> None:
        key = self._keys.get(said)
        if key is None:
            operation, agent, outcome, ended_by = map(_word, said)
            values = attributes_of(step_of(operation, agent, self._bounded))
            self._counts.setdefault(tuple((values | _LEAKED).items()), 0)
            how = ((semconv.OUTCOME, outcome), (semconv.ENDED_BY, ended_by))
            key = tuple((values | self._bounded.values(how)).items())
            remember(self._keys, said, key)
        self._counts[key] = self._counts.get(key, 0) + count


def _count(span: SpanData, ends: dict[Said, int], above: dict[bytes, bytes]) -> bool:
    """Count *span* in *ends*, and note in *above* what it is below.

    Returns:
        Whether more is measured of it.
    """
    if span.name.startswith(PREFIX):
        return True
    said = said_of(span)
    ends[said] = ends.get(said, 0) + 1
    operation = said[0]
    if operation in RUNS:
        above[span.span_id] = AGENT
        return True
    above[span.span_id] = b"" if span.parent_is_remote else span.parent_id
    return bool(operation) and span.kind is SpanKind.CLIENT


def said_of(span: SpanData) -> Said:
    """Return operation, agent and outcome of *span*, and what ended it."""
    saying = span.attributes.get
    said = (
        saying(semconv.GEN_AI_OPERATION_NAME),
        saying(semconv.GEN_AI_AGENT_NAME),
        saying(semconv.OUTCOME) or _outcome_of(span),
        saying(semconv.ENDED_BY),
    )
    try:
        hash(said)
    except TypeError:  # attributes are whatever somebody has made of them
        operation, agent, outcome, ended_by = map(_word, said)
        said = (operation, agent, outcome, ended_by)
    operation, agent, outcome, ended_by = said
    if agent is None and operation in RUNS:
        return (operation, name_of(span.name, operation), outcome, ended_by)
    return said


def as_series(counts: Mapping[Key, int]) -> Iterator[tuple[int, Values]]:
    """Return *counts* as a reader takes them."""
    for key, count in tuple(counts.items()):
        yield count, dict(key)


def _word(value: object) -> object:
    """Return *value*, or what stands for one that nothing can be counted by."""
    is_plain = value is None or isinstance(value, str | int | float)
    return value if is_plain else semconv.OTHER


def _outcome_of(span: SpanData) -> str:
    """Return the outcome of a span that does not say it."""
    return Outcome.ERROR if span.status is StatusCode.ERROR else Outcome.OK
