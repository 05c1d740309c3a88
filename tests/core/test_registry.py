"""Every open span is listed once and ended once, whoever comes to end it."""

from __future__ import annotations

import itertools
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from agenttrace.clock import COARSE
from agenttrace.model import EndedBy, Ending, Outcome, returned
from agenttrace.registry import Claim, MemorySlots, OpenSpan, OpenSpans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest


class Body:
    """A span object that only takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[Ending] = []
        self.copies: list[Ending] = []

    def tell(self, ending: Ending) -> None:
        self.told.append(ending)

    def copied(self) -> Callable[[Ending], None]:
        return self.copies.append

    def remark(self, key: str, value: str) -> None:
        del key, value


_ids = iter(range(1, 1 << 40))


def record(
    name: str = "step", parent: OpenSpan | None = None, body: Body | None = None
) -> OpenSpan:
    return OpenSpan(
        body or Body(),
        b"t" * 16,
        next(_ids).to_bytes(8, "big"),
        b"" if parent is None else parent.span_id,
        parent,
        name,
        None,
        COARSE.now,
        sampled=True,
    )


STUCK = Ending(Outcome.STUCK, EndedBy.WATCHDOG)


S = TypeVar("S")
A = TypeVar("A")
B = TypeVar("B")


def at_each_call(
    given: Callable[[], S], one: Callable[[S], A], other: Callable[[S], B]
) -> Iterator[tuple[A, B]]:
    """Do *one*, with *other* at its first call or return, then at the next, and so on.

    That is where another thread comes in, or a signal handler.  Yields what the two
    returned, each time with what is *given* anew.
    """
    for at in itertools.count():
        state, left = given(), at
        others: list[B] = []

        def look(
            _frame: object,
            event: str,
            _value: object,
            state: S = state,
            others: list[B] = others,
        ) -> object:
            nonlocal left
            if event in {"call", "return"}:
                left -= 1
                if left < 0 and not others:
                    sys.settrace(None)
                    others.append(other(state))
            return look

        usual = sys.gettrace()
        sys.settrace(look)  # type: ignore[arg-type]  # returns itself
        try:
            done = one(state)
        finally:
            sys.settrace(usual)
        if not others:
            assert at > 2
            return
        yield done, others[0]


def full() -> tuple[OpenSpans, OpenSpan]:
    """Return a registry with room for one span, and the one that is in it."""
    registry, oldest = OpenSpans(limit=1), record("oldest")
    registry.started(oldest)
    return registry, oldest


def start_next(given: tuple[OpenSpans, OpenSpan]) -> tuple[OpenSpans, OpenSpan]:
    """Start another span, which the oldest one is evicted for."""
    given[0].started(record("next"))
    return given


def end_oldest(given: tuple[OpenSpans, OpenSpan]) -> Claim:
    registry, oldest = given
    return registry.claim(oldest)


def test_one_of_two_who_end_an_evicted_span_at_once_is_the_first() -> None:
    for claims in at_each_call(lambda: start_next(full()), end_oldest, end_oldest):
        assert sorted(claim.name for claim in claims) == ["FIRST", "TOLD"]


def test_a_span_that_ends_while_it_is_evicted_is_told() -> None:
    for (registry, _), claim in at_each_call(full, start_next, end_oldest):
        assert claim is Claim.FIRST
        assert [span.name for span in registry] == ["next"]


class Lives(RuleBasedStateMachine):
    """Spans start, beat, end, are judged and collected, in any order."""

    spans: Bundle[OpenSpan] = Bundle("spans")

    def __init__(self) -> None:
        super().__init__()
        self.registry = OpenSpans(limit=10_000)
        self.open: dict[bytes, OpenSpan] = {}
        self.told: set[bytes] = set()
        self.bodies: list[Body] = []  # the registry keeps none alive

    @rule(target=spans, parent=st.none() | spans)
    def start(self, parent: OpenSpan | None) -> OpenSpan:
        body = Body()
        self.bodies.append(body)
        span = record(parent=parent, body=body)
        self.registry.started(span)
        self.open[span.span_id] = span
        return span

    @rule(span=spans)
    def end(self, span: OpenSpan) -> None:
        claim = self.registry.claim(span)
        expected = Claim.TOLD if span.span_id in self.told else Claim.FIRST
        assert claim is expected
        self.told.add(span.span_id)
        self.open.pop(span.span_id, None)
        self.registry.slots.free(span)

    @rule(span=spans)
    def judge(self, span: OpenSpan) -> None:
        first = self.registry.judge(span, STUCK)
        assert first is (span.span_id not in self.told)
        self.told.add(span.span_id)
        self.open.pop(span.span_id, None)

    @rule(span=spans)
    def beat(self, span: OpenSpan) -> None:
        span.beat()

    @rule(span=consumes(spans))
    def collect(self, span: OpenSpan) -> None:
        body = Body()
        self.registry.collected.append((span, body))
        self.registry.sweep(lambda _: returned())
        assert len(body.told) == (span.span_id not in self.told)
        self.told.add(span.span_id)
        self.open.pop(span.span_id, None)

    @invariant()
    def the_registry_lists_what_is_open(self) -> None:
        assert {span.span_id for span in self.registry} == set(self.open)

    @invariant()
    def no_two_open_spans_share_a_word(self) -> None:
        words = [(id(span.words), span.word) for span in self.open.values()]
        assert len(words) == len(set(words))


TestLives = Lives.TestCase
TestLives.settings = hypothesis_settings(max_examples=50, stateful_step_count=40)


def test_a_patient_sweep_lets_the_other_finalizers_speak_first() -> None:
    """The stream of a collected span may be next in line, and knows how it ended."""
    registry = OpenSpans()
    span, body = record(), Body()
    registry.started(span)
    registry.collected.append((span, body))

    first = registry.sweep(lambda _: returned(), patient=True)
    second = registry.sweep(lambda _: returned(), patient=True)

    assert (first, second) == (0, 1)
    assert len(body.told) == 1


def test_a_heartbeat_after_the_end_hits_nobody_elses_word() -> None:
    """A driver keeps its word; the next span in that slot must not be moved by it."""
    registry = OpenSpans()
    first, second = record(), record()
    registry.started(first)
    registry.claim(first)
    registry.slots.free(first)
    registry.started(second)
    before = second.words[second.word]

    COARSE.now += 10
    first.beat()

    assert second.words[second.word] == before


def test_a_childs_start_and_end_are_heartbeats_of_its_parent() -> None:
    """An agent that calls one tool after another is making progress."""
    registry = OpenSpans()
    parent = record("agent")
    registry.started(parent)

    COARSE.now += 1_000
    child = record("tool", parent)
    registry.started(child)
    after_start = parent.last_beat
    COARSE.now += 1_000
    registry.claim(child)

    assert after_start == COARSE.now - 1_000
    assert parent.last_beat == COARSE.now


def test_of_many_who_end_a_span_at_once_one_is_first() -> None:
    """The watchdog, the owner and the exit handler may come in the same instant."""
    registry = OpenSpans()
    spans = [record() for _ in range(200)]
    for span in spans:
        registry.started(span)
    firsts: list[int] = []
    gate = threading.Barrier(4)

    def end_all() -> None:
        gate.wait()
        firsts.append(sum(registry.claim(span) is Claim.FIRST for span in spans))

    threads = [threading.Thread(target=end_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(firsts) == len(spans)


def test_beyond_the_limit_the_oldest_is_no_longer_watched_but_still_ends() -> None:
    """A leak of spans must not become a leak of memory, nor lose what still ends."""
    registry = OpenSpans(limit=2)
    first, second, third = record("1"), record("2"), record("3")

    for span in (first, second, third):
        registry.started(span)

    assert [span.name for span in registry] == ["2", "3"]
    assert registry.claim(first) is Claim.FIRST
    assert registry.claim(first) is Claim.TOLD


def test_what_was_judged_is_known_until_its_owner_lets_go() -> None:
    """Its end is told, and yet it hangs: who asks where finds it here."""
    registry, body = OpenSpans(), Body()
    span = record(body=body)
    registry.started(span)

    verdicts = [registry.judge(span, STUCK), registry.judge(span, STUCK)]
    known, open_now = registry.judged(), registry.snapshot()
    registry.let_go(span)

    assert verdicts == [True, False]
    assert (known, open_now) == ((span,), ())
    assert registry.judged() == ()


def test_what_its_owner_has_ended_was_never_judged() -> None:
    """The verdict came too late, and is nowhere."""
    registry, body = OpenSpans(), Body()
    span = record(body=body)
    registry.started(span)
    registry.claim(span)

    assert not registry.judge(span, STUCK)
    assert registry.judged() == ()


def test_spans_of_the_parent_process_are_none_of_the_childs_business() -> None:
    """After a fork both have the objects; only the parent may tell their end."""
    registry = OpenSpans()
    span = record()
    registry.started(span)

    registry.forget()

    assert len(registry) == 0
    assert registry.claim(span) is Claim.STALE


def test_slots_are_used_again() -> None:
    """A server that runs for months must not grow by a word a span."""
    slots = MemorySlots()
    seen: set[int] = set()

    for _ in range(5_000):
        span = record()
        slots.take(span)
        seen.add(span.slot)
        slots.free(span)

    assert len(seen) <= 1_024


def test_a_listener_that_fails_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A metric that cannot be counted is no reason for a span not to start."""
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")

    class Broken:
        def started(self, span: OpenSpan) -> None:
            raise ValueError(span)

        def ended(self, span: OpenSpan) -> None:
            raise ValueError(span)

    registry = OpenSpans()
    registry.add_listener(Broken())
    span = record()

    registry.started(span)

    assert registry.claim(span) is Claim.FIRST
