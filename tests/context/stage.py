"""A stage on which a scenario is played twice: as the application alone, and traced.

A scenario is written once.  What the application can see of it (items, exceptions, its
own context variables, logs, warnings) must be the same in both runs; what only the
traced run has (spans, and what is current where) is judged by itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import warnings
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

import agenttrace
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from contextlib import AbstractContextManager

    from tests.context.runners import Runner

OWN: Final[ContextVar[str]] = ContextVar("OWN", default="-")
"""A variable of the application's, which agenttrace has no business with."""

CONSUMER: Final = "consumer"
STEP: Final = "step<body"
"""Names of spans say after a `<` whose children they have to be."""

_ADDRESS: Final = re.compile(r"0x[0-9a-f]+|Task-\d+|:\d+")


@dataclass(frozen=True)
class Told:
    """What is expected of one span."""

    outcome: str
    ended_by: str
    items: int | None = None
    parent: str | None = CONSUMER


@dataclass
class Scenario:
    """One way to treat a generator, and what its spans must say of it."""

    play: Callable[[Stage], Coroutine[Any, Any, None]]
    told: dict[str, Told]
    others: frozenset[str]

    def __str__(self) -> str:
        return self.play.__name__


SCENARIOS: Final[list[Scenario]] = []


def scenario(
    *others: str, **told: Told
) -> Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], Scenario]:
    """Register a scenario.

    Args:
        *others: Names of further spans, of which only the end is expected.
        **told: What is expected of the span of each decorated function, by name.
    """

    def register(play: Callable[[Stage], Coroutine[Any, Any, None]]) -> Scenario:
        made = Scenario(play, told, frozenset(others))
        SCENARIOS.append(made)
        return made

    return register


@dataclass
class Stage:
    """What a scenario acts with, and where it is observed.

    Attributes:
        seen: What the application saw, in order.
        wrong: What was current where it should not have been.
        kept: Whatever should outlive the scenario.
    """

    runner: Runner
    traced: bool
    seen: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    wrong: list[str] = field(default_factory=list[str])
    kept: list[Any] = field(default_factory=list[Any])

    def decorate(self, fn: Any) -> Any:  # noqa: ANN401 - of the type of fn
        """Return *fn* as an agent, or just as it is."""
        return agenttrace.agent(fn) if self.traced else fn

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Return a block that is a span where there is tracing."""
        return agenttrace.span(name) if self.traced else nullcontext()

    def other(self, name: str) -> AbstractContextManager[Any]:
        """Return a span of another instrumentation, through OpenTelemetry's API."""
        if not self.traced:
            return nullcontext()
        return trace.get_tracer("other").start_as_current_span(name)

    def note(self, *facts: object) -> None:
        """Take down what the application sees, its own variable included."""
        self.seen.append((*facts, OWN.get()))

    def current_is(self, name: str | None) -> None:
        """Expect the span called *name* to be current here; None: no span at all."""
        if not self.traced:
            return
        now = getattr(trace.get_current_span(), "name", None)
        if now != name:
            caller = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # a test's own traceback
            where = f"{caller.f_code.co_name}:{caller.f_lineno}"
            self.wrong.append(f"{where}: {now} is current and not {name}")

    def stream(self, items: int = 3, *, hop: bool = True) -> Any:  # noqa: ANN401 - an async generator function
        """Return an async generator function, `body`, that watches what is current.

        Args:
            items: How many items it yields.
            hop: Whether it goes through the event loop before each.
        """

        async def body() -> AsyncGenerator[int]:
            self.current_is("invoke_agent body")
            try:
                with self.span(STEP):
                    for number in range(items):
                        self.note("body", number)
                        if hop:
                            await asyncio.sleep(0)
                        self.current_is(STEP)
                        yield number
                        self.current_is(STEP)
                self.current_is("invoke_agent body")
            finally:
                self.current_is("invoke_agent body")
                self.note("body closed")

        return self.decorate(body)

    def plain_stream(self, items: int = 3) -> Any:  # noqa: ANN401 - a generator function
        """Return a generator function, `body`, that watches what is current."""

        def body() -> Generator[int]:
            self.current_is("invoke_agent body")
            try:
                with self.span(STEP):
                    for number in range(items):
                        self.note("body", number)
                        self.current_is(STEP)
                        yield number
                        self.current_is(STEP)
                self.current_is("invoke_agent body")
            finally:
                self.current_is("invoke_agent body")
                self.note("body closed")

        return self.decorate(body)


class _Listening(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.INFO)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        what = record.getMessage().partition("\n")[0]
        self._heard.append(f"log: {record.name}: {_ADDRESS.sub('', what)} {error!r}")


@contextmanager
def listening() -> Generator[list[str]]:
    """Collect all that is logged (INFO and above), warned of, and unraisable."""
    heard: list[str] = []
    handler = _Listening(heard)
    root = logging.getLogger()
    level, hook = root.level, sys.unraisablehook
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    sys.unraisablehook = lambda what: heard.append(f"unraisable: {what.exc_value!r}")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield heard
            collect_garbage()
        heard += [f"warning: {_ADDRESS.sub('', str(each.message))}" for each in warned]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        sys.unraisablehook = hook


def play(
    scenario: Scenario, runner: Runner, *, traced: bool
) -> tuple[Stage, list[str]]:
    """Play *scenario* once and return its stage and what was heard meanwhile."""
    stage = Stage(runner, traced)

    async def main() -> None:
        with stage.span(CONSUMER):
            stage.current_is(CONSUMER if traced else None)
            await scenario.play(stage)
            stage.current_is(CONSUMER)
            stage.note("consumer")
        stage.current_is(None)

    with listening() as heard:
        runner.run(main())
        stage.kept.clear()
        collect_garbage()
    stage.current_is(None)
    return stage, heard
