"""The eight runs: who does what to the desk, and what the run must come to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from agenttrace import Outcome
from agenttrace.demo import models
from agenttrace.demo.desk import PAGE
from agenttrace.demo.tally import deepest
from agenttrace.watchdog.report import HangReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from agenttrace.demo.tally import Tally
    from agenttrace.demo.web import Visitor
    from agenttrace.demo.worker import Worker
    from agenttrace.recovery import Recovered
    from agenttrace.watchdog.verdict import Report

_A_MOMENT: Final = 0.5
"""Seconds that somebody at the screen needs to see that something is going on."""
_PATIENCE: Final = 5.0
"""Seconds after which what should have been seen will not be any more."""
_GLANCE: Final = 0.05
_BEGUN: Final = "/begin"
"""Where runs that go on in the background are stopped."""
WAITS_FOR_EVER: Final = "execute_tool ask_manager"
"""Name of the span of the tool that waits for a yes that nobody gives."""


class Tell(Protocol):
    """Shows what has happened, as it happens."""

    def __call__(self, what: str, /) -> None:
        """Show *what*, one sentence."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """What a scenario plays with.

    Args:
        visitor: Talks to the desk.
        tally: Knows what is open.
        tell: Shows what has happened.
        model_requests: Returns how many requests have reached the scripted model.
        worker: Starts a process of its own, for the run that is killed.
        recover: Delivers what dead processes have left; returns what it has found.
        hangs: Returns the next report of a step that hangs, None if there is none.
        blocked_loops: Returns how often an event loop was found blocked.
    """

    visitor: Visitor
    tally: Tally
    tell: Tell
    model_requests: Callable[[], int]
    worker: Callable[[], AbstractContextManager[Worker]]
    recover: Callable[[], Recovered]
    hangs: Callable[[], Report | None]
    blocked_loops: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.

    Args:
        name: For programs.
        title: For people.
        route: Where it enters the desk.
        question: What is asked.
        expected: How it must end.
        model_calls: How many `chat` spans it must have, by the script.
        scripted: Whether only the scripted model can play its part.
        drive: Plays it, to its end.
        needs_journal: Whether it can be played only where a journal is kept.
        whose: Name of the span that must end so; empty for the run's first one.
    """

    name: str
    title: str
    route: str
    question: str
    expected: Outcome
    model_calls: int
    scripted: bool
    drive: Callable[[Scene, Scenario], None]
    needs_journal: bool = False
    whose: str = ""


def _finishes(scene: Scene, scenario: Scenario) -> None:
    answer = scene.visitor.ask("POST", scenario.route, scenario.question)
    scene.tell(f'The visitor was told: "{answer}"')


def _reader_leaves(scene: Scene, scenario: Scenario) -> None:
    words = 0
    with scene.visitor.reading(scenario.route, scenario.question) as pieces:
        for piece in pieces:
            words += len(piece.split())
            if words >= PAGE:
                break
    scene.tell(f"The visitor read {words} words and closed the browser's tab.")


def _is_cancelled(scene: Scene, scenario: Scenario) -> None:
    number = scene.visitor.ask("POST", scenario.route, scenario.question)
    scene.tally.wait_until(
        lambda count: any(span.name.startswith("chat ") for span in count.open.values())
    )
    time.sleep(_A_MOMENT)
    scene.tell(f"Still open: {scene.tally.where()}")
    scene.visitor.ask("DELETE", f"{_BEGUN}/{number}")
    scene.tell('The visitor pressed "stop", and the desk cancelled the task.')


def _hangs(scene: Scene, scenario: Scenario) -> None:
    number = scene.visitor.ask("POST", scenario.route, scenario.question)
    report = scene.hangs()
    if report is not None:
        scene.tell(f"Still open, and stuck: {deepest(report.path)}")
    if isinstance(report, HangReport):
        scene.tell(f"  no progress for {report.idle:.1f} s: {report.why}")
        scene.tell(f"  {report.where}")
    scene.visitor.ask("DELETE", f"{_BEGUN}/{number}")
    scene.tell("The visitor gave up, and the desk cancelled the task.")


