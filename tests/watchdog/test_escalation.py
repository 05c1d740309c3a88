"""What is done about a stuck span is as far-reaching as was asked for, and no more."""

from __future__ import annotations

import logging
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from agenttrace import safety, semconv
from agenttrace.errors import StuckSpanWarning
from agenttrace.watchdog.hooks import MOST, Hooks
from agenttrace.watchdog.verdict import PlainReport, Verdict
from tests.watchdog.given import Told, World, until, world

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.registry import OpenSpan


def hang(given: World, seconds: float = 301) -> None:
    """Let a tool of an agent hang for a while."""
    with given.block("agent"), given.block("tool"):
        given.clock.pass_(seconds)


@pytest.mark.parametrize("on_stuck", ["observe", "warn"])
def test_a_span_that_is_observed_ends_as_it_ends(on_stuck: str) -> None:
    """Its hang is counted; what it comes to is its own."""
    before = safety.counts()["spans_stuck"]
    with (
        warnings.catch_warnings(),
        world(on_stuck=on_stuck, hooks=[]) as given,
    ):
        warnings.simplefilter("ignore", StuckSpanWarning)
        hang(given)

    assert given.endings() == {"tool": "ok", "agent": "ok"}
    assert safety.counts()["spans_stuck"] == before + 1
    assert (given.sent()["agent"].attributes or {})[semconv.WAITING_ON] == "tool"


def test_an_observed_hang_is_told_once_until_there_is_progress() -> None:
    """A hook that rings a bell must not ring it five times a second."""
    told = Told()
    with (
        world(on_stuck="observe", describe=told) as given,
        given.block("tool"),
    ):
        (record,) = given.made.registry
        given.clock.pass_(2000)
        once = list(told.names)
        record.beat()
        given.clock.pass_(299)
        progress = list(told.names)
        given.clock.pass_(3)

    assert once == progress == ["tool"]
    assert told.names == ["tool", "tool"]


def test_an_observed_child_shields_nobody_either() -> None:
    """It is open still, but it was judged."""
    told = Told()
    with world(on_stuck="observe", describe=told) as given:
        hang(given, 1000)

    assert told.names == ["tool", "agent"]


def test_an_overdue_span_that_is_observed_is_told_once() -> None:
    """It stays overdue, whatever it does."""
    told = Told()
    with (
        world(on_stuck="observe", describe=told) as given,
        given.block("run", max_duration=60),
    ):
        (record,) = given.made.registry
        for _ in range(1000):
            given.clock.pass_(1)
            record.beat()

    assert told.rules == ["overdue"]


def test_a_warning_says_which_span_waits_for_what(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the log, and as a warning that test suites can make an error."""
    with (
        caplog.at_level(logging.WARNING, "agenttrace"),
        pytest.warns(StuckSpanWarning) as warned,
        world(on_stuck="warn") as given,
    ):
        hang(given)

    said = "agent / tool: no progress for 300 s (limit 300 s)"
    assert [str(each.message) for each in warned] == [said]
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_warning_that_is_an_error_stops_nobody() -> None:
    """There is no one on the watchdog's thread to raise it to."""
    before = safety.counts()["spans_stuck"]
    with warnings.catch_warnings(), world(on_stuck="warn") as given:
        warnings.simplefilter("error")
        hang(given, 700)

    assert safety.counts()["spans_stuck"] == before + 2


def test_a_failed_span_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    """The dashboard tells; logs and warnings are the application's own."""
    with caplog.at_level(logging.DEBUG), world() as given:
        hang(given)

    assert given.endings()["tool"] == "stuck"
    assert caplog.records == []


# The report.


class Described:
    """A report of somebody else."""

    def attributes(self) -> Mapping[str, str | bool | int | float]:
        return {"cause": "lock", "frames": 3}


def test_what_is_known_of_a_hang_goes_on_the_span_and_to_the_hooks() -> None:
    """The same report, where it is looked for and where it is acted on."""
    report = Described()
    given_to_hook: list[object] = []
    rang = threading.Event()

    def describe(*_: object) -> Described:
        return report

    def hook(told: object) -> None:
        given_to_hook.append(told)
        rang.set()

    with world(hooks=[hook], describe=describe) as given:
        hang(given)
        assert rang.wait(30)

    (event,) = given.sent()["tool"].events
    assert dict(event.attributes or {}) == {"cause": "lock", "frames": 3}
    assert given_to_hook == [report]


@pytest.mark.parametrize("failing", ["describe", "attributes"])
def test_a_report_that_cannot_be_made_costs_the_report_alone(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict stands."""
    monkeypatch.setenv(safety.STRICT_VARIABLE, "0")

    def fail(*_: object) -> Any:  # noqa: ANN401 - it returns nothing
        raise LookupError

    def describe(*_: object) -> Described:
        return fail() if failing == "describe" else Described()

    monkeypatch.setattr(Described, "attributes", fail)
    with world(describe=describe) as given:
        hang(given)

    (event,) = given.sent()["tool"].events
    assert (event.attributes or {})[semconv.HANG_RULE] == "silence"


# Hooks.


def report_on(span: OpenSpan) -> PlainReport:
    return PlainReport(span, Verdict("silence", 1.0, 1.0, 0))


def a_report() -> PlainReport:
    with world() as given, given.block("step"):
        (record,) = given.made.registry
        return report_on(record)


def test_a_hook_that_hangs_stops_nothing_and_fills_nothing() -> None:
    """The watchdog goes on, and what waits for the hook has a bound."""
    entered, go = threading.Event(), threading.Event()
    called: list[object] = []

    def hook(report: object) -> None:
        called.append(report)
        entered.set()
        go.wait(60)

    hooks, report = Hooks([hook]), a_report()
    before = safety.counts()["reports_dropped"]
    hooks.call(report)
    assert entered.wait(30)
    for _ in range(MOST + 10):
        hooks.call(report)
    dropped = safety.counts()["reports_dropped"] - before
    go.set()

    assert dropped == 10
    until(lambda: len(called) == MOST + 1)


def test_a_hook_that_fails_keeps_no_other_from_being_called() -> None:
    """Also where it wants its thread to end."""
    called: list[str] = []

    def raises(_: object) -> None:
        raise LookupError

    def leaves(_: object) -> None:
        called.append("leaves")
        raise SystemExit

    hooks, report = Hooks([raises, leaves]), a_report()
    hooks.call(report)
    until(lambda: len(called) == 1)
    hooks.call(report)
    until(lambda: len(called) == 2)

    assert called == ["leaves", "leaves"]


def test_hooks_are_not_called_on_the_thread_that_judges() -> None:
    """It has to go on."""
    threads: list[int] = []
    done = threading.Event()

    def hook(_: object) -> None:
        threads.append(threading.get_ident())
        done.set()

    Hooks([hook]).call(a_report())

    assert done.wait(30)
    assert threads != [threading.get_ident()]
