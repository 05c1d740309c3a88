"""Captures the final form of every span that ends, whatever becomes of it after that.

The spans are taken where they are handed on, by our own provider or by the one that
agenttrace is attached to, so that an application's own `configure()`, before or during
the capture, goes on working.  Where nothing is configured, a runtime without a
destination is, for as long as the capture lasts.

This module is what a test asks; what was seen is `recording`'s business, what a span
looks like `spans`', trees are `trees`', and what is said of open spans `leaks`'.
"""

from __future__ import annotations

import difflib
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from agenttrace.errors import AgenttraceError
from agenttrace.model import EndedBy, Outcome
from agenttrace.runtime.process import PROCESS
from agenttrace.testing import leaks, trees
from agenttrace.testing.origins import ORIGINS
from agenttrace.testing.recording import Recording
from agenttrace.testing.runtimes import runtime_without_destination
from agenttrace.testing.snapshots import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping

    from agenttrace.registry import OpenSpan
    from agenttrace.testing.spans import CapturedSpan

_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
_changing: Final = threading.RLock()
"""Held while a capture begins or ends: threads of one process may do so at once."""
_ENDED_BY: Final = tuple(each.value for each in EndedBy)


@contextmanager
def capture_spans() -> Generator[CapturedSpans]:
    """Capture every span of this process that ends meanwhile.

    What is captured can be looked at inside the block and after it.  A span from before
    is captured as well when something ends it, but not when it was dropped and the
    garbage collector happens to find it now.

    Of captures that run at the same time, in threads or tasks of one process, each sees
    its own spans: those below its own, and those that start in its own context.

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
    with _changing, ExitStack() as beginning:
        runtime = beginning.enter_context(runtime_without_destination())
        mode = runtime.status().mode
        if mode not in ("own", "attached"):
            message = _WHY_NOTHING[mode]
            raise AgenttraceError(message)
        beginning.enter_context(ORIGINS.noted(PROCESS.spans))
        beginning.enter_context(recording.running())
        stack = beginning.pop_all()
    try:
        yield CapturedSpans(recording)
    finally:
        with _changing:
            stack.close()


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

    def find(  # noqa: PLR0913 - all optional, by keyword
        self,
        name: str | None = None,
        *,
        outcome: str | None = None,
        ended_by: str | None = None,
        operation: str | None = None,
        error_type: str | None = None,
        attributes: Mapping[str, object] | None = None,
        where: Callable[[CapturedSpan], object] | None = None,
    ) -> list[CapturedSpan]:
        """Return the spans that have ended and are like that, by start.

        Args:
            name: Their name, in which `*` stands for any text.
            outcome: How they ended: an `Outcome` or its word.
            ended_by: What ended them: an `EndedBy` or its word.
            operation: `gen_ai.operation.name`.
            error_type: `error.type`, in which `*` stands for any text.
            attributes: They have all of these, with these values.
            where: Returns whether it is one.

        Raises:
            ValueError: There is no such outcome, or nothing ends spans that way.
        """
        _check("outcome", outcome, _OUTCOMES, " (what is open is in .open)")
        _check("ended_by", ended_by, _ENDED_BY)
        wanted = dict(attributes or {}).items()
        return [
            span
            for span in self
            if (name is None or trees.fits(name, span.name))
            and outcome in (None, span.outcome)
            and ended_by in (None, span.ended_by)
            and operation in (None, span.operation)
            and (error_type is None or trees.fits(error_type, span.error_type or ""))
            and all(span.attributes.get(key, _NONE) == value for key, value in wanted)
            and (where is None or where(span))
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
            if any(pattern.name is None for pattern in patterns):
                # What a `...` has taken up is in no difference.
                message += f"\n\n{self._shown()}"
            raise AssertionError(message)

    def snapshot(
        self, *, attributes: Collection[str] = (), ids: bool = False
    ) -> list[dict[str, Any]]:
        """Return the spans that have ended as plain values that are always the same.

        For `inline-snapshot`, `syrupy`, or a literal in the test.  Times, ids and
        attributes are left out, and so is what a span does not have.

        Args:
            attributes: Names of attributes to keep, in which `*` stands for any text.
            ids: Number traces and spans by their start, from 1: `trace`, `id`, `links`.

        >>> import agenttrace
        >>> with capture_spans() as spans:
        ...     with agenttrace.span("plan", attributes={"tenant": "gold"}):
        ...         pass
        >>> spans.snapshot(attributes=["tenant"])
        [{'name': 'plan', 'outcome': 'ok', 'attributes': {'tenant': 'gold'}}]
        """
        return snapshot_of(self._spans(), attributes=attributes, ids=ids)

    @property
    def most_open(self) -> int:
        """How many spans that were started during the capture were open at once."""
        return self._recording.most_open

    def assert_open_at_most(self, number: int) -> None:
        """Assert that never more than *number* of the spans were open at once.

        Raises:
            AssertionError: There were more; the message says which.
        """
        __tracebackhide__ = True
        if self.most_open > number:
            then = self._recording.open_then
            message = (
                f"{self.most_open:,} spans were open at once, and {number:,} may be: "
                f"{leaks.named(then)}\n\n{leaks.listed(then)}"
            )
            raise AssertionError(message)

    def assert_none_stuck(self) -> None:
        """Assert that the watchdog has ended none of the spans.

        Raises:
            AssertionError: It has; the message says which, and why.
        """
        __tracebackhide__ = True
        judged = self.find(ended_by=EndedBy.WATCHDOG)
        if judged:
            number = "1 span" if len(judged) == 1 else f"{len(judged):,} spans"
            told = "\n\n".join(leaks.judged(span) for span in judged)
            message = (
                f"the watchdog has ended {number}: {leaks.named(judged)}\n\n{told}"
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


_NONE: Final = object()


def _check(name: str, said: str | None, words: Collection[str], more: str = "") -> None:
    if said is not None and said not in words:
        message = f"{name}={said!r}: must be {', '.join(words)}{more}"
        raise ValueError(message)
