"""The record of an open span, and the words that are said about its end."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from agenttrace.clock import COARSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrace.model import Ending

V = TypeVar("V")

get_ident: Final = threading.get_ident
"""As it is at the import: gevent may put its own in its place later."""
SINK: Final = memoryview(bytearray(8)).cast("Q")
"""Where the heartbeats of ended spans go, so that they hit nobody else's word."""


class Live(Protocol):
    """What the registry asks of a span object, whoever's it is."""

    def tell(self, ending: Ending) -> None:
        """End this span, which the caller has claimed, and send its final form."""
        ...

    def copied(self) -> Callable[[Ending], None]:
        """Return what sends a final form of it as it is now, once it is called.

        The span itself is left to its owner, who may end it before that is sent.
        """
        ...

    def remark(self, key: str, value: str) -> None:
        """Have the final form say this too, whoever sends it.  On any thread."""
        ...


class Usual(float):
    """A limit in seconds that an instrumentation knows to be right where none is set.

    It may become another as the operation goes on: a model is silent for longer before
    the first word than between two.
    """

    __slots__ = ()


UNLIMITED: Final = Usual(math.inf)
"""The usual limit of what waits for others, and may wait for ever: it has none."""


class AtLeast(float):
    """A limit in seconds that nothing which is set more generally may shorten."""

    __slots__ = ()


class Resumable(Protocol):
    """A span whose ending can be gone on with where it was cut short."""

    def resume(self, cause: Ending | BaseException | None) -> None:
        """Do what is left of ending this span.

        Args:
            cause: How it ended, or what came out of it.
        """
        ...


class Aside:
    """What few spans come to while they are open; see `OpenSpan` for each of them."""

    __slots__ = ("evicted", "held", "holds", "note", "origin", "progress")

    def __init__(self) -> None:
        self.holds = 0
        self.held = 0
        self.note: str | None = None
        self.progress: float | None = None
        self.origin: str | None = None
        self.evicted = False


NOTHING_YET: Final = Aside()
"""That of every span, until it has something of its own: never changed."""


class Seldom(Generic[V]):
    """An attribute of `Aside` as one of the record's, which has its own once it is set.

    Whatever a record holds is gone through by each collection that finds it open, and
    with thousands open at once that is a fourth of what they cost.
    """

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: OpenSpan, _owner: type) -> V:
        value: V = getattr(record.aside, self._name)
        return value

    def __set__(self, record: OpenSpan, value: V) -> None:
        setattr(record.own_aside(), self._name, value)


class OpenSpan(weakref.ReferenceType["Live"]):
    """The record of one span that has started and not ended.

    It is itself the weak reference to the span: an object less for each of them, and
    calling it returns the span, or None where that was collected.

    Attributes:
        trace_id, span_id, parent_id: Big-endian bytes; *parent_id* is empty at a root.
        name: The name it started with.
        operation: `gen_ai.operation.name`, or None.
        started_at: Nanoseconds since the epoch.
        sampled: Whether its final form will be exported.
        parent: The parent's record, if the parent is open in this process.
        thread_id: The thread that started it.
        heartbeat_timeout, max_duration: Its own limits in seconds, None = the default.
        watched: Who watches it, if anybody does by now.
        marked: Set once it has a marker.
        attendant: Who has asked for it last, where it is current nowhere and somebody
            has: a weak reference to a task, or the id of a thread.
        teller: Who has claimed to tell its end, if anybody has.
        words, word: The memory its last heartbeat is stored in.
        aside: Where what follows is kept.
        holds: How many declared pauses it is in.
        held: Nanoseconds it has spent in pauses; see `held_for`.
        note, progress: What the last `heartbeat()` said.
        origin: Where it was started, if anybody listens for that (`file:line`).
        evicted: Whether it was forgotten for want of room, and its owner has it still.
    """

    __slots__ = (
        "aside",
        "attendant",
        "epoch",
        "heartbeat_timeout",
        "marked",
        "max_duration",
        "name",
        "operation",
        "parent",
        "parent_id",
        "sampled",
        "slot",
        "span_id",
        "started_at",
        "teller",
        "thread_id",
        "trace_id",
        "watched",
        "word",
        "words",
    )

    # Declared here: to declare one in `__init__` takes as long as to set it does.
    teller: Teller | None
    # `OpenSpans.started` sets `epoch`, a watchdog `watched` and `marked`, whoever asks
    # for it `attendant`, the slots the rest.
    attendant: weakref.ReferenceType[Any] | int
    epoch: object
    marked: bool
    watched: object
    words: memoryview[int]
    word: int
    slot: int

    holds = Seldom[int]()
    held = Seldom[int]()
    note = Seldom[str | None]()
    progress = Seldom[float | None]()
    origin = Seldom[str | None]()
    evicted = Seldom[bool]()

    # By identity: a reference is compared, and hashed, as what it refers to.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __new__(cls, live: Live, *_: Any, **__: Any) -> Self:  # noqa: ANN401 - see `__init__`
        """Refer to *live*."""
        return super().__new__(cls, live)

    def __init__(  # noqa: PLR0913, PLR0917 - a record; for lean spans `LeanSpan.begin` does the same in place  # pyright: ignore[reportInconsistentConstructor]  # `__new__` takes the first and leaves the rest  # pylint: disable=super-init-not-called
        self,
        _live: Live,
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
        self.thread_id = get_ident()
        self.aside = NOTHING_YET
        self.teller = None

    def __repr__(self) -> str:
        where = f" started at {self.origin}" if self.origin else ""
        return f"<OpenSpan {self.name!r} {self.span_id.hex()}{where}>"

    def own_aside(self) -> Aside:
        """Return what is kept aside of this span alone, making it at the first time."""
        if self.aside is NOTHING_YET:
            fresh = Aside()
            # No call from here on: no other thread comes in between.
            if self.aside is NOTHING_YET:
                self.aside = fresh
        return self.aside

    def beat(self) -> None:
        """Note a sign of progress."""
        self.words[self.word] = COARSE.now

    def attend(self) -> None:
        """Note that whoever calls this waits for it, though it is current nowhere."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs on this thread
            task = None
        self.attendant = get_ident() if task is None else weakref.ref(task)

    def pause(self) -> None:
        """Stop its clocks; every pause needs its `unpause`."""
        aside, now = self.own_aside(), time.monotonic_ns()
        # No call from here on: no other thread comes in between.
        if not aside.holds:
            aside.held -= now
        aside.holds += 1

    def unpause(self) -> None:
        """Let its clocks go on, if this was the last pause: which is progress."""
        aside, now = self.own_aside(), time.monotonic_ns()
        # The same.
        aside.holds -= 1
        if not aside.holds:
            aside.held += now
        self.beat()

    @property
    def held_for(self) -> int:
        """Nanoseconds it has spent in pauses, the present one included."""
        aside = self.aside
        if not aside.holds:
            return aside.held
        now = time.monotonic_ns()
        return aside.held + now if aside.holds else aside.held

    @property
    def is_open(self) -> bool:
        """Whether its end has not been told, and nobody is about to tell it."""
        return self.teller is None and not self.aside.evicted

    @property
    def beat_word(self) -> int:
        """What the clock said at its last sign of progress, to one tick.

        That is before its start where the clock has been set back since.
        """
        return self.words[self.word]

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
