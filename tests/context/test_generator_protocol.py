"""What a consumer does to a decorated generator comes to what it comes to without."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

import agenttrace
from agenttrace.testing.garbage import collect_garbage
from tests.context.protocol import (
    Body,
    Waiting,
    act_on,
    acts,
    asynchronous,
    bodies,
    drive,
    interruptions,
    leave,
    plain,
    step,
    taking_down,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from opentelemetry.sdk.trace import ReadableSpan

# One runtime serves all examples of a test: it holds no state that they could see.
sharing = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.usefixtures("spans")


def played(
    decorate: Callable[[Any], Any], body: Body, script: list[Any]
) -> list[object]:
    """Return all that consumer and body saw."""
    seen: list[object] = []
    with taking_down(seen):
        generator = decorate(plain)(body, seen)
        seen += [act_on(generator, act) for act in script]
        leave(generator, body)
        del generator
    return seen


@sharing
@given(bodies, acts)
def test_a_generator_answers_the_same(body: Body, script: list[Any]) -> None:
    """Values, exceptions and where they came from, return values, closing."""
    alone = played(lambda fn: fn, body, script)

    traced = played(agenttrace.agent, body, script)

    assert traced == alone


def played_async(
    decorate: Callable[[Any], Any],
    body: Body,
    script: list[Any],
    interruption: str | None,
) -> list[object]:
    """Return all that consumer and body saw, and what the hooks were called for."""
    seen: list[object] = []
    with taking_down(seen):
        generator = decorate(asynchronous)(body, seen)
        seen += [drive(step(generator, act), interruption) for act in script]
        leave(generator, body)
        del generator
    return seen


@sharing
@given(bodies, acts, interruptions)
def test_an_asynchronous_generator_answers_the_same(
    body: Body, script: list[Any], interruption: str | None
) -> None:
    """Also when something is thrown in while it waits, and to the loop's hooks."""
    # In contexts of their own: some end with a generator that is left in mid-step, and
    # nobody puts away what is current then.
    alone = contextvars.Context().run(
        played_async, lambda fn: fn, body, script, interruption
    )

    traced = contextvars.Context().run(
        played_async, agenttrace.agent, body, script, interruption
    )

    assert traced == alone


def delegated(
    decorate: Callable[[Any], Any], body: Body, script: list[Any]
) -> list[object]:
    """Play through `yield from`, which has a protocol of its own."""
    seen: list[object] = []

    def outer() -> Generator[object, object, object]:
        driven: Generator[object, object, object] = decorate(plain)(body, seen)
        result = yield from driven
        seen.append(repr(result))
        return result

    with taking_down(seen):
        generator = outer()
        seen += [act_on(generator, act) for act in script]
        leave(generator, body)
        del generator
    return seen


@sharing
@given(bodies.filter(lambda body: body.can_be_dropped), acts)
def test_delegation_to_it_is_the_same(body: Body, script: list[Any]) -> None:
    """`yield from` looks up and calls `send`, `throw` and `close` by itself."""
    assert delegated(agenttrace.agent, body, script) == delegated(
        lambda fn: fn, body, script
    )


@agenttrace.agent
def entering_itself() -> Generator[object]:
    try:
        next(ITSELF[0])
    except ValueError as error:
        yield told(error)


ITSELF: list[Generator[object]] = []


def test_a_generator_that_is_running_refuses_to_be_entered() -> None:
    """With the interpreter's own words."""
    ITSELF[:] = [entering_itself()]

    (answer,) = ITSELF[0]

    assert answer == (
        "ValueError",
        "('generator already executing',)",
        None,
        None,
        False,
    )


def answers_to_a_second_consumer(decorate: Callable[[Any], Any]) -> list[object]:
    """Return what a second consumer is told while the first waits."""

    async def body() -> AsyncGenerator[int]:
        await Waiting()
        yield 1

    generator = decorate(body)()
    first = anext(generator)
    first.send(None)
    answers = [
        drive(step(generator, ("next",)), None),
        drive(step(generator, ()), None),
    ]
    with pytest.raises(StopIteration):
        first.send(None)
    drive(generator.aclose(), None)
    return answers


def test_a_second_consumer_is_refused_in_the_same_words() -> None:
    """Two tasks on one generator are a bug, and its message is searched for."""
    assert answers_to_a_second_consumer(agenttrace.agent) == (
        answers_to_a_second_consumer(lambda fn: fn)
    )


def test_a_step_may_be_gone_on_with_in_another_context(
    spans: Callable[[], list[ReadableSpan]],
) -> None:
    """Whoever drives by hand need not keep to one; the application hears nothing."""

    @agenttrace.agent
    async def body() -> AsyncGenerator[int]:
        for number in range(2):
            with agenttrace.span("inner"):
                await Waiting()
                yield number

    generator = body()
    items: list[int] = []
    for _ in range(3):
        awaitable = anext(generator)
        try:
            while True:
                contextvars.Context().run(awaitable.send, None)
        except StopIteration as stop:
            items.append(stop.value)
        except StopAsyncIteration:
            break

    assert items == [0, 1]
    assert [span.name for span in spans()] == ["inner", "inner", "invoke_agent body"]


def test_dropped_generators_of_the_loop_are_finalized_as_ever() -> None:
    """Each is known to the loop once: as the object that the application holds."""
    known: list[object] = []

    @agenttrace.agent
    async def body() -> AsyncGenerator[int]:
        yield 1

    async def main() -> None:
        hooks = sys.get_asyncgen_hooks()
        first = hooks.firstiter
        assert first is not None

        def also_known(generator: AsyncGenerator[Any, Any]) -> None:
            known.append(id(generator))
            first(generator)

        sys.set_asyncgen_hooks(firstiter=also_known)
        generator = body()
        await anext(generator)
        assert known == [id(generator)]
        assert sys.get_asyncgen_hooks().finalizer is hooks.finalizer
        await generator.aclose()

    asyncio.run(main())
    collect_garbage()
