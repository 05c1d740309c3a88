"""Generators that do what a script says, and what their consumer saw of it.

A body is a list of reactions, one for each of its yields; a consumer is a list of acts.
The same body and the same acts, with and without a decorator, must come to the same.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator


class SomeError(Exception):
    """An error of the application's."""


INSTEAD: Final = "raised by the body"
OF_THE_CONSUMER: Final[dict[str, object]] = {}


class OddError(BaseException):
    """One that `except Exception` does not catch."""


ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    "SomeError": lambda: SomeError("thrown", 1),
    "OddError": lambda: OddError("thrown"),
    "StopIteration": lambda: StopIteration("thrown"),
    "StopAsyncIteration": lambda: StopAsyncIteration("thrown"),
    "GeneratorExit": lambda: GeneratorExit("thrown"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("thrown"),
    "CancelledError": lambda: asyncio.CancelledError("thrown"),
    "RuntimeError": lambda: RuntimeError("thrown"),
}

REACTIONS: Final = (
    "raise",  # let it out again
    "go on",  # catch it and go on to the next yield
    "answer",  # catch it and yield once more
    "return",  # catch it and return
    "replace",  # raise another, in its context
    "replace from",  # raise another, because of it
    "replace from None",
    "stop",  # raise what ends iterations
)
FINALLY: Final = ("", "", "raise", "return", "yield")


@dataclass(frozen=True)
class Body:
    """What a generator does.

    Args:
        reactions: To what is thrown in at its first, second, ... yield.
        at_last: What its `finally` does.
        returns: What it returns; a plain generator only.
        waits: Whether it suspends itself before each item; asynchronous ones only.
    """

    reactions: tuple[str, ...]
    at_last: str = ""
    returns: object = None
    waits: bool = False

    @property
    def can_be_dropped(self) -> bool:
        """Whether it goes when it is told to.

        One that yields in answer to being dropped is told twice where it is driven:
        its driver is dropped, and then it is.
        """
        unwilling = {"go on", "answer"} & set(self.reactions)
        return not unwilling and self.at_last != "yield"


bodies: Final = st.builds(
    Body,
    st.lists(st.sampled_from(REACTIONS), max_size=4).map(tuple),
    st.sampled_from(FINALLY),
    st.sampled_from([None, "returned", (1, 2), StopIteration("a value")]),
    st.booleans(),
)
acts: Final = st.lists(
    st.one_of(
        st.just(("next",)),
        st.tuples(st.just("send"), st.sampled_from([None, 1, "sent"])),
        st.tuples(st.just("throw"), st.sampled_from(sorted(ERRORS))),
        st.tuples(st.just("throw in handler"), st.sampled_from(sorted(ERRORS))),
        st.tuples(st.just("throw class"), st.sampled_from(sorted(ERRORS))),
        st.just(("close",)),
    ),
    min_size=1,
    max_size=6,
)


# Not GeneratorExit: to close a coroutine says nothing to the generator that it waits
# for before 3.13, and from then on only those go in peace that do not wait in answer.
interruptions: Final = st.one_of(
    st.none(), st.sampled_from(sorted(ERRORS.keys() - {"GeneratorExit"}))
)


def react(reaction: str, error: BaseException, end: type[Exception]) -> None:
    """Do what a reaction to *error* says beyond yielding and returning."""
    match reaction:
        case "raise":
            raise error
        case "replace":
            raise SomeError(INSTEAD)
        case "replace from":
            raise SomeError(INSTEAD) from error
        case "replace from None":
            raise SomeError(INSTEAD) from None
        case "stop":
            raise end(INSTEAD)
        case _:
            pass


def plain(body: Body, seen: list[object]) -> Generator[object, object, object]:
    """Be a generator as *body* says."""
    try:
        for number, reaction in enumerate(body.reactions):
            try:
                seen.append((yield number))
            except BaseException as error:  # noqa: BLE001 - all there is
                seen.append(told(error))
                react(reaction, error, StopIteration)
                if reaction == "answer":
                    seen.append((yield "answer"))
                if reaction == "return":
                    return body.returns
    finally:
        seen.append("finally")
        if body.at_last == "raise":
            raise SomeError(INSTEAD)
        if body.at_last == "yield":
            seen.append((yield "finally"))
        if body.at_last == "return":
            return body.returns  # noqa: B012 - that it silences what is raised is the point
    return body.returns


