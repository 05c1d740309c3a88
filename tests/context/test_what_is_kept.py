"""Nothing lives longer, fails otherwise or warns more because it is traced."""

from __future__ import annotations

import asyncio
import gc
import traceback
import types
import warnings
import weakref
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel

import agenttrace
from agenttrace.boundary.call import Call
from agenttrace.context.scope import Scope
from agenttrace.testing.garbage import collect_garbage
from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    Spans = Callable[[], list[ReadableSpan]]

pytestmark = pytest.mark.usefixtures("spans")


class Big:
    """Something that one wants to be rid of."""


class BigError(Exception):
    """An error that can be referred to weakly, as all can."""


@pytest.fixture(autouse=True)
def _without_the_cyclic_collector() -> Iterator[None]:
    """Let what dies here die of its last reference."""
    collect_garbage()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def is_gone(reference: weakref.ref[Any]) -> bool:
    """Return whether nobody holds it any more."""
    return reference() is None


def test_an_item_is_its_consumers_alone() -> None:
    """A consumer that lets go of a large item expects its memory back."""

    @agenttrace.agent
    def stream() -> Generator[Big]:
        yield Big()
        yield Big()

    items = stream()
    for _ in range(2):
        item = next(items)
        reference = weakref.ref(item)
        del item
        assert is_gone(reference)
    items.close()


def test_what_was_sent_or_thrown_in_is_the_bodys_alone() -> None:
    """Also while the generator waits for what comes next."""

    @agenttrace.agent
    def stream() -> Generator[None, Big]:
        while True:
            try:
                yield
            except BigError:
                continue

    items = stream()
    next(items)
    sent = Big()
    sent_reference = weakref.ref(sent)
    items.send(sent)
    del sent
    assert is_gone(sent_reference)
    error = BigError()
    error_reference = weakref.ref(error)
    items.throw(error)
    # Without agenttrace the error holds this frame, by its traceback, and so itself.
    error.__traceback__ = None
    del error
    assert is_gone(error_reference)
    items.close()


def test_an_asynchronous_generator_keeps_as_little() -> None:
    """The awaitable of a step keeps what was sent in, and must go with the step."""

    @agenttrace.agent
    async def stream() -> AsyncGenerator[Big, Big]:
        while True:
            try:
                yield Big()
            except BigError:
                continue

    async def consume() -> None:
        items = stream()
        item = await anext(items)
        item_reference = weakref.ref(item)
        del item
        assert is_gone(item_reference)
        sent = Big()
        sent_reference = weakref.ref(sent)
        await items.asend(sent)
        del sent
        assert is_gone(sent_reference)
        error = BigError()
        error_reference = weakref.ref(error)
        await items.athrow(error)
        error.__traceback__ = None
        del error
        assert is_gone(error_reference)
        await items.aclose()

    asyncio.run(consume())


def test_arguments_that_a_body_lets_go_of_are_gone() -> None:
    """A stream that has parsed its request does not need the bytes any more."""

    @agenttrace.agent
    def stream(big: Big) -> Generator[bool]:
        reference = weakref.ref(big)
        del big
        yield is_gone(reference)

    @agenttrace.agent
    async def work(big: Big) -> bool:
        reference = weakref.ref(big)
        del big
        return is_gone(reference)

    # Not within an assert: pytest keeps the parts of what it may have to explain.
    of_stream = list(stream(Big()))
    of_coroutine = asyncio.run(work(Big()))

    assert of_stream == [True]
    assert of_coroutine


def test_what_the_consumers_context_holds_is_not_kept_by_a_suspended_stream() -> None:
    """A token keeps the context that it was made in, with all its variables."""
    variable: ContextVar[Big] = ContextVar("variable")

    @agenttrace.agent
    def stream() -> Generator[int]:
        yield 1
        yield 2

    items = stream()
    context = copy_context()
    big = Big()
    reference = weakref.ref(big)
    context.run(variable.set, big)
    context.run(next, items)
    del context, big

    assert is_gone(reference)
    items.close()


def test_a_task_that_outlives_its_starter_does_not_keep_its_context() -> None:
    """What a request put into its variables goes with the request."""
    variable: ContextVar[Big] = ContextVar("variable")

    async def child(over: asyncio.Event) -> None:
        await over.wait()

    async def request(over: asyncio.Event) -> tuple[Any, weakref.ref[Big]]:
        with agenttrace.span("request"):
            task = asyncio.create_task(child(over))
            await asyncio.sleep(0)
        big = Big()
        variable.set(big)
        return task, weakref.ref(big)

    async def main() -> bool:
        over = asyncio.Event()
        task, reference = await asyncio.create_task(request(over))
        await asyncio.sleep(0)  # asyncio keeps it until then
        gone = is_gone(reference)
        over.set()
        await task
        return gone

    assert asyncio.run(main())


def scopes() -> int:
    """Return how many scopes there are in the process."""
    return sum(isinstance(thing, Scope) for thing in gc.get_objects())


def test_tasks_that_start_their_own_successors_keep_no_predecessors() -> None:
    """A supervisor that restarts itself for months would keep all it ever was."""
    counts: list[int] = []
    context = otel.get_current()

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        async def generation(number: int, begun: asyncio.Event) -> None:
            token = otel.attach(context)
            begun.set()
            counts.append(scopes())
            if number:
                next_begun = asyncio.Event()
                successor = asyncio.create_task(generation(number - 1, next_begun))
                await next_begun.wait()
                otel.detach(token)
                del successor
            else:
                otel.detach(token)
                done.set_result(None)

        task = asyncio.create_task(generation(50, asyncio.Event()))
        await done
        await task

    asyncio.run(main())

    assert max(counts) - counts[0] < 5


