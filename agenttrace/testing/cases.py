"""For `unittest`, Django's test cases included: every test captures, and none leaks."""

from __future__ import annotations

import unittest
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from agenttrace.testing import leaks
from agenttrace.testing.capture import capture_spans

if TYPE_CHECKING:
    from collections.abc import Collection

    from agenttrace.registry import OpenSpan
    from agenttrace.testing.capture import CapturedSpans


class TracedTestCase(unittest.TestCase):
    """A test case that captures spans, and fails if a test leaves one open.

    A mixin as well, for cases of other makes; it comes first:

        class DeskTest(TracedTestCase, django.test.TestCase): ...
        class DeskTest(TracedTestCase, unittest.IsolatedAsyncioTestCase): ...

    A test leaks what it has started and what is still open after its `tearDown` and
    all its clean-ups.  A test that has a `setUp` calls `super().setUp()` first.

    Attributes:
        spans: The `CapturedSpans` of the test.
        allow_open: Names of spans that may stay open, in which `*` stands for any
            text, or one such name; for all tests of the class.  The pytest plugin's
            check for leaks allows them as well.
    """

    spans: CapturedSpans
    allow_open: ClassVar[Collection[str]] = ()

    def setUp(self) -> None:
        """Begin to capture.

        What is cleaned up first was begun last, so that this is the last of all.
        """
        super().setUp()
        stack = ExitStack()
        self.spans = stack.enter_context(capture_spans())
        self.addCleanup(self._judge, stack)

    def _judge(self, stack: ExitStack) -> None:
        with stack:
            left = leaks.confirmed(self._left)
        if left:
            names = ", ".join(dict.fromkeys(repr(span.name) for span in left))
            self.fail(leaks.message(left, f"allow_open = ({names},)"))

    @classmethod
    def names_allowed(cls) -> tuple[str, ...]:
        """Return `allow_open`, as names."""
        names = cls.allow_open
        return (names,) if isinstance(names, str) else tuple(names)

    def _left(self) -> list[OpenSpan]:
        return leaks.not_named(self.spans.open, self.names_allowed())
