"""The one list of spans that are open, and the referee of how each of them ends.

A span has one final form.  Its owner, the watchdog, the sweeper of collected spans and
the exit handler may all come to end it; whoever takes it out of this registry first
may tell, and everybody else learns that it was told.  The registry holds no span:
only records of spans (`OpenSpan`), so that a dropped span can be collected.

It owns records, slots, listeners, and taps: who is shown every final form.  It reads no
clock but the coarse one, starts no thread, and does not know what a span looks like.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import safety
from agenttrace.clock import COARSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrace.model import Ending

DEFAULT_LIMIT: Final = 100_000
_get_ident: Final = threading.get_ident
_SINK: Final = memoryview(bytearray(8)).cast("Q")
"""Where the heartbeats of ended spans go, so that they hit nobody else's word."""


class Live(Protocol):
    """What the registry asks of a span object, whoever's it is."""

    def tell(self, ending: Ending) -> None:
        """End this span, which the caller has claimed, and send its final form."""
        ...

    def tell_copy(self, ending: Ending) -> None:
        """Send a final form and leave the span itself to its owner."""
        ...


class Resumable(Protocol):
    """A span whose ending can be gone on with where it was cut short."""

    def resume(self, cause: Ending | BaseException | None) -> None:
        """Do what is left of ending this span.

        Args:
            cause: How it ended, or what came out of it.
        """
        ...


class OpenSpan:
    """The record of one span that has started and not ended.

    Attributes:
        trace_id, span_id, parent_id: Big-endian bytes; *parent_id* is empty at a root.
        name: The name it started with.
        operation: `gen_ai.operation.name`, or None.
        started_at: Nanoseconds since the epoch.
        sampled: Whether its final form will be exported.
        parent: The parent's record, if the parent is open in this process.
        thread_id: The thread that started it.
        heartbeat_timeout, max_duration: Its own limits in seconds, None = the default.
        holds: How many declared pauses it is in.
        note, progress: What the last `heartbeat()` said.
        origin: Where it was started, if anybody listens for that (`file:line`).
        teller: Who has claimed to tell its end, if anybody has.
        words, word: The memory its last heartbeat is stored in.
    """

    __slots__ = (
        "epoch",
        "evicted",
        "heartbeat_timeout",
        "holds",
        "live",
        "max_duration",
        "name",
        "note",
        "operation",
        "origin",
        "parent",
        "parent_id",
        "progress",
        "sampled",
        "slot",
        "span_id",
        "started_at",
        "teller",
        "thread_id",
        "trace_id",
        "word",
        "words",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - a record; built in one place, on the hot path
        self,
        live: Callable[[], Live | None],
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
        parent: OpenSpan | None,
        name: str,
        operation: str | None,
        started_at: int,
        sampled: bool,  # noqa: FBT001 - by position: keywords double the cost of a call
        heartbeat_timeout: float | None = None,
        max_duration: float | None = None,
    ) -> None:
        self.live = live
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.parent = parent
        self.name = name
        self.operation = operation
        self.started_at = started_at
        self.sampled = sampled
        self.heartbeat_timeout = heartbeat_timeout
        self.max_duration = max_duration
        self.thread_id = _get_ident()
        self.holds = 0
        self.note: str | None = None
        self.progress: float | None = None
        self.origin: str | None = None
        self.evicted = False
        self.teller: Teller | None = None
        # `OpenSpans.started` sets `epoch`, its slots the rest.
        self.epoch: object
        self.words: memoryview[int]
        self.word: int
        self.slot: int

    def __repr__(self) -> str:
        where = f" started at {self.origin}" if self.origin else ""
        return f"<OpenSpan {self.name!r} {self.span_id.hex()}{where}>"

    def beat(self) -> None:
        """Note a sign of progress."""
        self.words[self.word] = COARSE.now

    @property
    def last_beat(self) -> int:
        """When it last showed progress (to one tick), nanoseconds since the epoch."""
        return max(self.words[self.word], self.started_at)

    def path(self) -> str:
        """Return the names from the outermost open ancestor down to this span."""
        names: list[str] = []
        span: OpenSpan | None = self
        while span is not None:
            names.append(span.name)
            span = span.parent
        return " / ".join(reversed(names))


class Slots(Protocol):
    """Where open spans are written down: memory here, or a journal."""

    def take(self, span: OpenSpan) -> None:
        """Give *span* a slot: set its `slot`, `words` and `word`."""
        ...

    def ended(self, span: OpenSpan, end_time: int, ending: Ending) -> None:
        """Write down that *span* has ended and is not yet spooled."""
        ...

    def free(self, span: OpenSpan) -> None:
        """Let the slot go: the span's final form is where it cannot be lost."""
        ...


