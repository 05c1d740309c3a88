"""Suites of `unittest` capture and look for leaks, Django's test cases among them."""

from __future__ import annotations

import importlib
import unittest
from typing import TYPE_CHECKING, Any, ClassVar

import agenttrace
from agenttrace.testing import TracedTestCase

if TYPE_CHECKING:
    from collections.abc import Collection

kept: list[Any] = []


def leak() -> None:
    stream = words()
    next(stream)
    kept.append(stream)


@agenttrace.agent
def words() -> Any:  # noqa: ANN401 - a generator
    yield from ("sunny", "warm")


class Desk(TracedTestCase):
    """What a user writes."""

    __test__ = False  # they are run by the tests below

    allow_open: ClassVar[Collection[str]] = ("invoke_agent allowed*",)

    def test_that_is_clean(self) -> None:
        list(words())
        self.spans.assert_tree("invoke_agent words: items=2")

    def test_that_leaks(self) -> None:
        leak()

    def test_that_cleans_up(self) -> None:
        stream = words()
        self.addCleanup(stream.close)
        next(stream)


class AsyncDesk(TracedTestCase, unittest.IsolatedAsyncioTestCase):
    """The same with an event loop."""

    __test__ = False

    async def test_that_is_clean(self) -> None:
        with agenttrace.span("plan"):
            pass
        self.assertEqual(self.spans.names, ["plan"])  # noqa: PT009 - as its author writes

    async def test_that_leaks(self) -> None:
        leak()


class Allowing(Desk):
    """One whose tests may leave the agent's span open."""

    allow_open: ClassVar[Collection[str]] = ("invoke_agent *",)


class AllowingOne(Desk):
    """It says so in one word, as is done with one."""

    allow_open: ClassVar[Collection[str]] = "invoke_agent words"


class AllowingAnother(Desk):
    """One word is no list of letters, of which `*` would be any span."""

    allow_open: ClassVar[Collection[str]] = "execute_tool *"


def failures_of(case: type[unittest.TestCase]) -> dict[str, str]:
    """Run the tests of *case*; return the messages of those that failed."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.errors == []
    assert result.testsRun
    for stream in kept:
        stream.close()
    kept.clear()
    return {
        test.id().rpartition(".")[2]: message.partition("AssertionError: ")[2]
        for test, message in result.failures
    }


def test_a_test_that_leaks_fails_and_says_what_and_where() -> None:
    """Half of the world's suites know no fixtures."""
    failures = failures_of(Desk)

    assert list(failures) == ["test_that_leaks"]
    message = failures["test_that_leaks"]
    assert message.startswith("1 span left open: invoke_agent words\n")
    assert "started at tests/testing/test_cases.py:" in message
    assert message.endswith("To allow it: allow_open = ('invoke_agent words',)\n")


def test_what_is_allowed_may_stay_open() -> None:
    """A test may be about a span that is open."""
    assert failures_of(Allowing) == {}
    assert failures_of(AllowingOne) == {}
    assert list(failures_of(AllowingAnother)) == ["test_that_leaks"]


def test_it_is_a_mixin_of_cases_with_an_event_loop() -> None:
    """What is left open there is left open before the loop is torn down."""
    assert list(failures_of(AsyncDesk)) == ["test_that_leaks"]


def test_it_is_a_mixin_of_djangos_cases() -> None:
    """Without a database: `SimpleTestCase` is what the others are made of."""
    # Not by an import statement: Django has no types.
    settings: Any = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure()
    django_case: Any = importlib.import_module("django.test").SimpleTestCase
    case = type("DjangoDesk", (Desk, django_case), {"__module__": __name__})

    assert list(failures_of(case)) == ["test_that_leaks"]