def _blocks(scene: Scene, scenario: Scenario) -> None:
    before = scene.blocked_loops()
    answer = scene.visitor.ask("POST", scenario.route, scenario.question)
    scene.tell(f'The visitor was told: "{answer}"')
    deadline = time.monotonic() + _PATIENCE
    while scene.blocked_loops() == before and time.monotonic() < deadline:
        time.sleep(_GLANCE)
    if scene.blocked_loops() > before:
        scene.tell("Meanwhile nobody else was served: the tool blocked the event loop.")


def _is_cut(scene: Scene, scenario: Scenario) -> None:
    with scene.visitor.reading(scenario.route, scenario.question) as pieces:
        said = "".join(pieces)
    scene.tell(f'The model server hung up. The visitor saw: "{_end_of(said)}"')


def _is_retried(scene: Scene, scenario: Scenario) -> None:
    before = scene.model_requests()
    answer = scene.visitor.ask("POST", scenario.route, scenario.question)
    times = scene.model_requests() - before
    scene.tell(
        f"A status 500 came first: the client sent {times} requests, in one call."
    )
    scene.tell(f'The visitor was told: "{answer}"')


def _is_killed(scene: Scene, _: Scenario) -> None:
    before = scene.recover()  # whoever died earlier is no part of this
    with scene.worker() as worker:
        for span in worker.started:
            scene.tally.add(span)
        scene.tell(f"Still open in process {worker.pid}: {worker.where}")
        worker.kill()
        scene.tell("SIGKILL: the process is gone, and could tell nobody.")
    found = scene.recover().since(before)
    scene.tell(
        f"Recovered from its journal and spool: {found.lost} spans were open, "
        f"{found.resent} had ended and not been sent."
    )


def _end_of(text: str, words: int = 6) -> str:
    """Return the last *words* of *text*.

    >>> _end_of("one two three", 2)
    '... two three'
    """
    every = text.split()
    return " ".join(every if len(every) <= words else ["...", *every[-words:]])


SCENARIOS: Final = (
    Scenario(
        name="finishes",
        title="a run that finishes",
        route="/triage",
        question=models.ORDER,
        expected=Outcome.OK,
        model_calls=3,
        scripted=False,
        drive=_finishes,
    ),
    Scenario(
        name="reader_leaves",
        title="a reader who leaves",
        route="/advise",
        question=models.ROUTER,
        expected=Outcome.ABANDONED,
        model_calls=1,
        scripted=False,
        drive=_reader_leaves,
    ),
    Scenario(
        name="cancelled",
        title="a cancelled run",
        route=f"{_BEGUN}/research",
        question=models.COMPARE,
        expected=Outcome.CANCELLED,
        model_calls=1,
        scripted=False,
        drive=_is_cancelled,
    ),
    Scenario(
        name="cut",
        title="a stream that is cut",
        route="/explain",
        question=models.LIGHT,
        expected=Outcome.ERROR,
        model_calls=1,
        scripted=True,
        drive=_is_cut,
    ),
    Scenario(
        name="retried",
        title="a retried request",
        route="/summary",
        question=models.CALL,
        expected=Outcome.OK,
        model_calls=1,
        scripted=True,
        drive=_is_retried,
    ),
    Scenario(
        name="hangs",
        title="a sub-agent that hangs",
        route=f"{_BEGUN}/refund",
        question=models.REFUND,
        expected=Outcome.STUCK,
        model_calls=2,
        scripted=False,
        drive=_hangs,
        whose=WAITS_FOR_EVER,
    ),
    Scenario(
        name="blocks",
        title="a tool that blocks the loop",
        route="/check",
        question=models.LINE,
        expected=Outcome.OK,
        model_calls=0,
        scripted=False,
        drive=_blocks,
    ),
    Scenario(
        name="killed",
        title="a worker that is killed",
        route="a process of its own",
        question=models.NIGHT,
        expected=Outcome.LOST,
        model_calls=1,
        scripted=True,
        drive=_is_killed,
        needs_journal=True,
    ),
)
