"""The list of open spans, and the referee of who tells their end."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from agenttrace import safety
from agenttrace.clock import COARSE
from agenttrace.registry.records import (
    SINK,
    Claim,
    Listener,
    Live,
    OpenSpan,
    Resumable,
    Teller,
)
from agenttrace.registry.slots import MemorySlots, Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrace.model import Ending

DEFAULT_LIMIT: Final = 100_000
# Bound once: looking a member up costs more than using it.
_FIRST: Final = Claim.FIRST
_OWNER: Final = Teller.OWNER
_JUDGE: Final = Teller.JUDGE


class OpenSpans:
    """All open spans of this process, by span id.

    Args:
        slots: Where they are written down.
        limit: How many may be open; beyond it the oldest is evicted and counted.
        wake: Called when the first span opens, to start the ticker.
    """

    def __init__(
        self,
        slots: Slots | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.slots: Slots = slots or MemorySlots()
        self.limit = limit
        self.wake = wake
        self.awake = wake is None
        self.listeners: tuple[Listener, ...] = ()
        self.taps: tuple[Callable[[object], None], ...] = ()
        self.collected: deque[tuple[OpenSpan, Live]] = deque()
        """Spans whose object was collected without an end; see `sweep`."""
        self.cut_short: list[tuple[Resumable, Ending | BaseException | None]] = []
        """Spans whose ending did not come to its own end; see `sweep`."""
        self._resuming: dict[int, int] = {}
        self._verdicts: set[OpenSpan] = set()
        self._let_go: set[OpenSpan] = set()
        self._judged: set[OpenSpan] = set()
        self._overdue = 0
        self.epoch = object()
        self._open: dict[bytes, OpenSpan] = {}
        self._started = itertools.count()

    @property
    def started_count(self) -> int:
        """How many spans have started in this process."""
        # The one atomic counter Python has shows its value in its `repr` alone.
        return int(repr(self._started).removeprefix("count(").removesuffix(")"))

    @property
    def is_busy(self) -> bool:
        """Whether a span is open, or its end is still to be told."""
        return bool(self._open or self.cut_short)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenSpan]:
        """Iterate over a snapshot, oldest first."""
        return iter(self.snapshot())

    def snapshot(self) -> tuple[OpenSpan, ...]:
        """Return the spans that are open now, oldest first."""
        while True:
            try:
                return tuple(self._open.values())
            except RuntimeError:  # another thread opened or ended one meanwhile
                continue

    def latest(self, count: int) -> list[OpenSpan]:
        """Return the *count* open spans that started last, the last one first."""
        while True:
            try:
                return list(itertools.islice(reversed(self._open.values()), count))
            except RuntimeError:  # another thread opened or ended one meanwhile
                continue

    def judged(self) -> tuple[OpenSpan, ...]:
        """Return the spans whose end was told though their owners still have them."""
        while True:
            try:
                return tuple(self._judged)
            except RuntimeError:  # another thread judged or ended one meanwhile
                continue

    def find(self, span_id: bytes) -> OpenSpan | None:
        """Return the open span with *span_id*, if there is one."""
        return self._open.get(span_id)

    def started(self, span: OpenSpan) -> None:
        """Register *span*.  It counts as its parent's heartbeat."""
        if len(self._open) >= self.limit:
            self._evict()
        self.slots.take(span)
        # Last but one: what has an epoch has a slot, if this is interrupted.
        span.epoch = self.epoch
        parent = span.parent
        if parent is not None:
            parent.words[parent.word] = COARSE.now
        self._open[span.span_id] = span
        # `next` without a call: there may be no stack left for one.
        for _ in self._started:
            break
        # After the span can be seen: the ticker announces its sleep before it looks
        # a last time, so one of the two notices the other.
        if not self.awake:
            self._wake()
        if self.listeners:
            for listener in self.listeners:
                safety.guarded("listener.started", listener.started, span)

    def claim(self, span: OpenSpan, teller: Teller = _OWNER) -> Claim:
        """Ask to end *span*.  It leaves the registry with the first who asks.

        Whoever is interrupted after this finds on the record who has claimed it.
        """
        try:
            # Not `pop`: signal handlers run when a call returns, and none comes between
            # these two statements.
            del self._open[span.span_id]
            span.teller = teller
        except KeyError:
            return self._claim_absent(span, teller)
        parent = span.parent
        if parent is not None:
            parent.words[parent.word] = COARSE.now
            # Records must not keep a chain of ended ancestors alive.
            span.parent = None
        if self.listeners:
            for listener in self.listeners:
                safety.guarded("listener.ended", listener.ended, span)
        return _FIRST

    def sweep(
        self, ending: Callable[[OpenSpan], Ending], *, patient: bool = False
    ) -> int:
        """End what was collected without an end; return how many spans that were.

        Finalizers only append to `collected`: they may run anywhere, with any lock
        held, so telling is left to a thread that holds none.  Endings that were cut
        short, by a signal handler that raises or for want of stack, are gone on with.

        Args:
            ending: Returns how such a span ended.
            patient: Leave what has come since the last patient sweep.  The finalizers
                of one collection run one after the other, in any order, and the next
                may be that of a stream which knows better how its span ended.
        """
        for cut in self.cut_short[:]:
            self._go_on_with(cut)
        due = len(self.collected)
        if patient:
            due = min(due, self._overdue)
        swept = 0
        for _ in range(due):
            try:
                found = self.collected[0]
            except IndexError:  # another thread sweeps as well
                break
            swept += self._sweep(*found, ending)
            # Last, or an interrupt in between would lose it.
            with contextlib.suppress(ValueError):
                self.collected.remove(found)
        self._overdue = len(self.collected)
        return swept

    def _go_on_with(self, cut: tuple[Resumable, Ending | BaseException | None]) -> None:
        """Do what is left of one ending, unless another thread is at it."""
        me = threading.get_ident()
        # One step, whoever comes at the same time.
        if self._resuming.setdefault(id(cut), me) != me:
            return
        try:
            safety.guarded("sweep", cut[0].resume, cut[1])
        except BaseException:
            # Signal handlers run on the main thread alone, which will come again.
            # Elsewhere it is code of the application that raises it, each time, and
            # would end this thread.
            if threading.current_thread() is threading.main_thread():
                raise
            safety.count(safety.Count.SPANS_DROPPED)
        # Last, or an interrupt in between would lose it.
        with contextlib.suppress(ValueError):
            self.cut_short.remove(cut)
        self._resuming.pop(id(cut), None)

    def judge(self, span: OpenSpan, ending: Ending) -> bool:
        """Tell how *span* ended though its owner still has it; False if too late.

        What the owner says later is a late finish.
        """
        tell = self.take_over(span)
        if tell is None:
            return False
        safety.guarded("judge", tell, ending)
        return True

    def take_over(self, span: OpenSpan) -> Callable[[Ending], None] | None:
        """Claim *span* from its owner; return what tells its end, None if too late.

        That is to be called once, and may take its time: processors are asked.
        """
        live = span()
        # Before the claim: from then on its owner may end it, and write on it.
        tell = None if live is None else safety.guarded("judge", live.copied)
        if tell is None:
            return None
        # The same: its owner may let go of it in between.
        self._verdicts.add(span)
        was_judged = span in self._judged
        self._judged.add(span)
        if self.claim(span, _JUDGE) is not Claim.FIRST:
            self._verdicts.discard(span)
            if not was_judged:
                self._judged.discard(span)
            return None
        return tell

    def verdict_written(self, span: OpenSpan, ending: Ending) -> None:
        """Note that the form which says *ending* of *span* cannot be lost any more."""
        self.slots.judged(span, ending)
        self._verdicts.discard(span)
        if span in self._let_go:
            self.let_go(span)

    def let_go(self, span: OpenSpan) -> None:
        """Note that its owner is done with *span*, whose end was told before.

        Its slot is kept until that telling cannot be lost.
        """
        # Noted first: the spooler may write the verdict in the middle of this.
        self._let_go.add(span)
        self._judged.discard(span)
        if span not in self._verdicts:
            self._let_go.discard(span)
            self.slots.free(span)

    def add_listener(self, listener: Listener) -> None:
        """Tell *listener* of every span from now on."""
        self.listeners = (*self.listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell *listener* nothing more."""
        self.listeners = tuple(x for x in self.listeners if x is not listener)

    def forget(self) -> None:
        """Drop every record without telling: they are the parent process's."""
        self.epoch = object()
        # One whose end was told has its slot until its owner lets go of it.
        told = self._judged | self._verdicts | self._let_go
        for span in (*self._open.values(), *told):
            # A journal's memory is shared with the parent, whose spans beat there.
            span.words, span.word, span.slot = SINK, 0, -1
        self._open = {}
        self.collected = deque()
        self.cut_short = []
        self._resuming = {}
        self._verdicts = set()
        self._let_go = set()
        self._judged = set()
        self.slots = MemorySlots()
        self.awake = self.wake is None

    def _claim_absent(self, span: OpenSpan, teller: Teller) -> Claim:
        if self._is_foreign(span):
            return Claim.STALE
        aside = span.aside
        # Without a call: of two who come at once one is the first.
        if aside.evicted:
            aside.evicted = False
            span.teller = teller
            return Claim.FIRST
        return Claim.TOLD

    def _wake(self) -> None:
        self.awake = True
        COARSE.renew()
        if self.wake is not None:
            self.wake()

    def _sweep(
        self, span: OpenSpan, live: Live, ending: Callable[[OpenSpan], Ending]
    ) -> bool:
        if self._is_foreign(span):
            return False
        told = ending(span)
        claim = self.claim(span)
        if claim is Claim.FIRST:
            safety.guarded("sweep", live.tell, told)
        elif span.teller is _JUDGE:
            self.let_go(span)
        return claim is Claim.FIRST

    def _is_foreign(self, span: OpenSpan) -> bool:
        """Return whether *span* is of the parent process, or was never registered."""
        # One whose start was interrupted has no epoch.
        return getattr(span, "epoch", None) is not self.epoch

    def _evict(self) -> None:
        """Forget the oldest span: no room is no reason to stop the application."""
        try:
            span_id, oldest = next(iter(self._open.items()))
            aside = oldest.own_aside()
            # Nobody watches it any more, but its owner may still end it: without a call
            # in between, who finds it there no more finds that it was evicted.
            del self._open[span_id]
            aside.evicted = True
        except (StopIteration, KeyError, RuntimeError):  # others end spans meanwhile
            return
        self.slots.free(oldest)
        safety.count(safety.Count.SPANS_EVICTED)
