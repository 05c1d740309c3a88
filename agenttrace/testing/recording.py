"""What a capture has seen of spans so far, and which of them are its own.

Several captures may run at the same time: one inside the other, or those of tests that
run in one process at once.  A span belongs to the captures that its parent belongs to,
and to those that have been begun since in the context in which it starts.  One of which
neither says anything, such as the root of a thread that was given no context, belongs
to all of them: to be seen by too many is better than by none.

This module owns the record; what is asked of it is `capture`'s business.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from agenttrace.delivery.readable import from_readable
from agenttrace.delivery.store.forest import arrange
from agenttrace.model import EndedBy, SpanData
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import trees
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.spans import CapturedSpan, Key, captured

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace.registry import OpenSpan, OpenSpans

_PATIENCE: Final = 1.0
"""Seconds that a span which is just being told by another thread is waited for."""
_SOME: Final = 20
"""Spans that are remembered of the moment when most were open."""
_moments: Final = itertools.count()
_running: tuple[Recording, ...] = ()
_here: ContextVar[tuple[Recording, ...]] = ContextVar("agenttrace_captures", default=())
"""The captures that were begun in this context, the outermost first."""


class Recording:
    """What was seen of spans so far: a listener and a tap of the registry.

    Args:
        registry: Whose spans.

    Attributes:
        most_open: How many were open at once, at most.
        open_then: Some of those, by start.
    """

    def __init__(self, registry: OpenSpans) -> None:
        self.registry = registry
        self.most_open = 0
        self.open_then: tuple[OpenSpan, ...] = ()
        # Re-entrant: a finalizer that ends a span may run while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._began = 0
        self._around: tuple[Recording, ...] = ()
        self._order: dict[Key, int] = {}
        self._open: dict[OpenSpan, None] = {}
        self._claimed: set[Key] = set()
        self._told: dict[Key, CapturedSpan] = {}

    @contextmanager
    def running(self) -> Generator[None]:
        """Record meanwhile."""
        global _running  # noqa: PLW0603 - which captures run is of the process, as the registry is
        self._began, self._around = next(_moments), _here.get()
        _here.set((*self._around, self))
        _running = (*_running, self)
        self.registry.add_listener(self)
        self.registry.taps = (*self.registry.taps, self.told)
        try:
            yield
            self.settle()
        finally:
            self.registry.remove_listener(self)
            self.registry.taps = tuple(
                tap for tap in self.registry.taps if tap != self.told
            )
            _running = tuple(each for each in _running if each is not self)
            # No token: a fixture may be left in another context than it was entered.
            _here.set(tuple(each for each in _here.get() if each is not self))

    def started(self, span: OpenSpan) -> None:
        """Note that *span* is open, if it belongs here."""
        if len(_running) > 1 and not self._owns(span):
            return
        with self._changed:
            self._order[key_of(span)] = next(_moments)
            self._open[span] = None
            if len(self._open) > self.most_open:
                self.most_open = len(self._open)
                self.open_then = tuple(itertools.islice(self._open, _SOME))

    def ended(self, span: OpenSpan) -> None:
        """Expect the final form of *span*."""
        with self._changed:
            self._open.pop(span, None)
            if span.sampled and not self._is_anothers(key_of(span)):
                self._claimed.add(key_of(span))

    def told(self, form: object) -> None:
        """Keep the first *form* of a span.

        What was started before and is found by the garbage collector only now has
        been dropped by an earlier test, or is anybody's: it would be chance.
        """
        data = form if isinstance(form, SpanData) else from_readable(form)  # type: ignore[arg-type]  # what else a tap is shown
        span = captured(data)
        with self._changed:
            known = span.key in self._order
            if known or (
                span.ended_by != EndedBy.GC and not self._is_anothers(span.key)
            ):
                self._order.setdefault(span.key, next(_moments))
                self._told.setdefault(span.key, span)
            self._claimed.discard(span.key)
            self._changed.notify_all()

    def settle(self, *, collect: bool = False) -> None:
        """Let what has happened arrive: dropped spans, and those of other threads.

        Args:
            collect: Run the garbage collector first.
        """
        if collect:
            collect_garbage()
        PROCESS.sweep()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._claimed, _PATIENCE):
                # Nothing was sent of these: it failed, behind the guard.
                self._claimed.clear()

    def spans(self) -> list[CapturedSpan]:
        """Return what was told so far, by start, everybody with their relatives."""
        with self._changed:
            told = sorted(self._told.values(), key=lambda span: self._order[span.key])
            for span in told:
                span.children = []
            for span in told:
                above = span.parent_key
                span.parent = None if above is None else self._told.get(above)
                if span.parent is not None:
                    span.parent.children.append(span)
                linked = ((link.trace_id, link.span_id) for link in span.links)
                span.linked = [self._told[key] for key in linked if key in self._told]
            return told

    def open(self) -> list[OpenSpan]:
        """Return what was started meanwhile and is open now, by start."""
        find = self.registry.find
        with self._changed:
            # Nobody tells of those that end after the capture.
            return [span for span in self._open if find(span.span_id) is span]

    def forest(self) -> list[trees.Branch]:
        """Return all of it as trees, what is open included."""
        branches: dict[Key, trees.Branch] = {}
        parents: dict[Key, Key | None] = {}
        for record in self.open():
            key = key_of(record)
            branches[key] = trees.Branch(record.name, trees.OPEN)
            parents[key] = (key[0], record.parent_id.hex())
        for span in self.spans():
            branches[span.key] = branch_of(span)
            parents[span.key] = span.parent_key
        by_start = sorted(parents, key=lambda key: self._order[key])
        arrangement = arrange({key: parents[key] for key in by_start})
        for key, children in arrangement.children.items():
            branches[key].children = [branches[child] for child in children]
        return [branches[key] for key in arrangement.tops]

    def _owns(self, span: OpenSpan) -> bool:
        """Return whether *span*, which starts now, belongs here (see the top)."""
        parent = (span.trace_id.hex(), span.parent_id.hex())
        if parent in self._order:
            return True
        since = max((each.began_at(parent) for each in _running), default=-1)
        if since > self._began:
            return False
        here = [each for each in _here.get() if each in _running]
        return self in here or (since < 0 and not here)

    def began_at(self, key: Key) -> int:
        """Return when the span of *key* was seen to start, -1 if it was not."""
        return self._order.get(key, -1)

    def _is_anothers(self, key: Key) -> bool:
        """Return whether a capture that this one has nothing to do with has *key*."""
        if len(_running) < 2 or key in self._order:  # noqa: PLR2004 - more than this one
            return False
        owners = [each for each in _running if each.began_at(key) >= 0]
        return bool(owners) and not any(each in self._around for each in owners)


def key_of(span: OpenSpan) -> Key:
    """Return the key under which the final form of *span* will be known."""
    return span.trace_id.hex(), span.span_id.hex()


def branch_of(span: CapturedSpan) -> trees.Branch:
    """Return *span* as one line of a tree, without what is beneath it."""
    return trees.Branch(
        span.name,
        span.outcome or "",
        span.error_type,
        {
            "items": span.items,
            "ended_by": span.ended_by,
            "input_tokens": span.tokens.input,
            "output_tokens": span.tokens.output,
            "links": len(span.links),
            "duration": span.duration,
        },
    )


def tree_of(span: CapturedSpan) -> trees.Branch:
    """Return *span* with all that is beneath it."""
    branch = branch_of(span)
    branch.children = [tree_of(child) for child in span.children]
    return branch