class Listener(Protocol):
    """Wants to know which spans start and end.  Called on the application's threads."""

    def started(self, span: OpenSpan) -> None:
        """*span* has just been registered."""
        ...

    def ended(self, span: OpenSpan) -> None:
        """*span* has just been claimed by whoever ends it."""
        ...


class Claim(Enum):
    """What the referee says to somebody who wants to end a span."""

    FIRST = "first"
    """Nobody was before: tell it."""
    TOLD = "told"
    """Its end has been told already: what comes now is a late finish."""
    STALE = "stale"
    """It belongs to the process this one was forked from: say nothing."""


class Teller(Enum):
    """Who tells how a span ended."""

    OWNER = "owner"
    """Whoever started it, or the sweeper in its place."""
    JUDGE = "judge"
    """Somebody else: what its owner says later is a late finish."""


# Bound once: looking a member up costs more than using it.
_FIRST: Final = Claim.FIRST
_OWNER: Final = Teller.OWNER
_JUDGE: Final = Teller.JUDGE


class MemorySlots:
    """Slots that live and die with the process: one word a span, for its heartbeat."""

    _SEGMENT: Final = 1024

    def __init__(self) -> None:
        self._segments: dict[int, memoryview[int]] = {}
        self._numbers = itertools.count()
        self._free: deque[int] = deque()

    def take(self, span: OpenSpan) -> None:
        """Give *span* a word, in a new segment where all are taken."""
        try:
            slot = self._free.popleft()
        except IndexError:
            slot = self._grow()
        span.slot = slot
        span.words = words = self._segments[slot // self._SEGMENT]
        span.word = word = slot % self._SEGMENT
        words[word] = span.started_at

    def ended(self, span: OpenSpan, end_time: int, ending: Ending) -> None:
        """Memory forgets with the process, so there is nothing to write down."""

    def free(self, span: OpenSpan) -> None:
        """Put the slot back and send later heartbeats of *span* nowhere."""
        slot, span.slot = span.slot, -1
        if slot >= 0:
            span.words, span.word = _SINK, 0
            self._free.append(slot)

    def _grow(self) -> int:
        # Without a lock: a signal handler or a finalizer that starts a span may run in
        # the middle of this, on the same thread.
        number = next(self._numbers)
        self._segments[number] = memoryview(bytearray(8 * self._SEGMENT)).cast("Q")
        first = number * self._SEGMENT
        self._free.extend(range(first + 1, first + self._SEGMENT))
        return first


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
        next(self._started)
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
            safety.guarded("sweep", cut[0].resume, cut[1])
            with contextlib.suppress(ValueError):  # another thread sweeps as well
                self.cut_short.remove(cut)
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

    def judge(self, span: OpenSpan, ending: Ending) -> bool:
        """Tell how *span* ended though its owner still has it; False if too late.

        What the owner says later is a late finish.
        """
        live = span.live()
        if live is None or self.claim(span, _JUDGE) is not Claim.FIRST:
            return False
        safety.guarded("judge", live.tell_copy, ending)
        return True

    def add_listener(self, listener: Listener) -> None:
        """Tell *listener* of every span from now on."""
        self.listeners = (*self.listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell *listener* nothing more."""
        self.listeners = tuple(x for x in self.listeners if x is not listener)

    def forget(self) -> None:
        """Drop every record without telling: they are the parent process's."""
        self.epoch = object()
        self._open = {}
        self.collected = deque()
        self.cut_short = []
        self.slots = MemorySlots()
        self.awake = self.wake is None

    def _claim_absent(self, span: OpenSpan, teller: Teller) -> Claim:
        if self._is_foreign(span):
            return Claim.STALE
        if span.evicted:
            span.evicted = False
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
            self.slots.free(span)
        return claim is Claim.FIRST

    def _is_foreign(self, span: OpenSpan) -> bool:
        """Return whether *span* is of the parent process, or was never registered."""
        # One whose start was interrupted has no epoch.
        return getattr(span, "epoch", None) is not self.epoch

    def _evict(self) -> None:
        """Forget the oldest span: no room is no reason to stop the application."""
        try:
            oldest = self._open.pop(next(iter(self._open)))
        except (StopIteration, KeyError, RuntimeError):  # others end spans meanwhile
            return
        # Nobody watches it any more, but its owner may still end it.
        oldest.evicted = True
        self.slots.free(oldest)
        safety.count(safety.Count.SPANS_EVICTED)