_TELLING: tuple[type[object], ...] = (
    Call,
    Scope,
    BigError,
    types.FrameType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
)


def kinds_of_garbage(act: Callable[[], object]) -> list[str]:
    """Return what of ours or of the body's only the cyclic collector can free."""
    collect_garbage()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        act()
        collect_garbage()
        found: list[object] = list(gc.garbage)  # pyright: ignore[reportUnknownArgumentType]  # of anything
        return [repr(thing) for thing in found if isinstance(thing, _TELLING)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@agenttrace.agent
def plain(*, fail: bool) -> None:
    if fail:
        raise BigError


@agenttrace.agent
def stream_of_two(*, fail: bool) -> Generator[int]:
    with agenttrace.span("inner"):
        yield 1
        if fail:
            raise BigError
        yield 2


@agenttrace.agent
async def work(*, fail: bool) -> None:
    with agenttrace.span("inner"):
        await asyncio.sleep(0)
        if fail:
            raise BigError


@agenttrace.agent
async def async_stream(*, fail: bool) -> AsyncGenerator[int]:
    for item in stream_of_two(fail=fail):
        await asyncio.sleep(0)
        yield item


def use(fn: Any, *, fail: bool) -> None:  # noqa: ANN401 - one of the above
    """Call it and take what there is to take."""

    async def consume() -> None:
        # In here, because asyncio itself leaves cycles when its main task fails.
        try:
            if fn is work:
                await work(fail=fail)
            else:
                async for _ in async_stream(fail=fail):
                    pass
        except BigError:
            pass

    try:
        if fn in (work, async_stream):
            asyncio.run(consume())
        elif fn is plain:
            plain(fail=fail)
        else:
            list(stream_of_two(fail=fail))
    except BigError:
        pass


@pytest.mark.parametrize("fail", [False, True], ids=["well", "badly"])
@pytest.mark.parametrize(
    "fn", [plain, stream_of_two, work, async_stream], ids=lambda fn: fn.__name__
)
def test_no_reference_cycles_are_left(fn: Callable[..., Any], *, fail: bool) -> None:
    """They would delay every finalizer of the application to the next collection."""
    assert kinds_of_garbage(lambda: use(fn, fail=fail)) == []


def test_a_coroutine_that_is_never_awaited_warns_once_by_its_own_name(
    spans: Spans,
) -> None:
    """The warning is the application's, about its own function; there was no run."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        never = work(fail=False)
        del never
        collect_garbage()

    assert [str(each.message) for each in warned] == [
        "coroutine 'work' was never awaited"
    ]
    assert spans() == []


def test_a_coroutine_that_is_closed_or_cancelled_before_its_first_step_is_silent(
    spans: Spans,
) -> None:
    """As one that is not traced."""

    async def main() -> None:
        for coroutine in (work(fail=False), agenttrace.workflow(work)(fail=False)):
            task = asyncio.create_task(coroutine)
            task.cancel()
            await asyncio.wait([task])

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        work(fail=False).close()
        asyncio.run(main())
        collect_garbage()

    assert warned == []
    assert spans() == []


@pytest.mark.parametrize(
    "fn", [plain, stream_of_two, work, async_stream], ids=lambda fn: fn.__name__
)
def test_an_error_that_comes_out_tells_of_the_application(fn: Any) -> None:  # noqa: ANN401 - one of the above
    """Its traceback ends where it was raised, and it is about nothing else."""

    async def consume() -> None:
        async for _ in async_stream(fail=True):
            pass

    calls: dict[object, Callable[[], object]] = {
        plain: lambda: plain(fail=True),
        stream_of_two: lambda: list(stream_of_two(fail=True)),
        work: lambda: asyncio.run(work(fail=True)),
        async_stream: lambda: asyncio.run(consume()),
    }
    with pytest.raises(BigError) as caught:
        calls[fn]()

    error = caught.value
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.line) == (__file__, "raise BigError")
    assert (error.__context__, error.__cause__) == (None, None)


def test_recursion_that_goes_too_deep_fails_as_ever_and_leaves_nothing() -> None:
    """Wherever the limit is hit, in the function or in what traces it."""
    ran = run("""
        import sys
        import agenttrace
        from opentelemetry import context

        runtime = agenttrace.configure()

        @agenttrace.agent
        def down(levels):
            return down(levels - 1) + 1

        def padded(levels):
            return down(10_000) if levels == 0 else padded(levels - 1)

        sys.setrecursionlimit(300)
        for room in range(6):  # a level takes fewer frames than that
            try:
                padded(room)
            except RecursionError:
                pass
            assert context.get_current() == {}, room
        sys.setrecursionlimit(1000)
        assert runtime.flush(30)
        assert runtime.open_spans() == ()
    """)

    assert (ran.code, ran.err) == (0, "")


def test_streams_left_at_exit_say_nothing() -> None:
    """The interpreter closes them when half of it is gone already."""
    ran = run("""
        import asyncio
        import agenttrace
        agenttrace.configure()

        @agenttrace.agent
        def stream():
            with agenttrace.span("inner"):
                yield 1

        @agenttrace.agent
        async def async_stream():
            yield 1

        left = stream()
        next(left)
        cycle = [stream()]
        cycle.append(cycle)
        next(cycle[0])
        never = async_stream()
        begun = async_stream()
        begun.asend(None).close()
    """)

    assert (ran.code, ran.err) == (0, "")
