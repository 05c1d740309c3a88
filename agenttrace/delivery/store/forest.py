"""Makes trees of spans: every span once, whatever their parents say.

Pure: no clock, no file, no terminal.  A parent may be missing (it has not ended yet,
another service has it, it was evicted), be the span itself, or lead in a circle; such
a span stands at the top and says so.  Of two spans with one id the first counts, as
everywhere in agenttrace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from opentelemetry.trace import StatusCode

from agenttrace import semconv
from agenttrace.model import NO_ATTRIBUTES, EventData, Outcome, SpanData

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

K = TypeVar("K")

Key = tuple[bytes, bytes]
"""Trace id and span id."""
Tokens = tuple[int | None, int | None]
"""Input and output; None where nobody has said."""

_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


@dataclass(slots=True, eq=False)
class Node:
    """One span and what stands beneath it.

    Args:
        span: The span.
        parent_elsewhere: It names a parent that is not above it here.
        children: By start.
        tokens: Input and output tokens of this span and all beneath it.  A span that
            tells its own usage covers what is beneath it, so nothing counts twice.
        going_on: What is to be said of a span that is still open; None where it has
            ended, as all have that are in a store.
    """

    span: SpanData
    parent_elsewhere: bool = False
    children: list[Node] = field(default_factory=list["Node"])
    tokens: Tokens = (None, None)
    going_on: str | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None where another library's span does not say."""
        said = _OUTCOMES.get(str(self.span.attributes.get(semconv.OUTCOME)))
        if said is None and self.span.status is StatusCode.ERROR:
            return Outcome.ERROR
        return said

    @property
    def is_fine(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        return self.outcome in (Outcome.OK, None)

    @property
    def ended_by(self) -> str | None:
        """What ended it; None where another library's span does not say."""
        return self._text(semconv.ENDED_BY)

    @property
    def duration(self) -> float:
        """Seconds from start to end; 0 where a clock went backwards."""
        return max(0, self.span.end_time - self.span.start_time) / 1e9

    @property
    def model(self) -> str | None:
        """The model that answered, or that was asked."""
        return self._text(semconv.GEN_AI_RESPONSE_MODEL) or self._text(
            semconv.GEN_AI_REQUEST_MODEL
        )

    @property
    def items(self) -> int | None:
        """How many items its stream yielded, if it is one."""
        value = self.span.attributes.get(semconv.ITEMS)
        return value if isinstance(value, int) else None

    @property
    def error(self) -> str | None:
        """What went wrong, in one line: the type, and the message's first line."""
        exception = self._last_exception()
        told = exception.attributes if exception is not None else NO_ATTRIBUTES
        kind = self._text(semconv.ERROR_TYPE) or _as_text(
            told.get(semconv.EXCEPTION_TYPE)
        )
        message = self.span.status_message or _as_text(
            told.get(semconv.EXCEPTION_MESSAGE)
        )
        if self.is_fine or not (kind or message):
            return None
        first, *_ = (message or "").strip().splitlines() or [""]
        if self.outcome is not None and first == self.outcome.value:
            first = ""
        # Status messages begin with the class's bare name and a colon, also where no
        # message follows: see `exceptions.summary_of`.
        if kind:
            first = first.removeprefix(f"{kind.rpartition('.')[2]}:").strip()
        first = first.removesuffix(":")
        if not kind:
            return first or None
        return f"{kind}: {first}" if first and first != kind else kind

    def events(self) -> list[EventData]:
        """Return the events that `error` does not tell already."""
        told = self._last_exception() if not self.is_fine else None
        return [event for event in self.span.events if event is not told]

    def walk(self) -> Iterator[Node]:
        """Yield this node and all beneath it, parents first, in order."""
        waiting: list[Node] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def _last_exception(self) -> EventData | None:
        for event in reversed(self.span.events):
            if event.name == semconv.EXCEPTION_EVENT:
                return event
        return None

    def _text(self, key: str) -> str | None:
        return _as_text(self.span.attributes.get(key))


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


@dataclass(frozen=True, slots=True)
class Arrangement(Generic[K]):
    """Who stands beneath whom.

    Args:
        tops: Those without a parent above them, in the order given.
        children: Of every key that has any, in the order given.
        order: Every key once, parents before their children.
    """

    tops: list[K]
    children: dict[K, list[K]]
    order: list[K]


def arrange(parents: Mapping[K, K | None]) -> Arrangement[K]:
    """Return the trees that *parents* (child to parent) describes.

    A circle is opened at the member that comes first.

    >>> arrange({"root": None, "step": "root", "lost": "gone"}).tops
    ['root', 'lost']
    >>> arrange({"a": "b", "b": "a"}).tops
    ['a']
    """
    children: dict[K, list[K]] = {}
    tops: set[K] = set()
    for key, parent in parents.items():
        if parent is None or parent not in parents:
            tops.add(key)
        else:
            children.setdefault(parent, []).append(key)
    order = _below([key for key in parents if key in tops], children)
    placed = set(order)
    if len(placed) < len(parents):
        rank = {key: index for index, key in enumerate(parents)}
        for key in parents:
            if key not in placed:
                top = min(_circle_above(key, parents), key=rank.__getitem__)
                tops.add(top)
                above = parents[top]
                if above is not None:
                    children[above].remove(top)
                below = _below([top], children)
                order += below
                placed.update(below)
    return Arrangement([key for key in parents if key in tops], children, order)


def _below(tops: Sequence[K], children: Mapping[K, Sequence[K]]) -> list[K]:
    order: list[K] = []
    waiting = list(reversed(tops))
    while waiting:
        key = waiting.pop()
        order.append(key)
        waiting.extend(reversed(children.get(key, ())))
    return order


def _circle_above(key: K, parents: Mapping[K, K | None]) -> list[K]:
    path: dict[K, int] = {}
    at: K | None = key
    while at is not None and at not in path:
        path[at] = len(path)
        at = parents.get(at)
    start = path[at] if at is not None else 0
    return list(path)[start:]


def total_tokens(
    arrangement: Arrangement[K], own: Mapping[K, Tokens]
) -> dict[K, Tokens]:
    """Return for every key the tokens used by it and beneath it.

    Agents report the sum of their model calls, and model calls report their own: the
    larger of both is believed, never their sum.

    >>> trees = arrange({"agent": None, "chat": "agent", "chat 2": "agent"})
    >>> own = {"agent": (30, None), "chat": (10, 5), "chat 2": (20, 5)}
    >>> total_tokens(trees, own)["agent"]
    (30, 10)
    """
    totals: dict[K, Tokens] = {}
    for key in reversed(arrangement.order):
        below = [totals[child] for child in arrangement.children.get(key, ())]
        read, written = own[key]
        totals[key] = (
            _larger(read, _sum(tokens[0] for tokens in below)),
            _larger(written, _sum(tokens[1] for tokens in below)),
        )
    return totals


def sum_of(tokens: Iterable[Tokens]) -> Tokens:
    """Return the sum of *tokens*, None where nobody has said."""
    pairs = list(tokens)
    return _sum(pair[0] for pair in pairs), _sum(pair[1] for pair in pairs)


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _larger(one: int | None, other: int | None) -> int | None:
    return max((n for n in (one, other) if n is not None), default=None)


def build_forest(spans: Iterable[SpanData]) -> list[Node]:
    """Return the trees of *spans*, which may belong to several runs, by start."""
    nodes: dict[Key, Node] = {}
    for span in spans:
        nodes.setdefault((span.trace_id, span.span_id), Node(span))
    ranked = sorted(nodes, key=lambda key: (nodes[key].span.start_time, key))
    trees = arrange({key: _parent_of(nodes[key].span) for key in ranked})
    totals = total_tokens(trees, {key: _own(node) for key, node in nodes.items()})
    for key, node in nodes.items():
        node.children = [nodes[child] for child in trees.children.get(key, ())]
        node.tokens = totals[key]
    for key in trees.tops:
        nodes[key].parent_elsewhere = _parent_of(nodes[key].span) is not None
    return [nodes[key] for key in trees.tops]


def _parent_of(span: SpanData) -> Key | None:
    return (span.trace_id, span.parent_id) if any(span.parent_id) else None


def _own(node: Node) -> Tokens:
    attributes = node.span.attributes
    return (
        _count(attributes.get(semconv.GEN_AI_USAGE_INPUT_TOKENS)),
        _count(attributes.get(semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def most_telling(
    trees: Sequence[Node], limit: int, siblings: int | None = None
) -> set[int]:
    """Return the `id()` of at most *limit* nodes that say most about *trees*.

    What did not end well comes first, then what is higher up, then what came earlier;
    whoever is chosen brings everything above it.  A node whose ancestors do not fit is
    left out.

    Args:
        trees: The tops.
        limit: How many nodes at most.
        siblings: How many children of one parent at most, unless they, or something
            beneath them, did not end well.
    """
    above: dict[int, Node | None] = {id(top): None for top in trees}
    depth: dict[int, int] = {id(top): 0 for top in trees}
    place: dict[int, int] = {id(top): index for index, top in enumerate(trees)}
    every: list[Node] = []
    for top in trees:
        for node in top.walk():
            every.append(node)
            for index, child in enumerate(node.children):
                above[id(child)] = node
                depth[id(child)] = depth[id(node)] + 1
                place[id(child)] = index
    chosen: set[int] = set()
    # sorted() is stable: equals stay in the order of the walk.
    for node in sorted(every, key=lambda node: (node.is_fine, depth[id(node)])):
        if node.is_fine and siblings is not None and place[id(node)] >= siblings:
            continue
        line: list[int] = []
        at: Node | None = node
        while at is not None and id(at) not in chosen:
            line.append(id(at))
            at = above[id(at)]
        if len(chosen) + len(line) <= limit:
            chosen.update(line)
        if len(chosen) == limit:
            break
    return chosen
