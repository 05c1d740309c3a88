"""Captures the final form of every span that ends, whatever becomes of it after that.

The spans are taken where they are handed on, by our own provider or by the one that
agenttrace is attached to, so that an application's own `configure()`, before or during
the capture, goes on working.  Where nothing is configured, a runtime without a
destination is, for as long as the capture lasts.

This module catches and keeps; what a span looks like is `spans`' business, trees are
`trees`', and what is said of open spans `leaks`'.
"""

from __future__ import annotations

import difflib
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from agenttrace.delivery.readable import from_readable
from agenttrace.delivery.store.forest import arrange
from agenttrace.errors import AgenttraceError
from agenttrace.model import EndedBy, Outcome, SpanData
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import leaks, trees
from agenttrace.testing.garbage import collect_garbage
from agenttrace.testing.origins import ORIGINS
from agenttrace.testing.runtimes import runtime_without_destination
from agenttrace.testing.spans import CapturedSpan, Key, captured

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from agenttrace.registry import OpenSpan, OpenSpans

K = TypeVar("K")

_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
_PATIENCE: Final = 1.0
"""Seconds that a span which is just being told by another thread is waited for."""


@contextmanager
def capture_spans() -> Generator[CapturedSpans]:
    """Capture every span of this process that ends meanwhile.

    What is captured can be looked at inside the block and after it.  A span from before
    is captured as well when something ends it, but not when it was dropped and the
    garbage collector happens to find it now.

    Raises:
        AgenttraceError: Tracing is disabled, so that every assertion would be about
            nothing.

    >>> import agenttrace
    >>> with capture_spans() as spans:
    ...     with agenttrace.span("plan"):
    ...         pass
    >>> spans.assert_all_closed()
    >>> spans.span("plan").outcome
    <Outcome.OK: 'ok'>
    """
    recording = Recording(PROCESS.spans)
    with ExitStack() as stack:
        runtime = stack.enter_context(runtime_without_destination())
        mode = runtime.status().mode
        if mode not in ("own", "attached"):
            message = _WHY_NOTHING[mode]
            raise AgenttraceError(message)
        stack.enter_context(ORIGINS.noted(PROCESS.spans))
        stack.enter_context(recording.running())
        yield CapturedSpans(recording)


_WHY_NOTHING: Final = {
    "disabled": (
        "no span can be captured: tracing is disabled, by OTEL_SDK_DISABLED, by "
        "AGENTTRACE_DISABLED, or by configure(disabled=True)"
    ),
    "api": (
        "no span can be captured: the tracer provider in use is not OpenTelemetry's "
        "SDK, so agenttrace does not see what becomes of its spans"
    ),
}


class Recording:
    """What was seen of spans so far: a listener and a tap of the registry.

    Args:
        registry: Whose spans.
    """

    def __init__(self, registry: OpenSpans) -> None:
        self.registry = registry
        # Re-entrant: a finalizer that ends a span may run while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._order: dict[Key, int] = {}
        self._open: dict[OpenSpan, None] = {}
        self._claimed: set[Key] = set()
        self._told: dict[Key, CapturedSpan] = {}

    @contextmanager
    def running(self) -> Generator[None]:
        """Record meanwhile."""
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

    def started(self, span: OpenSpan) -> None:
        """Note that *span* is open."""
        with self._changed:
            self._order[_key(span)] = len(self._order)
            self._open[span] = None

    def ended(self, span: OpenSpan) -> None:
        """Expect the final form of *span*."""
        with self._changed:
            self._open.pop(span, None)
            if span.sampled:
                self._claimed.add(_key(span))

    def told(self, form: object) -> None:
        """Keep the first *form* of a span.

        What was started before and is found by the garbage collector only now has
        been dropped by an earlier test, or is anybody's: it would be chance.
        """
        data = form if isinstance(form, SpanData) else from_readable(form)  # type: ignore[arg-type]  # what else a tap is shown
        span = captured(data)
        with self._changed:
            if span.key in self._order or span.ended_by != EndedBy.GC:
                self._order.setdefault(span.key, len(self._order))
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
            key = _key(record)
            branches[key] = trees.Branch(record.name, trees.OPEN)
            parents[key] = (key[0], record.parent_id.hex())
        for span in self.spans():
            branches[span.key] = _branch_of(span)
            parents[span.key] = span.parent_key
        by_start = sorted(parents, key=lambda key: self._order[key])
        arrangement = arrange({key: parents[key] for key in by_start})
        for key, children in arrangement.children.items():
            branches[key].children = [branches[child] for child in children]
        return [branches[key] for key in arrangement.tops]


