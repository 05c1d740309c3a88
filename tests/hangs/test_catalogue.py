"""The catalogue once over, and that it would notice.

Each program once, on one kind of loop; `python -m tests.hangs` runs all kinds, again
and again, and those that keep the machine busy, which here would slow others down.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agenttrace import semconv
from tests.delivery.collector import Received
from tests.hangs import judging
from tests.hangs.catalogue import (
    MODULES,
    Blocked,
    Healthy,
    Place,
    Verdict,
    Workload,
    everything,
    place_of,
)
from tests.hangs.running import jobs_of, run_all

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.skipif(
    not hasattr(os, "killpg"), reason="programs are ended as process groups"
)

HANGING = [module for module in MODULES if module.startswith("hanging.")]
HEALTHY = [module for module in MODULES if module.startswith("healthy.")]
PLACE = Place("shop.py", 7, "reserve")
STUCK = Verdict("search", "lock")
QUICK = "loop_that_is_busy_with_short_steps"


def complaints(workloads: Iterable[Workload]) -> list[str]:
    """Run *workloads* once each and return what was not as it should be."""
    jobs = jobs_of(workloads, 1, every_loop=False, first=sys.version_info.minor)
    return [
        f"{each.job.workload.name} on {each.job.loop}: {'; '.join(each.wrong)}"
        for each in run_all(jobs).failed
    ]


def span(name: str = "search", outcome: str = "ok", **values: object) -> Received:
    """Return a span as a receiver has it; *values* are attributes of its report."""
    by = "watchdog" if outcome == "stuck" else "return"
    report = {
        semconv.HANG_CAUSE: "lock",
        semconv.HANG_EXPLANATION: "it waits for a lock",
        semconv.HANG_CERTAIN: True,
        semconv.HANG_WAITS_FOR: "task main",
        semconv.CODE_FILE_PATH: PLACE.file,
        semconv.CODE_LINE_NUMBER: PLACE.line,
        semconv.CODE_FUNCTION_NAME: f"shop.{PLACE.function}",
    }
    told = {name.replace("_", "."): value for name, value in values.items()}
    return Received(
        name=name,
        trace_id="",
        span_id="1",
        parent_id="",
        kind=1,
        start_time=0,
        end_time=10**9,
        attributes={semconv.OUTCOME: outcome, semconv.ENDED_BY: by},
        events=[(semconv.HANG, {**report, **told})] if outcome == "stuck" else [],
        links=[],
        status=0,
        status_message="",
        scope="",
        resource={},
    )


def those_of(module: str) -> list[Workload]:
    """Return the programs of *module* that may run beside others."""
    found = [each for each in everything() if each.module == module]
    return [each for each in found if not each.is_alone]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", HANGING)
def test_every_hang_is_found_with_its_cause_and_its_place(module: str) -> None:
    """That is what a watchdog is for."""
    assert complaints(those_of(module)) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", HEALTHY)
def test_nothing_healthy_is_called_stuck(module: str) -> None:
    """One false alarm a week, and nobody believes the next one."""
    assert complaints(those_of(module)) == []


def test_the_catalogue_is_as_large_as_it_is_said_to_be() -> None:
    """Twenty of each, two of them on a machine that has no time."""
    workloads = everything()

    assert sum(not each.is_healthy for each in workloads) >= 20
    assert sum(each.is_healthy for each in workloads) >= 20
    assert sum(each.is_alone for each in workloads) >= 2
    assert all(each.title.count("\n") == 0 for each in workloads)


def test_every_program_that_hangs_says_where() -> None:
    """By a mark on one of its own lines, in the function that is to be named."""
    places = {each.name: place_of(each) for each in everything() if not each.is_healthy}

    assert places["sub_agent_that_awaits_an_event"].function == "waits_for_an_answer"
    assert all(place.file.endswith(".py") for place in places.values())


def test_a_program_that_does_not_hang_is_noticed() -> None:
    """A check that finds everything would find this as well."""
    (healthy,) = [each for each in everything() if each.name == QUICK]

    wrong = complaints([replace(healthy, expected=STUCK)])

    assert len(wrong) == 1
    assert "no verdict on 'search'" in wrong[0]
    assert "it came to an end" in wrong[0]


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([], "no verdict on 'search'"),
        ([span(outcome="ok")], "no verdict on 'search'"),
        ([span("other", "stuck"), span(outcome="stuck")], "'other' was judged"),
        ([span(outcome="stuck", agenttrace_hang_cause="sleep")], "cause: 'sleep'"),
        ([span(outcome="stuck", code_line_number=8)], "place: Place"),
        ([span(outcome="stuck", agenttrace_hang_certain=False)], "certain: False"),
        ([span(outcome="stuck"), span(outcome="stuck")], "judged 2 times"),
    ],
)
def test_what_is_wrong_with_a_verdict_is_said(
    found: list[Received], complaint: str
) -> None:
    """Each part of what a program declares is compared."""
    wrong = judging.of_hang(found, STUCK, PLACE, 0.5)

    assert any(complaint in each for each in wrong), wrong


def test_a_verdict_that_is_right_and_late_is_a_complaint() -> None:
    """Found in time is a part of found."""
    right = [span(outcome="stuck")]

    assert judging.of_hang(right, STUCK, PLACE, 0.5) == []
    assert "after the limit" in judging.of_hang(right, STUCK, PLACE, 60.0)[0]


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ([], "0 spans came"),
        ([span(outcome="stuck")], "is stuck"),
        ([span(outcome="cancelled")], "is cancelled"),
        ([span(f"{semconv.LATE_FINISH}: search")], "late finish"),
        ([span(semconv.LOOP_BLOCKED)], "a loop blocked for 1.00 s"),
    ],
)
def test_an_alarm_about_a_healthy_program_is_said(
    found: list[Received], complaint: str
) -> None:
    """Verdicts, late finishes, loops that are said to be blocked, and missing spans."""
    wrong = judging.of_healthy(found, Healthy(1))

    assert any(complaint in each for each in wrong), wrong


def test_a_loop_that_is_not_said_to_be_blocked_is_a_complaint() -> None:
    """Blocks are told by a span of their own, below the one to blame."""
    expected = Blocked("search", 0.5)

    assert judging.of_block([span()], expected, PLACE) == ["0 blocked loops were told"]
    told = judging.of_block([span(semconv.LOOP_BLOCKED)], expected, PLACE)
    assert told[0] == "it is not 'search' that is blamed"