class Waiting:
    """Suspends whoever awaits it once, and hands over what it is resumed with."""

    def __await__(self) -> Generator[str, object, object]:
        return (yield "waiting")


async def asynchronous(
    body: Body, seen: list[object]
) -> AsyncGenerator[object, object]:
    """Be an asynchronous generator as *body* says."""
    try:
        for number, reaction in enumerate(body.reactions):
            try:
                if body.waits:
                    await Waiting()
                seen.append((yield number))
            except BaseException as error:  # noqa: BLE001 - all there is
                seen.append(told(error))
                if body.waits:
                    await Waiting()
                react(reaction, error, StopAsyncIteration)
                if reaction == "answer":
                    seen.append((yield "answer"))
                if reaction == "return":
                    return
    finally:
        seen.append("finally")
        if body.at_last == "raise":
            raise SomeError(INSTEAD)
        if body.at_last == "yield":
            seen.append((yield "finally"))
        if body.at_last == "return":
            return  # noqa: B012 - that it silences what is raised is the point


def told(error: BaseException | None, depth: int = 4) -> object:
    """Return all that can be compared of *error* and of what it came from."""
    if error is None or not depth:
        return None
    return (
        type(error).__name__,
        repr(error.args),
        told(error.__cause__, depth - 1),
        told(error.__context__, depth - 1),
        error.__suppress_context__,
    )


def handling_an_error(act: Callable[[], object]) -> object:
    """Do *act* while an error of the consumer's own is being handled."""
    try:
        return OF_THE_CONSUMER["nothing"]
    except KeyError:
        return act()


def act_on(
    generator: Generator[object, object, object], act: tuple[Any, ...]
) -> object:
    """Do one act of a consumer and return what came of it."""
    close: Callable[[], object] = generator.close
    try:
        match act:
            case ("next",):
                item = next(generator)
            case ("send", value):
                item = generator.send(value)
            case ("throw", name):
                item = generator.throw(ERRORS[name]())
            case ("throw class", name):
                item = generator.throw(type(ERRORS[name]()))
            case ("throw in handler", name):
                thrown = ERRORS[name]()
                item = handling_an_error(lambda: generator.throw(thrown))
            case _:
                item = "closed", repr(close())  # it returns something from 3.13 on
    except BaseException as error:  # noqa: BLE001 - all there is
        value = repr(error.value) if isinstance(error, StopIteration) else None
        return "raised", value, told(error)
    return "item", item


def drive(
    coroutine: Coroutine[object, object, object], interruption: str | None
) -> object:
    """Run *coroutine* by hand; throw what is named into its first suspension."""
    for turn in range(10):
        try:
            if turn == 1 and interruption is not None:
                coroutine.throw(ERRORS[interruption]())
            else:
                coroutine.send("resumed" if turn else None)
        except StopIteration as stop:
            return "item", repr(stop.value)
        except BaseException as error:  # noqa: BLE001 - all there is
            return "raised", told(error)
    coroutine.close()
    return "endless"


async def step(
    generator: AsyncGenerator[object, object], act: tuple[Any, ...]
) -> object:
    """Do one act of a consumer of an asynchronous generator."""
    match act:
        case ("next",):
            awaited = anext(generator)
        case ("send", value):
            awaited = generator.asend(value)
        case ("throw class", name):
            awaited = generator.athrow(type(ERRORS[name]()))
        case ("close",):
            awaited = generator.aclose()
        case (_, name):
            awaited = generator.athrow(ERRORS[name]())
        case _:
            raise NotImplementedError(act)
    if act[0] != "throw in handler":
        return await awaited
    try:
        return OF_THE_CONSUMER["nothing"]
    except KeyError:
        return await awaited


@contextmanager
def taking_down(seen: list[object]) -> Generator[None]:
    """Take down what the hooks for asynchronous generators and unraisables are told."""
    hooks, unraisable = sys.get_asyncgen_hooks(), sys.unraisablehook
    sys.set_asyncgen_hooks(
        lambda _: seen.append("first step"), lambda _: seen.append("dropped")
    )
    sys.unraisablehook = lambda what: seen.append(("unraisable", told(what.exc_value)))
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)
        sys.unraisablehook = unraisable


def leave(generator: Any, body: Body) -> None:  # noqa: ANN401 - either kind
    """Close a generator for good that is not to be dropped."""
    if body.can_be_dropped:
        return
    for _ in range(10):
        with suppress(BaseException):
            if hasattr(generator, "close"):
                generator.close()
            else:
                drive(generator.aclose(), None)