class CapturedSpans:
    """The spans that ended during a capture, by start, and those that are open.

    Made by `capture_spans` and by the fixture `agenttrace_spans`.  Every look includes
    what has happened until then.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __iter__(self) -> Iterator[CapturedSpan]:
        return iter(self._spans())

    def __len__(self) -> int:
        return len(self._spans())

    def __repr__(self) -> str:
        return f"<CapturedSpans: {len(self)} ended, {len(self.open)} open>"

    @property
    def names(self) -> list[str]:
        """The names of the spans that have ended."""
        return [span.name for span in self]

    @property
    def roots(self) -> list[CapturedSpan]:
        """Those whose parent has not been captured."""
        return [span for span in self if span.parent is None]

    @property
    def open(self) -> list[OpenSpan]:
        """The spans that were started during the capture and have not ended."""
        self._recording.settle()
        return self._recording.open()

    def find(
        self,
        name: str | None = None,
        *,
        outcome: str | None = None,
        operation: str | None = None,
    ) -> list[CapturedSpan]:
        """Return the spans that have ended and are like that.

        Args:
            name: Their name, in which `*` stands for any text.
            outcome: How they ended: an `Outcome` or its word.
            operation: `gen_ai.operation.name`.

        Raises:
            ValueError: There is no such outcome.
        """
        if outcome is not None and outcome not in _OUTCOMES:
            words = ", ".join(_OUTCOMES)
            message = f"outcome={outcome!r}: must be {words} (what is open is in .open)"
            raise ValueError(message)
        return [
            span
            for span in self
            if (name is None or trees.fits(name, span.name))
            and (outcome is None or span.outcome == outcome)
            and (operation is None or span.operation == operation)
        ]

    def span(self, name: str) -> CapturedSpan:
        """Return the one span that is called *name*, in which `*` is any text.

        Raises:
            AssertionError: There is none that has ended, or more than one; the message
                shows what there is.
        """
        __tracebackhide__ = True
        found = self.find(name)
        if len(found) == 1:
            return found[0]
        if found:
            message = (
                f"{len(found)} spans are called {name!r}; find({name!r}) returns all "
                f"of them.\n\n{self._shown()}"
            )
            raise AssertionError(message)
        if any(trees.fits(name, record.name) for record in self.open):
            message = f"{name!r} is still open.\n\n{leaks.told(self.open)}"
            raise AssertionError(message)
        near = difflib.get_close_matches(name, set(self.names), n=1)
        hint = f" Is it {near[0]!r}?" if near else ""
        message = f"no span is called {name!r}.{hint}\n\n{self._shown()}"
        raise AssertionError(message)

    def tree(self) -> str:
        """Return all of it as text, a line a span: name, outcome, error type, items.

        Spans that are open are in it as well; their outcome is `open`.
        """
        self._recording.settle()
        return trees.draw(self._recording.forest())

    def assert_tree(self, expected: str) -> None:
        """Assert that the spans are those of *expected*, in this order.

        One line a span, as `tree()` draws them; indentation says what is beneath what.
        A line without an outcome means `ok`, one that ends with `: *` any.  What else
        is not said is not compared.  A `*` stands for any text, and a line `...` for
        any further spans in its place.

        Raises:
            AssertionError: They are others; the message is the difference.
            ValueError: *expected* cannot be meant.

        >>> import agenttrace
        >>> with capture_spans() as spans:
        ...     with agenttrace.span("plan"):
        ...         with agenttrace.span("look up Lisbon"):
        ...             pass
        >>> spans.assert_tree('''
        ...     plan
        ...       look up *
        ... ''')
        """
        __tracebackhide__ = True
        patterns = trees.parse(expected)
        self._recording.settle()
        found = trees.difference(patterns, self._recording.forest())
        if found is not None:
            message = (
                "the spans are not the expected ones (- expected, + captured):\n\n"
                f"{found}"
            )
            raise AssertionError(message)

    def assert_all_closed(self, *, collect: bool = False) -> None:
        """Assert that every span which was started during the capture has ended.

        Args:
            collect: Run the garbage collector first, so that what is held by nothing
                but a reference cycle counts as ended (`abandoned`).

        Raises:
            AssertionError: One is open; the message says since when, where it was
                started, and what ends such a span.
        """
        __tracebackhide__ = True
        self._recording.settle(collect=collect)
        left = leaks.confirmed(self._recording.open)
        if left:
            headline = leaks.headline(left, is_open="still open")
            message = f"{headline}\n\n{leaks.told(left)}"
            raise AssertionError(message)

    def _spans(self) -> list[CapturedSpan]:
        self._recording.settle()
        return self._recording.spans()

    def _shown(self) -> str:
        drawn = trees.draw(self._recording.forest())
        if not drawn:
            return "Nothing has been traced since the capture began."
        indented = "\n".join(f"  {line}" for line in drawn.splitlines())
        return f"There is:\n\n{indented}"


def _branch_of(span: CapturedSpan) -> trees.Branch:
    return trees.Branch(
        span.name,
        span.outcome or "",
        span.error_type,
        {
            "items": span.items,
            "ended_by": span.ended_by,
            "input_tokens": span.tokens.input,
            "output_tokens": span.tokens.output,
        },
    )


def _key(span: OpenSpan) -> Key:
    return span.trace_id.hex(), span.span_id.hex()
