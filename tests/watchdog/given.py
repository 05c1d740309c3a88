"""A watchdog that is ticked by hand, and providers whose spans it watches."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agenttrace import semconv
from agenttrace.clock import COARSE
from agenttrace.registry import OpenSpan, OpenSpans
from agenttrace.watchdog.limits import Limits
from agenttrace.watchdog.watch import Watchdog
from tests.spans import given as providers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan

    from agenttrace.model import Ending
    from agenttrace.watchdog.verdict import Verdict

SECOND = 1_000_000_000
TICK = SECOND // 5


class Body:
    """A span object that only takes note of what it is told."""

    def __init__(self) -> None:
        self.copies: list[Ending] = []
        self.remarks: dict[str, str] = {}

    def tell(self, ending: Ending) -> None:
        del ending

    def copied(self) -> Callable[[Ending], None]:
        return self.copies.append

    def remark(self, key: str, value: str) -> None:
        self.remarks[key] = value


class Told:
    """Describes nothing, and remembers of which spans it was asked to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rules: list[str] = []

    def __call__(self, span: OpenSpan, verdict: Verdict) -> None:
        self.names.append(span.name)
        self.rules.append(verdict.rule)


class Clock:
    """Time that passes when a test says so, for one watchdog."""

    def __init__(self, dog: Watchdog) -> None:
        self.dog = dog
        self.wall = COARSE.renew()
        self.steady = 0
        self.tick(0)

    def tick(self, wall: int = TICK, steady: int | None = None) -> None:
        """Let so many nanoseconds pass by either clock, then tick once."""
        self.wall += wall
        self.steady += wall if steady is None else steady
        COARSE.now = self.wall
        self.dog.tick(self.wall, self.steady)

    def pass_(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        for _ in range(round(seconds * SECOND) // TICK):
            self.tick()


@contextmanager
def ticking(dog: Watchdog) -> Generator[Clock]:
    """Return a clock for *dog*; the one of the process goes on afterwards."""
    try:
        yield Clock(dog)
    finally:
        COARSE.renew()


_ids = itertools.count(1)


def opened(  # noqa: PLR0913 - as a record has them
    registry: OpenSpans,
    body: Body,
    name: str = "step",
    *,
    parent: OpenSpan | None = None,
    operation: str | None = None,
    started_at: int | None = None,
    heartbeat_timeout: float | None = None,
    max_duration: float | None = None,
) -> OpenSpan:
    """Return the record of a span that has just started."""
    record = OpenSpan(
        body,
        b"t" * 16,
        next(_ids).to_bytes(8, "big"),
        b"" if parent is None else parent.span_id,
        parent,
        name,
        operation,
        COARSE.now if started_at is None else started_at,
        sampled=True,
        heartbeat_timeout=heartbeat_timeout,
        max_duration=max_duration,
    )
    registry.started(record)
    return record


class World:
    """Our provider or the SDK's, a watchdog over its spans, and a clock."""

    def __init__(self, made: providers.Lean | providers.Beside, clock: Clock) -> None:
        self.made = made
        self.clock = clock
        # As the port has it (`tracing.Tracer`).
        self.tracer: Any
        if isinstance(made, providers.Lean):
            self.tracer = made.provider.get_tracer("watched")
        else:
            self.tracer = made.attachment.tracer

    def block(
        self,
        name: str,
        operation: str | None = None,
        *,
        heartbeat_timeout: float | None = None,
        max_duration: float | None = None,
    ) -> Any:  # noqa: ANN401 - a block of either provider
        """Return a block that is a span."""
        values = {} if operation is None else {semconv.GEN_AI_OPERATION_NAME: operation}
        return self.tracer.span(
            name, operation, values, (), heartbeat_timeout, max_duration
        )

    def sent(self) -> dict[str, ReadableSpan]:
        """Return what the processors were handed, by name."""
        return {span.name: span for span in self.made.sent()}

    def endings(self) -> dict[str, str]:
        """Return the outcome of everything that was sent, by name."""
        return {
            name: str((span.attributes or {})[semconv.OUTCOME])
            for name, span in self.sent().items()
        }


@contextmanager
def world(
    *,
    attached: bool = False,
    limits: Limits | None = None,
    sampler: Any = None,  # noqa: ANN401 - one of the SDK's
    **options: Any,  # noqa: ANN401 - those of a watchdog
) -> Generator[World]:
    """Return a provider whose spans are watched, at a time that the test tells."""
    made = providers.beside() if attached else providers.lean(sampler=sampler)
    dog = Watchdog(made.registry, limits or Limits(), **options)
    with ticking(dog) as clock:
        yield World(made, clock)


def until(condition: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Wait for what another thread does.

    Raises:
        AssertionError: It has not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)
