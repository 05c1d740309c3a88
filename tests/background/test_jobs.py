"""Work in the background is a run of its own that tells what became of it."""

from __future__ import annotations

import asyncio
import sys
import types
import weakref
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import agenttrace
from agenttrace.testing import kill_and_recover
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import NoReturn

    from agenttrace.testing import CapturedSpans

CANCELLED = ("cancelled", "cancel")


def ending(spans: CapturedSpans, name: str) -> tuple[object, object]:
    """Return how the only span of that name ended, and by what."""
    span = spans.span(name)
    return span.outcome, span.ended_by


def ignore(*_: object) -> None:
    """Say nothing of what a loop complains of."""


async def nothing() -> str:
    """Be done at once."""
    await asyncio.sleep(0)
    return "done"


async def for_ever() -> None:
    """Wait for what never happens."""
    await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_a_job_is_open_before_its_first_step(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A loop may be busy for long before it comes to it."""
    task = agenttrace.background(nothing(), name="job")

    assert [span.name for span in agenttrace.open_spans()] == ["job"]
    assert not trace.get_current_span().is_recording()
    assert await task == "done"
    assert ending(agenttrace_spans, "job") == ("ok", "return")


@pytest.mark.asyncio
async def test_a_job_that_is_cancelled_before_its_first_step_says_so(
    agenttrace_spans: CapturedSpans,
) -> None:
    """None of its body has run, and it is no run that nobody has seen."""
    task = agenttrace.background(for_ever(), name="job")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ending(agenttrace_spans, "job") == CANCELLED


@pytest.mark.asyncio
async def test_a_job_that_nobody_holds_is_not_collected(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The event loop holds tasks weakly; a callback is told of its end nevertheless."""
    begun, done = asyncio.Event(), asyncio.Event()
    waits_for: list[weakref.ref[asyncio.Future[None]]] = []

    async def work() -> None:
        # Nothing but this frame knows the future, and nothing but the future the task.
        future = asyncio.get_running_loop().create_future()
        waits_for.append(weakref.ref(future))
        begun.set()
        await future

    agenttrace.background(work(), name="job").add_done_callback(lambda _: done.set())
    await begun.wait()
    collect_garbage()
    future = waits_for[0]()
    assert future is not None
    future.set_result(None)
    await done.wait()

    assert ending(agenttrace_spans, "job") == ("ok", "return")


def test_a_job_that_fails_with_nobody_looking_is_an_error_and_asyncio_says_so(
    agenttrace_spans: CapturedSpans,
) -> None:
    """What asyncio logs of a failure that nobody retrieves is the application's."""
    told: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        done = asyncio.Event()
        task = agenttrace.background(fail(), name="job")
        task.add_done_callback(lambda _: done.set())
        del task
        await done.wait()
        await asyncio.sleep(0)
        collect_garbage()

    asyncio.run(main())

    assert ending(agenttrace_spans, "job") == ("error", "exception")
    assert agenttrace_spans.span("job").error_type == "LookupError"
    assert told == ["Task exception was never retrieved"]


def test_a_loop_that_ends_cancels_its_jobs(agenttrace_spans: CapturedSpans) -> None:
    """`asyncio.run` does so with every task that is left."""

    async def main() -> None:
        agenttrace.background(for_ever(), name="begun")
        await asyncio.sleep(0)
        agenttrace.background(for_ever(), name="not begun")

    asyncio.run(main())

    assert ending(agenttrace_spans, "begun") == CANCELLED
    assert ending(agenttrace_spans, "not begun") == CANCELLED


@pytest.mark.parametrize("is_held", [False, True], ids=["dropped", "held"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_that_is_closed_under_its_jobs_loses_them(
    loop: str, *, is_held: bool, agenttrace_spans: CapturedSpans
) -> None:
    """Nobody is left who could go on with them; all are told, and none is kept.

    They are many, since it is the collector's choice which of their parts goes first.
    """
    own: Any = pytest.importorskip(loop).new_event_loop()
    own.set_exception_handler(ignore)  # "destroyed but it is pending"
    held: list[asyncio.Task[None]] = []

    def start(name: str) -> None:
        for _ in range(10):
            task = agenttrace.background(for_ever(), name=name)
            if is_held:
                held.append(task)

    async def main() -> None:
        start("begun")
        await asyncio.sleep(0)
        start("not begun")

    own.run_until_complete(main())
    own.close()
    assert len(agenttrace.open_spans()) == 20
    del own
    if is_held:
        collect_garbage()
        assert len(agenttrace.open_spans()) == 20
        held.clear()
    collect_garbage()

    told = [(span.name, span.outcome, span.ended_by) for span in agenttrace_spans]
    assert Counter(told) == {
        ("begun", "lost", "gc"): 10,
        ("not begun", "lost", "gc"): 10,
    }


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_job_of_a_killed_process_is_lost_also_before_its_first_step() -> None:
    """Property D: whoever started it was told that it would be done."""

    def work(die: Callable[[], NoReturn]) -> None:
        async def main() -> None:
            with agenttrace.bind(conversation_id="c-17"), agenttrace.span("request"):
                agenttrace.background(nothing(), name="job")
            die()

        asyncio.run(main())

    recovered = kill_and_recover(work)

    assert ending(recovered, "request") == ("ok", "return")
    assert ending(recovered, "job") == ("lost", "recovery")
    job = recovered.span("job")
    assert job.parent_id is None
    assert job.linked == [recovered.span("request")]
    assert job.attributes["gen_ai.conversation.id"] == "c-17"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_what_is_topmost_in_a_killed_process_says_whose_conversation_it_was() -> None:
    """Nobody above it does: a job that nothing started, a run, one that goes on."""

    def work(die: Callable[[], NoReturn]) -> None:
        async def main() -> None:
            sent = {"traceparent": f"00-{7:032x}-{7:016x}-01"}
            with agenttrace.bind(conversation_id="c-17"):
                agenttrace.background(nothing(), name="job")
                with agenttrace.continue_trace(sent), agenttrace.span("goes on"):
                    pass_on = agenttrace.carrier()
                    with agenttrace.continue_trace(pass_on, run="delivery"):
                        die()

        asyncio.run(main())

    recovered = kill_and_recover(work)

    assert recovered.span("job").linked == []
    assert recovered.span("goes on").parent_id == f"{7:016x}"
    assert recovered.span("delivery").linked == [recovered.span("goes on")]
    for name in ("job", "goes on", "delivery"):
        assert ending(recovered, name) == ("lost", "recovery")
        attributes = recovered.span(name).attributes
        assert attributes["gen_ai.conversation.id"] == "c-17", name


@pytest.mark.asyncio
async def test_a_job_keeps_what_is_bound_and_has_children_of_its_own(
    agenttrace_spans: CapturedSpans,
) -> None:
    """It is of the same conversation, in another trace."""

    async def work() -> None:
        with agenttrace.span("step"):
            await asyncio.sleep(0)

    with agenttrace.bind(conversation_id="c-17"), agenttrace.span("request"):
        task = agenttrace.background(work(), name="job")
    await task

    agenttrace_spans.assert_tree("""
        request
        job
          step
    """)
    told = {span.attributes["gen_ai.conversation.id"] for span in agenttrace_spans}
    assert told == {"c-17"}


@pytest.mark.asyncio
async def test_a_callback_of_progress_is_a_heartbeat_wherever_it_is_called(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A library calls it from a thread of its own, in which nothing is current."""
    seen: list[tuple[str | None, float | None]] = []

    def download(on_progress: Callable[..., None]) -> None:
        on_progress("half", progress=0.5)

    async def work() -> None:
        on_progress = agenttrace.carry(agenttrace.heartbeat)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, download, on_progress)
        [job] = agenttrace.open_spans()
        seen.append((job.note, job.progress))

    await agenttrace.background(work(), name="job")

    assert seen == [("half", 0.5)]
    assert ending(agenttrace_spans, "job") == ("ok", "return")


@pytest.mark.asyncio
async def test_a_job_of_a_coroutine_that_is_no_native_one_ends_when_it_does(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Those of compiled modules have types of their own."""

    class Compiled(Coroutine[Any, Any, str]):
        """A coroutine by its methods alone."""

        def __init__(self) -> None:
            self._native = nothing()

        def __await__(self) -> Generator[Any, Any, str]:
            return self._native.__await__()

        def send(self, value: object, /) -> Any:  # noqa: ANN401 - what it awaits
            return self._native.send(value)

        def throw(self, *error: Any) -> Any:  # noqa: ANN401 - the same
            return self._native.throw(*error)

        def close(self) -> None:
            self._native.close()

    assert await agenttrace.background(Compiled(), name="job") == "done"

    assert ending(agenttrace_spans, "job") == ("ok", "return")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="they are no coroutines")
@pytest.mark.asyncio
async def test_a_job_of_a_generator_that_is_a_coroutine_ends_when_it_does(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Of `types.coroutine`; asyncio takes it where it takes generators."""

    @types.coroutine
    def of_old() -> Generator[None, None, str]:
        yield
        return "done"

    coro: Any = of_old()
    assert await agenttrace.background(coro, name="job") == "done"

    assert ending(agenttrace_spans, "job") == ("ok", "return")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
def test_a_job_of_a_loop_that_starts_tasks_eagerly_is_told_the_same(
    agenttrace_spans: CapturedSpans,
) -> None:
    """Its first step runs before `background` returns, and leaves nothing current."""

    async def main() -> None:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)
        with agenttrace.span("request") as request:
            task = agenttrace.background(nothing(), name="job")
            assert trace.get_current_span() is request
        assert await task == "done"

    asyncio.run(main())

    assert ending(agenttrace_spans, "job") == ("ok", "return")
    assert agenttrace_spans.span("job").parent is None


@pytest.mark.asyncio
async def test_a_task_that_cannot_be_made_leaves_nothing_open(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The error is the loop's own, and nothing warns of what was never awaited."""

    def refuse(*_: object, **__: object) -> Any:  # noqa: ANN401 - it returns nothing
        raise PermissionError

    loop = asyncio.get_running_loop()
    loop.set_task_factory(refuse)
    try:
        with pytest.raises(PermissionError):
            agenttrace.background(nothing(), name="job")
    finally:
        loop.set_task_factory(None)

    assert ending(agenttrace_spans, "job") == ("error", "exception")


def test_what_is_no_coroutine_is_refused(agenttrace_spans: CapturedSpans) -> None:
    """As `create_task` does; a span of it would say that it was done."""
    with pytest.raises(TypeError, match="a coroutine was expected, not function"):
        agenttrace.background(nothing, name="job")  # type: ignore[arg-type]  # that it is wrong is the point

    assert isinstance(nothing, types.FunctionType)
    assert len(agenttrace_spans) == 0
