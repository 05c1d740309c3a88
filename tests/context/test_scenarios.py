"""However a generator is driven, the application and its traces are right.

Each scenario is played twice on each kind of event loop, with and without agenttrace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrace import semconv
from tests.context import scenarios_of_others, scenarios_of_streams, scenarios_of_work
from tests.context.stage import SCENARIOS, Scenario, Told, play
from tests.context.trees import misplaced, names_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.context.runners import Runner

BOOKS = (scenarios_of_others, scenarios_of_streams, scenarios_of_work)
"""Imported for the scenarios that they register."""


def told_by(spans: list[ReadableSpan]) -> dict[str, Told]:
    """Return what the spans of decorated functions tell, by function."""
    names = names_of(spans)
    return {
        span.name.removeprefix("invoke_agent "): Told(
            str((span.attributes or {})[semconv.OUTCOME]),
            str((span.attributes or {})[semconv.ENDED_BY]),
            (span.attributes or {}).get(semconv.ITEMS),  # type: ignore[arg-type]  # an int
            names.get(span.parent.span_id) if span.parent else None,
        )
        for span in spans
        if span.name.startswith("invoke_agent ")
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_the_application_is_the_same_and_its_spans_are_right(
    scenario: Scenario, runner: Runner, spans: Callable[[], list[ReadableSpan]]
) -> None:
    """Properties C and R: nothing changes, nothing leaks, everything is told."""
    alone, heard_alone = play(scenario, runner, traced=False)

    traced, heard = play(scenario, runner, traced=True)

    ended = spans()
    assert traced.seen == alone.seen
    assert heard == heard_alone
    assert traced.wrong == []
    assert told_by(ended) == scenario.told
    assert misplaced(ended) == []
    assert {span.name for span in ended} >= scenario.others
    assert len({span.context.span_id for span in ended if span.context}) == len(ended)
