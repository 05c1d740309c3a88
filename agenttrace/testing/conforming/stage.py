"""One case as it is played: where the run is watched, and its spans are judged.

A case says what it has done to the run, and how the spans may have ended then; the
stage knows which were open at that moment, what is current, what has been said behind
everybody's back, and which promises that breaks.  What is done to a run is the
business of the books of cases: `coroutines`, `plain`, `processes`.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

import agenttrace
from agenttrace.model import EndedBy, Ending, Outcome
from agenttrace.runtime import core
from agenttrace.runtime.process import PROCESS
from agenttrace.semconv import LATE_FINISH
from agenttrace.testing import leaks, trees
from agenttrace.testing.capture import CapturedSpans, capture_spans
from agenttrace.testing.conforming.hearing import counting_ends, listening
from agenttrace.testing.conforming.promises import Broken, Promise, ageless, untrue
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.recording import key_of, tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from agenttrace.registry import OpenSpan
    from agenttrace.testing.spans import CapturedSpan, Key

CONSUMER: Final = "conformance"
"""The span that every run is beneath: that of whoever asked for it."""
OK: Final = frozenset({"ok"})
LEFT: Final = frozenset({"abandoned"})
_NO_FAULT: Final = frozenset({"ok", "cancelled", "abandoned"})
_PAUSE: Final = 0.005
_COLLECTING: Final = 1.0
"""Seconds at most for which garbage is collected again and again."""
_HANG: Final = 30.0
"""Seconds after which a case is taken to hang."""
_COLLECTED: Final = Ending(Outcome.ABANDONED, EndedBy.CLOSE)


class Stage:
    """One case.

    Args:
        case: Its name, as words that follow "when".
        patience: Seconds that work which goes on is given to come to its end.

    Attributes:
        spans: What is captured.
        where: Where the run was when something was done to it.
        items: What the run has yielded so far.
        kept: What is to outlive the case, so that the collector is no help.
        block: Leaves the block of the context manager that the run is; None where it
            is none, or has been left.
        was_in_block: Whether it is one.
        reads_iterables: Whether what can be iterated is read: it may be a stream.
        before_reading: What there was of spans before that; None where it is not read.
        roots: Whether spans of the run may be roots: it is in an empty context.
        tree: What the tree of the run has to be, drawn; None where that is not known.
        names: How often each name has to be there; None where that is not known.
        skipped: Why the case could not be played; empty where it was.
        broken: The promises that were broken.
    """

    def __init__(self, case: str, patience: float) -> None:
        self.case = case
        self.patience = patience
        self.hang_after = _HANG
        self.where = ""
        self.items = 0
        self.kept: list[Any] = []
        self.block: Any = None
        self.was_in_block = False
        self.reads_iterables = True
        self.before_reading: object = None
        self.roots = False
        self.tree: str | None = None
        self.names: Counter[str] | None = None
        self.skipped = ""
        self.broken: list[Broken] = []
        self.spans: CapturedSpans
        self._consumer: trace.Span = trace.INVALID_SPAN
        self._in_blocks: set[trace.Span] = set()
        self._key: Key = ("", "")
        self._touched: dict[Key, frozenset[str]] = {}
        self._tops_may: frozenset[str] | None = None
        self._left_open: set[Key] = set()
        self._runners: dict[OpenSpan, int] = {}
        self._other_threads: frozenset[int | None] = frozenset()
        self._other_traces: set[str] = set()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Be the block in which the case is played; then judge what came of it."""
        with ExitStack() as stack:
            heard = stack.enter_context(listening())
            ended_twice = stack.enter_context(counting_ends())
            self.spans = stack.enter_context(capture_spans())
            threads = {each.ident for each in threading.enumerate()}
            self._other_threads = frozenset(threads - {threading.get_ident()})
            PROCESS.spans.add_listener(self)
            stack.callback(PROCESS.spans.remove_listener, self)
            with agenttrace.span(CONSUMER):
                self._consumer = trace.get_current_span()
                context = self._consumer.get_span_context()
                self._key = f"{context.trace_id:032x}", f"{context.span_id:016x}"
                yield
                self._judge_closed()
            self.let_go()
            self._judge_forms()
        for each in dict.fromkeys(ended_twice):
            self.breaks(Promise.ONCE, each)
        for each in dict.fromkeys(heard):
            # What the SDK says of one of its own spans.
            late = "ended span" in each
            self.breaks(Promise.ONCE if late else Promise.QUIET, each)

    def breaks(self, promise: Promise, what: str, *, where: str | None = None) -> None:
        """Note that a promise was broken."""
        place = self.where if where is None else where
        self.broken.append(Broken(promise, self.case, place, what))

    def let_go(self) -> None:
        """Drop the run, and all that belongs to it."""
        self.kept.clear()
        self._in_blocks.clear()
        self.block = None

    def in_block(self) -> Callable[[], None]:
        """Note that a context manager was entered; the result notes that it was left.

        What it makes current is current in its block, as `with agenttrace.span()` is.
        """
        now = trace.get_current_span()
        self.was_in_block = True
        self._in_blocks.add(now)
        return functools.partial(self._in_blocks.discard, now)

    def current(self, when: str) -> None:
        """Expect the consumer's span to be current here, or that of a block."""
        now = trace.get_current_span()
        if now is not self._consumer and now not in self._in_blocks:
            name = getattr(now, "name", None)
            what = "no span" if name is None else f"{name!r}"
            self.breaks(Promise.CURRENT, f"{what} is current in the caller {when}")

    def not_current(self, when: str) -> None:
        """Expect no span of the run to be current here, in another context."""
        now = trace.get_current_span()
        name = getattr(now, "name", None)
        if name is not None and now not in (self._consumer, *self._in_blocks):
            self.breaks(Promise.CURRENT, f"{name!r} is current {when}")

    def left(self, may: Collection[str]) -> None:
        """Note that the run is left now: what is open at its top may end like this."""
        for record in self.open():
            if record.parent_id.hex() == self._key[1]:
                self._touched[key_of(record)] = frozenset(may)

    def path(self) -> list[Key]:
        """Return the open spans that something raised here comes up through.

        They are those that are current here, and one that is alone at the top.
        """
        span_id = trace.get_current_span().get_span_context().span_id
        above = PROCESS.spans.find(span_id.to_bytes(8, "big"))
        path: list[Key] = []
        while above is not None and key_of(above) != self._key:
            path.append(key_of(above))
            above = above.parent
        tops = [each for each in self.open() if each.parent_id.hex() == self._key[1]]
        return [*path, *(key_of(top) for top in tops if len(tops) == 1)]

    def beside(self) -> list[Key]:
        """Return the open spans that the task or thread which runs this has started.

        Those that are made by hand are current nowhere; something raised here comes up
        through them as well, or leaves behind what they stand for.
        """
        here = _runner()
        return [key_of(each) for each in self.open() if self._runners.get(each) == here]

    def raised_in(
        self, path: Collection[Key], beside: Collection[Key], may: Collection[str]
    ) -> None:
        """Note that something came up through *path*, and through or past *beside*."""
        self._touched.update(dict.fromkeys(beside, frozenset({*may, "abandoned"})))
        self._touched.update(dict.fromkeys(path, frozenset(may)))

    def started(self, span: OpenSpan) -> None:
        """Note which task or thread has started *span*.

        What a thread that was there before the run has started, in a trace that is
        not the run's, is none of its business.
        """
        self._runners[span] = _runner()
        trace_id = span.trace_id.hex()
        is_other = threading.get_ident() in self._other_threads
        if is_other and trace_id != self._key[0]:
            self._other_traces.add(trace_id)

    def ended(self, span: OpenSpan) -> None:
        """Forget *span*."""
        self._runners.pop(span, None)

    def handled(self) -> None:
        """Note that what was raised did not come out: it was handled somewhere."""
        self._touched.clear()

    def made_into_another(self, may: Collection[str]) -> None:
        """Note that another exception came out than the one that was raised."""
        self._touched = dict.fromkeys(self._touched, frozenset(may))

    def all_end(self, may: Collection[str]) -> None:
        """Note that whatever the run has at its top has to end like this."""
        self._tops_may = frozenset(may)

    def open(self) -> list[OpenSpan]:
        """Return what the run has open now."""
        return [
            each
            for each in self.spans.open
            if key_of(each) != self._key
            and each.trace_id.hex() not in self._other_traces
        ]

    def drawn(self) -> str:
        """Return the tree of the run, which is over."""
        return trees.draw([tree_of(top) for top in self.tops()])

    def tops(self) -> list[CapturedSpan]:
        """Return what the run has at its top."""
        return [each for each in self.spans if each.parent_key == self._key]

    def compared(self, expected: str) -> str | None:
        """Return how the tree differs from *expected*; None where it does not."""
        tops = [tree_of(top) for top in self.tops()]
        return trees.difference(trees.parse(expected), tops)

    async def quiet(self) -> None:
        """Give tasks that go on some time, and judge what is open then.

        Before the event loop is torn down: that would end them, and their spans.
        """
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others and self.open():
            await asyncio.wait(others, timeout=self.patience)
        self._judge_closed()

    def counted(self) -> Counter[str]:
        """Return how many spans the run has of each name."""
        return Counter(each.name for each in self._ended())

    def _ended(self) -> list[CapturedSpan]:
        """Return what the run had, and has ended.

        That what an earlier case left open ends after all is not of this one.
        """
        return [
            each
            for each in self.spans
            if each.key != self._key
            and each.key[0] not in self._other_traces
            and (each.key[0] == self._key[0] or not each.name.startswith(LATE_FINISH))
        ]

    def collect(self, *, patiently: bool = False) -> None:
        """Have the garbage collector find what was dropped.

        Args:
            patiently: Whether other threads may hold some of it for a moment more.
        """
        deadline = time.monotonic() + min(self.patience, _COLLECTING)
        collect_garbage()
        PROCESS.sweep()
        while patiently and self.open() and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            collect_garbage()
            PROCESS.sweep()

    def _judge_closed(self) -> None:
        left = self._settled()
        mine = [each for each in left if each.trace_id.hex() == self._key[0]]
        if mine:
            self.breaks(
                Promise.CLOSED,
                f"still open:\n\n{ageless(leaks.told(mine), beneath=CONSUMER)}",
            )
        for each in left:
            # It has been told: no later case or test is to find it again.
            PROCESS.spans.judge(each, _COLLECTED)
            self._left_open.add(key_of(each))

    def _settled(self) -> list[OpenSpan]:
        """Return what is open, and stays so though other threads are given time."""
        deadline = time.monotonic() + self.patience
        here = threading.get_ident()
        while True:
            left = leaks.confirmed(self.open) if self.open() else []
            running = {each.ident for each in threading.enumerate()} - {here}
            if not any(each.thread_id in running for each in left):
                return left
            if time.monotonic() > deadline:
                return left
            time.sleep(_PAUSE)

    def _judge_forms(self) -> None:
        by_key = {each.key: each for each in self.spans}
        for span in self._ended():
            self._judge_place(span)
        # What says how those ended that were left open is this kit.
        for key, may in self._touched.items():
            if key in by_key and key not in self._left_open:
                self._judge_outcome(by_key[key], may)
        if self._tops_may is not None:
            for span in self.tops():
                if span.key not in self._left_open:
                    self._judge_outcome(span, self._tops_may)
        if self.tree is not None and not self._left_open:
            found = self.compared(self.tree)
            if found is not None:
                self.breaks(
                    Promise.TREE,
                    "its tree is another one (- expected, + found):\n\n" + found,
                )
        if self.names is not None and self.counted() != self.names:
            missing, more = self.names - self.counted(), self.counted() - self.names
            self.breaks(
                Promise.TREE,
                f"missing: {sorted(missing.elements())}, "
                f"too many: {sorted(more.elements())}",
            )

    def _judge_outcome(self, span: CapturedSpan, may: frozenset[str]) -> None:
        outcome = "ok" if span.outcome is None else span.outcome.value
        if outcome not in may:
            is_unsaid = outcome in OK and may == LEFT and span.ended_by is not None
            what = untrue(span.name, outcome, may, is_unsaid=is_unsaid)
            self.breaks(Promise.TRUTH, what)
        elif (
            span.status is trace.StatusCode.ERROR
            and outcome in _NO_FAULT
            and outcome not in _told_as_errors()
        ):
            self.breaks(
                Promise.TRUTH, f"{span.name!r} has the status ERROR: it was {outcome}"
            )

    def _judge_place(self, span: CapturedSpan) -> None:
        if span.parent is None:
            if span.parent_key is not None:
                self.breaks(
                    Promise.TREE,
                    f"{span.name!r} is beneath a span that is none of this run's",
                )
            elif not span.links and not self.roots:
                self.breaks(
                    Promise.TREE,
                    f"{span.name!r} is a root: it belongs to the trace of the run, or "
                    "is linked to it",
                )
        elif (
            # One that was dropped ended at its last sign of life, to a tick.
            span.parent.ended_by != EndedBy.GC and span.parent.ended < span.started
        ):
            self.breaks(
                Promise.TREE,
                f"{span.name!r} is beneath {span.parent.name!r}, which had ended when "
                "it was started",
            )


def _runner() -> int:
    """Return what tells the task that runs this, or the thread, from others."""
    try:
        return id(asyncio.current_task())
    except RuntimeError:  # no event loop runs here
        return threading.get_ident()


def _told_as_errors() -> Collection[str]:
    """Return the outcomes that the runtime in use was told to call errors."""
    runtime = core.current()
    return () if runtime is None else runtime.settings.error_outcomes
