"""The pytest plugin: the fixture `agenttrace_spans`, and a check for leaked spans.

pytest loads it in every suite of the environment, before conftests, coverage and
warning filters.  So it imports next to nothing until a test asks for the fixture or
the option `agenttrace_leaks` is on: then OpenTelemetry's SDK comes with it.

A test leaks what is open after all of its teardown and was not before it.  Spans that
are started while a fixture of a wider scope is set up are the fixture's: they may stay
open until it has been torn down.

Two markers are promises that a test makes for itself, whatever the option says; they
are kept by a capture around all of the test, its fixtures included.

pytest compiles the modules of every plugin's distribution itself, for their assertions.
Ours have none.  They would be slow to import in every fresh environment; and some are
imported by threads of ours, while in Python 3.11 `ast.parse` fails where another thread
is in it as well: that of the suite.  So they are found before pytest finds them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from contextlib import ExitStack
from functools import cached_property
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from agenttrace.registry import OpenSpan
    from agenttrace.testing import CapturedSpans, Hang, ManualClock
    from agenttrace.testing.model_server import ModelServer
    from agenttrace.testing.wider import Wider

OFF, WARN, FAIL = "off", "warn", "fail"
_LEVELS: Final = OFF, WARN, FAIL
_SHORT_NAME: Final = "agenttrace"
_OPTION: Final = "agenttrace_leaks"
_MARKER: Final = "agenttrace_allow_open"
_AT_MOST: Final = "agenttrace_max_open"
_NONE_STUCK: Final = "agenttrace_no_stuck"
_MARKERS: Final = (
    (
        f"{_MARKER}(*names_or_number): spans that the test may leave open: their "
        "names, in which * stands for any text, or how many; with neither, any."
    ),
    f"{_AT_MOST}(number): fail the test if more spans than that are open at once.",
    f"{_NONE_STUCK}: fail the test if the watchdog ends a span in it.",
)
_MARKED: Final = pytest.StashKey["_Marked"]()
_HELP: Final = "what becomes of a test that leaves spans open: off, warn or fail"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini setting of the same name."""
    sys.meta_path.insert(0, _AsTheyAre)
    parser.addini(_OPTION, f"{_HELP} (default: off)", default=OFF)
    parser.getgroup("agenttrace").addoption(
        "--agenttrace-leaks",
        choices=_LEVELS,
        default=None,
        dest=_OPTION,
        help=f"{_HELP} (default: the setting {_OPTION}, else off)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and look for leaks where that is asked for.

    Raises:
        pytest.UsageError: There is no such level, or the plugin has another name.
    """
    if config.pluginmanager.is_blocked(_SHORT_NAME):
        message = f"-p no:{_SHORT_NAME} leaves nothing out: say -p no:{__name__}"
        raise pytest.UsageError(message)
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    level = config.getoption(_OPTION) or config.getini(_OPTION)
    if level not in _LEVELS:
        message = f"{_OPTION} = {level!r}: must be off, warn or fail"
        raise pytest.UsageError(message)
    if level != OFF:
        config.pluginmanager.register(LeakCheck(level), f"{_OPTION}_check")


def pytest_unconfigure() -> None:
    """Leave the import system as it was."""
    with contextlib.suppress(ValueError):
        sys.meta_path.remove(_AsTheyAre)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker that cannot be meant, and keep watch for those that are."""
    _allowed(item)
    marked = _Marked.of(item)
    if marked is not None:
        item.stash[_MARKED] = marked
        marked.watch()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a test to its markers, when all its fixtures are gone."""
    try:
        result = yield
    except BaseException:
        if _MARKED in item.stash:
            item.stash[_MARKED].leave()
        raise
    if _MARKED in item.stash:
        item.stash[_MARKED].hold()
    return result


@pytest.fixture
def agenttrace_spans() -> Iterator[CapturedSpans]:
    """Capture every span that ends during the test (`agenttrace.testing`)."""
    from agenttrace.testing import capture_spans  # noqa: PLC0415 - brings the SDK

    with capture_spans() as spans:
        yield spans


@pytest.fixture
def agenttrace_clock() -> Iterator[ManualClock]:
    """Stop agenttrace's time for the test; `advance(seconds)` lets some pass."""
    from agenttrace.testing import ManualClock  # noqa: PLC0415 - brings the SDK

    with ManualClock() as clock:
        yield clock


@pytest.fixture
def agenttrace_hang() -> Iterator[Hang]:
    """Hang whatever calls it, until the test is over or releases it."""
    from agenttrace.testing import Hang  # noqa: PLC0415 - when it is asked for

    with Hang() as hang:
        yield hang


@pytest.fixture
def agenttrace_model_server() -> Iterator[ModelServer]:
    """Run a model server on loopback; what it answers is its `script`."""
    from agenttrace.testing.model_server import (  # noqa: PLC0415 - needs h11, of the extra `demo`
        ModelServer,
    )

    with ModelServer() as server:
        yield server


class _AsTheyAre:
    """Finds agenttrace's modules as they are installed (see the top)."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module *name* is, None where that is not our business."""
        if path is None or not name.startswith("agenttrace."):
            return None
        return PathFinder.find_spec(name, path, target)


class _Marked:
    """What the markers of one test promise of its spans.

    Args:
        at_most: How many may be open at once; None is any number.
        none_stuck: Whether the watchdog must not end one.
    """

    def __init__(self, at_most: int | None, *, none_stuck: bool) -> None:
        self._at_most = at_most
        self._none_stuck = none_stuck
        self._stack = ExitStack()
        self._spans: CapturedSpans | None = None

    @classmethod
    def of(cls, item: pytest.Item) -> Self | None:
        """Return the promises of *item*; None where it makes none.

        One that cannot be meant fails the test.
        """
        marker = item.get_closest_marker(_AT_MOST)
        none_stuck = item.get_closest_marker(_NONE_STUCK) is not None
        if marker is None:
            return cls(None, none_stuck=True) if none_stuck else None
        number = marker.args[0] if len(marker.args) == 1 else None
        if type(number) is not int or number < 0 or marker.kwargs:
            said = ", ".join(
                [
                    *map(repr, marker.args),
                    *(f"{key}={value!r}" for key, value in marker.kwargs.items()),
                ]
            )
            message = f"@pytest.mark.{_AT_MOST}({said}): must be one number of spans"
            pytest.fail(message, pytrace=False)
        return cls(number, none_stuck=none_stuck)

    def watch(self) -> None:
        """Begin, before the test has set anything up."""
        from agenttrace.testing import capture_spans  # noqa: PLC0415 - brings the SDK

        self._spans = self._stack.enter_context(capture_spans())

    def leave(self) -> None:
        """Watch no more."""
        self._stack.close()

    def hold(self) -> None:
        """Watch no more, and fail the test if it has broken a promise."""
        self.leave()
        broken = self._broken()
        if broken:
            pytest.fail(broken, pytrace=False)

    def _broken(self) -> str:
        spans = self._spans
        try:
            if spans is not None and self._at_most is not None:
                spans.assert_open_at_most(self._at_most)
            if spans is not None and self._none_stuck:
                spans.assert_none_stuck()
        except AssertionError as broken:
            return str(broken)
        return ""


class LeakCheck:
    """Finds the spans that each test leaves open.

    Args:
        level: `warn` or `fail`.
    """

    def __init__(self, level: str) -> None:
        self._level = level
        self._stack = ExitStack()
        self._failed = False
        self._before: set[OpenSpan] = set()
        self._fixtures: dict[OpenSpan, str] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        """Note what is open before the test has begun to set anything up.

        A test that is run again, by a plugin for that, is judged again.
        """
        self._failed = False
        self._before = set(self._wider.open())
        self._fixtures.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Leave to a fixture of a wider scope what is started in its setup."""
        if fixturedef.scope == "function":
            return (yield)
        with self._wider.setting_up(fixturedef):
            return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Ask for what a fixture has left open after its teardown."""
        left = self._wider.torn_down(fixturedef)
        self._before -= left
        self._fixtures.update(dict.fromkeys(left, fixturedef.argname))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note that the test has failed already, were it expected or not."""
        report = yield
        as_expected = report.skipped and hasattr(report, "wasxfail")
        self._failed = self._failed or report.failed or as_expected
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item
    ) -> Generator[None, object, object]:
        """Tell of what the test has left open, when all its fixtures are gone."""
        try:
            result = yield
        except BaseException:
            self._failed = True
            self._report(item)
            raise
        self._report(item)
        return result

    def pytest_unconfigure(self) -> None:
        """Watch no more."""
        self._stack.close()

    @cached_property
    def _wider(self) -> Wider:
        """Watch, from the first test on.

        Not in the process that only hands tests out to others (xdist's).
        """
        from agenttrace.runtime.process import PROCESS  # noqa: PLC0415 - brings the SDK
        from agenttrace.testing.origins import ORIGINS  # noqa: PLC0415 - the same
        from agenttrace.testing.wider import Wider  # noqa: PLC0415 - the same

        self._stack.enter_context(ORIGINS.noted(PROCESS.spans))
        return Wider()

    def _report(self, item: pytest.Item) -> None:
        if not self._left():
            return
        from agenttrace.testing import leaks  # noqa: PLC0415 - when there is one

        names, number = _allowed(item)

        def not_named() -> list[OpenSpan]:
            return leaks.not_named(self._left(), names)

        # Not of a moment's: of what stays open as many are allowed as the marker says.
        if len(not_named()) <= number:
            return
        left = leaks.confirmed(not_named)
        if len(left) <= number:
            return
        text = leaks.message(left, _to_allow(left), self._fixtures)
        if self._failed:
            # It often is the failure, whose traceback holds on to what is suspended.
            item.add_report_section("teardown", "spans left open", text)
        elif self._level == FAIL:
            pytest.fail(text, pytrace=False)
        else:
            from agenttrace.errors import LeakedSpanWarning  # noqa: PLC0415 - the same

            item.warn(LeakedSpanWarning(text))

    def _left(self) -> list[OpenSpan]:
        return self._wider.not_theirs(
            [span for span in self._wider.open() if span not in self._before]
        )


def _to_allow(left: list[OpenSpan]) -> str:
    quoted = (json.dumps(span.name, ensure_ascii=False) for span in left)
    return f"@pytest.mark.{_MARKER}({', '.join(dict.fromkeys(quoted))})"


def _allowed(item: pytest.Item) -> tuple[list[str], int]:
    """Return the names that *item* and its class allow, and how many spans beside.

    A marker that cannot be meant fails the test, whether it leaves anything open or
    not.
    """
    names = [*_allowed_by_case(item)]
    number = 0
    for marker in item.iter_markers(_MARKER):
        if not marker.args and not marker.kwargs:
            names.append("*")
        for allowed in marker.args:
            if isinstance(allowed, str):
                names.append(allowed)
            elif type(allowed) is int and allowed >= 0:
                number += allowed
            else:
                _refuse(repr(allowed))
        for keyword, allowed in marker.kwargs.items():
            _refuse(f"{keyword}={allowed!r}")
    return names, number


def _allowed_by_case(item: pytest.Item) -> tuple[str, ...]:
    """Return the names that the test case of *item* allows, if it is one of ours."""
    cases = sys.modules.get("agenttrace.testing.cases")
    case = getattr(item, "cls", None)
    if cases is None or case is None or not issubclass(case, cases.TracedTestCase):
        return ()
    names: tuple[str, ...] = case.names_allowed()
    return names


def _refuse(said: str) -> NoReturn:
    message = (
        f"@pytest.mark.{_MARKER}({said}): must be names of spans or a number of them"
    )
    pytest.fail(message, pytrace=False)
