"""Tasks that wait for one another, or for what never comes, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import context as otel

import agenttrace
from agenttrace.watchdog.chains import chain_of, waiter_of
from agenttrace.watchdog.investigation import Investigation
from agenttrace.watchdog.tasks import Search, Standing, all_tasks, variable
from tests.watchdog.hangs import LOOPS, hang_of, open_span, report_on, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenttrace.watchdog.finding import Finding

pytestmark = pytest.mark.usefixtures("traced")

Factory = Any


async def waits_for_an_event() -> None:
    await asyncio.Event().wait()


async def in_gather() -> None:
    await asyncio.gather(asyncio.sleep(0), waits_for_an_event())


async def in_wait() -> None:
    await asyncio.wait([asyncio.create_task(waits_for_an_event())])


async def in_wait_for() -> None:
    await asyncio.wait_for(waits_for_an_event(), 1000)


async def in_shield() -> None:
    await asyncio.shield(asyncio.create_task(waits_for_an_event()))


async def in_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(waits_for_an_event())


async def in_task_group_of_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(waits_for_an_event)


async def in_as_completed() -> None:
    for each in asyncio.as_completed([waits_for_an_event()]):
        await each


async def in_task() -> None:
    await asyncio.create_task(waits_for_an_event())


async def in_all_of_them() -> None:
    await asyncio.gather(asyncio.shield(asyncio.create_task(in_task_group())))


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize(
    "way",
    [
        in_gather,
        in_wait,
        in_wait_for,
        in_shield,
        in_task_group,
        in_task_group_of_anyio,
        in_as_completed,
        in_task,
        in_all_of_them,
    ],
)
def test_a_child_task_is_found_however_it_is_waited_for(
    way: Callable[[], Any], factory: Factory
) -> None:
    """What hangs is not the one that waits but the one that is waited for."""

    async def waits() -> None:
        with agenttrace.span("outer"):
            await way()

    with running(waits, factory):
        report = hang_of("outer", "awaiting_nothing", "waits_for_an_event")

    assert report.links[0].frames[0].function.endswith("waits")
    assert len(report.links) > 1 or way is in_wait_for


@pytest.mark.parametrize("factory", LOOPS)
def test_tasks_that_wait_for_each_other_are_said_to_do_so(factory: Factory) -> None:
    """Each of them alone only waits for a task: together they are a deadlock."""
    tasks: list[asyncio.Task[None]] = []

    async def waits_for_second() -> None:
        await tasks[1]

    async def waits_for_first() -> None:
        # Not `await`: asyncio could not cancel two tasks that do that.
        await asyncio.wait(tasks[:1])

    async def main() -> None:
        with agenttrace.span("pair"):
            each = (waits_for_second(), waits_for_first())
            tasks.extend(asyncio.create_task(one) for one in each)
            await asyncio.wait(tasks[:1])

    with running(main, factory):
        report = hang_of("pair", "subtask", "waits_for_first")

    assert [link.kind for link in report.links] == ["task", "task", "task"]
    assert "waits for a task that waits for it" in report.why


def test_a_task_that_yields_for_ever_polls() -> None:
    """It is never seen waiting, and has not stopped: it does not get any further."""

    async def yields() -> None:
        with agenttrace.span("yield"):
            while True:  # noqa: ASYNC110 - what is tested
                await asyncio.sleep(0)

    with running(yields):
        report = hang_of("yield", "sleep", "yields")

    assert [link.kind for link in report.links] == ["task"]


def test_a_poll_with_a_pause_is_not_told_as_one_without() -> None:
    """Its pause may be over by the time of the look, and the next one is to come."""

    async def polls() -> None:
        while True:  # noqa: ASYNC110 - what is tested
            await asyncio.sleep(0.01)

    async def main() -> Finding:
        task = asyncio.create_task(polls())
        await asyncio.sleep(0)
        pause = waiter_of(task)
        while not pause.done():  # noqa: ASYNC110 - in one turn with the timer
            await asyncio.sleep(0)
        return Investigation().task(task)

    found = asyncio.run(main())

    assert (found.cause, found.why) == ("sleep", "it waits for a time to pass")


def test_a_sleep_without_an_end_is_not_told_as_time_that_passes() -> None:
    """It is how anyio waits for a cancellation that never comes."""

    async def sleeps() -> None:
        with agenttrace.span("sleep"):
            await anyio.sleep_forever()

    with running(sleeps):
        report = hang_of("sleep", "awaiting_nothing", "sleeps")

    assert "the end of a sleep that has none" in report.why


def test_work_that_is_handed_over_by_a_queue_is_followed() -> None:
    """The Agents SDK streams like this: a queue does not tell who is to fill it."""

    async def produces(lock: asyncio.Lock, queue: asyncio.Queue[str]) -> None:
        async with lock:
            await queue.put("never")

    async def streams() -> None:
        lock, queue = asyncio.Lock(), asyncio.Queue[str]()
        await lock.acquire()
        with agenttrace.span("stream"):
            producer = asyncio.create_task(produces(lock, queue))
            await queue.get()
            await producer

    with running(streams):
        report = hang_of("stream", "lock", "produces")

    assert [link.kind for link in report.links] == ["task", "task"]


def test_a_step_of_a_decorated_generator_is_found() -> None:
    """Its span is current in its steps alone, and not in its consumer."""

    async def waits() -> None:
        await asyncio.Event().wait()

    @agenttrace.agent
    async def tokens() -> AsyncIterator[str]:
        yield "one"
        await waits()

    async def consumes() -> None:
        async for _ in tokens():
            pass

    with running(consumes):
        report = hang_of("invoke_agent tokens", "awaiting_nothing", "waits")

    assert report.certain
    assert [frame.function.rpartition(".")[2] for frame in report.links[0].frames] == [
        "consumes",
        "tokens",
        "waits",
        "wait",
    ]


def test_a_generator_in_a_generator_is_walked_through() -> None:
    """What lies between two generators has no name for what it awaits."""

    async def inner() -> AsyncIterator[int]:
        yield 1
        await asyncio.get_running_loop().create_future()

    async def outer() -> AsyncIterator[int]:
        async for item in inner():
            yield item

    async def consumes() -> None:
        with agenttrace.span("consume"):
            async for _ in outer():
                pass

    with running(consumes):
        report = hang_of("consume", "awaiting_nothing", "inner")

    assert "future that nobody is at work on" in report.why


def test_the_task_that_entered_the_span_is_told_and_not_those_it_started() -> None:
    """A thousand tasks inherit what is current where they are started."""

    async def idles() -> None:
        await asyncio.sleep(1000)

    async def owns() -> None:
        with agenttrace.span("batch"):
            idle = [asyncio.create_task(idles()) for _ in range(50)]
            await waits_for_an_event()
            await asyncio.gather(*idle)

    with running(owns):
        report = hang_of("batch", "awaiting_nothing", "waits_for_an_event")

    assert report.certain
    assert report.links[0].frames[0].function.endswith("owns")


def test_a_span_of_a_child_task_is_the_childs() -> None:
    """Both are current in the child; each is told where it was entered."""

    async def child() -> None:
        with agenttrace.span("below"):
            await waits_for_an_event()

    async def parent() -> None:
        with agenttrace.span("above"):
            await asyncio.create_task(child(), name="the child")

    with running(parent):
        below = hang_of("below", "awaiting_nothing", "waits_for_an_event")
        above = hang_of("above", "awaiting_nothing", "waits_for_an_event")

    assert [link.name.split(" (")[0] for link in below.links] == ["the child"]
    assert len(above.links) == 2
    assert above.links[1].name.startswith("the child")
    assert below.path == "above / below"


def test_work_below_a_span_that_has_ended_is_below_the_one_above_it() -> None:
    """A task that outlives the step it was started in may be what the run waits for."""
    holder = variable()
    assert holder is not None
    with agenttrace.span("run") as run:
        with agenttrace.span("step"):
            task = contextvars.copy_context()
        task.run(otel.get_current)  # which takes the scope of the step out of it

        number = run.get_span_context().span_id
        standing = Search(number.to_bytes(8, "big"), holder).standing(task)

    assert standing is Standing.INHERITED


def test_a_span_that_another_library_made_current_is_found() -> None:
    """Through OpenTelemetry's own functions, at a provider of ours."""
    from opentelemetry import trace  # noqa: PLC0415 - for this one

    async def foreign() -> None:
        span = trace.get_tracer("theirs").start_span("foreign")
        with trace.use_span(span, end_on_exit=True):
            await waits_for_an_event()

    with running(foreign):
        report = hang_of("foreign", "awaiting_nothing", "waits_for_an_event")

    assert report.certain


def test_a_span_that_is_current_nowhere_is_told_with_its_parents_task() -> None:
    """`start_span` makes nothing current: the report says that it has guessed."""
    from opentelemetry import trace  # noqa: PLC0415 - for this one

    async def starts() -> None:
        with agenttrace.span("parent"):
            child = trace.get_tracer("theirs").start_span("by hand")
            try:
                await waits_for_an_event()
            finally:
                child.end()

    with running(starts):
        report = hang_of("by hand", "awaiting_nothing", "waits_for_an_event")

    assert not report.certain


def test_a_sleep_is_told_as_one() -> None:
    """An agent that polls for ever sleeps most of the time."""

    async def polls() -> None:
        with agenttrace.span("poll"):
            for _ in range(1000):
                await asyncio.sleep(0.5)

    with running(polls):
        hang_of("poll", "sleep", "polls")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks became eager in 3.12")
def test_an_eager_task_is_found() -> None:
    """One that has waited already, and one that never had to."""

    async def hangs() -> None:
        with agenttrace.span("eager"):
            await waits_for_an_event()

    async def starts() -> None:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(hangs())

    with running(starts):
        report = hang_of("eager", "awaiting_nothing", "waits_for_an_event")

    assert report.certain


def test_a_span_that_is_left_open_is_said_to_be_that() -> None:
    """Nobody is at work on it, and nobody must be blamed."""
    from opentelemetry import trace  # noqa: PLC0415 - for this one

    left: list[trace.Span] = []
    go_on = asyncio.Event()

    async def leaves() -> None:
        left.append(trace.get_tracer("theirs").start_span("left"))
        await go_on.wait()

    with running(leaves):
        while open_span("left") is None:
            pass
        span = open_span("left")
        assert span is not None
        report = report_on(span)
    left[0].end()

    assert report.cause == "unknown"
    assert "left open" in report.why


LIBRARY = """
import asyncio

async def ask(span):
    with span:
        await asyncio.get_running_loop().create_future()

async def call(span):
    await asyncio.create_task(ask(span))
"""


def test_a_task_of_a_library_is_told_with_the_applications_line() -> None:
    """The library makes its request in a task of its own, where no line is ours."""
    library: dict[str, Any] = {}
    code = compile(LIBRARY, "/x/site-packages/agents/run.py", "exec")
    exec(code, library)  # noqa: S102 - of our own making

    async def runs() -> None:
        with agenttrace.span("run"):
            await library["call"](agenttrace.span("request"))

    with running(runs):
        report = hang_of("request", "awaiting_nothing", "runs")

    assert report.certain
    assert [link.kind for link in report.links] == ["task", "task"]


def test_a_span_that_is_current_nowhere_is_told_with_whoever_asked_for_it() -> None:
    """A background response has no task of its own: somebody polls for it."""
    from opentelemetry import trace  # noqa: PLC0415 - for this one

    async def polls(record: Any) -> None:  # noqa: ANN401 - a record
        record.attendant = weakref.ref(asyncio.current_task())
        await waits_for_an_event()

    async def starts() -> None:
        asked = trace.get_tracer("theirs").start_span("asked for")
        try:
            await asyncio.create_task(polls(open_span("asked for")), name="the poller")
        finally:
            asked.end()

    with running(starts):
        report = hang_of("asked for", "awaiting_nothing", "waits_for_an_event")

    assert not report.certain
    assert report.links[0].name.startswith("the poller")


class Lazy:
    """Does something expensive as soon as anybody looks at it, as Django's do."""

    def __init__(self, looked: list[str]) -> None:
        self.looked = looked

    @property  # type: ignore[misc]  # as Django has it
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]  # the same
        """Have to be made for this."""
        self.looked.append(threading.current_thread().name)
        return int


class Awaits:
    """Awaits a future by hand, with something lazy in its hands."""

    __slots__ = ("future", "lazy")

    def __init__(self, future: asyncio.Future[None], lazy: Lazy) -> None:
        self.lazy = lazy
        self.future = future

    def __await__(self) -> Awaits:
        return self

    def __iter__(self) -> Awaits:
        return self

    def __next__(self) -> asyncio.Future[None]:
        self.future._asyncio_future_blocking = True  # noqa: SLF001 - the protocol
        return self.future


def test_nothing_of_the_applications_is_called_for_a_report() -> None:
    """Some objects answer a question for their class by asking a database."""
    looked: list[str] = []

    async def hangs() -> None:
        awaits: Any = Awaits(asyncio.get_running_loop().create_future(), Lazy(looked))
        with agenttrace.span("lazy"):
            await awaits

    with running(hangs):
        hang_of("lazy", "awaiting_nothing", "hangs")
        found = [*looked]

    assert found == []


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.14 knows who awaits a task")
@pytest.mark.parametrize("factory", LOOPS)
def test_a_task_that_says_what_it_awaits_leads_there(factory: Factory) -> None:
    """Groups of other libraries need not be known one by one."""
    lock = asyncio.Lock()

    async def locked_out() -> None:
        async with lock:
            pass

    async def group(told: asyncio.Future[None]) -> None:
        task: Any = asyncio.create_task(locked_out())
        add: Any = vars(asyncio)["future_add_to_awaited_by"]
        add(task, asyncio.current_task())
        await told

    async def hangs() -> None:
        await lock.acquire()
        with agenttrace.span("group"):
            await group(asyncio.get_running_loop().create_future())

    with running(hangs, factory):
        report = hang_of("group", "lock", "locked_out")

    assert [link.kind for link in report.links] == ["task", "task"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio tells it from 3.14 on")
def test_a_chain_is_that_of_asyncios_own_call_graph() -> None:
    """The same report on every version; this is what to compare it with."""

    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        with agenttrace.span("outer"):
            await inner()

    with running(outer):
        hang_of("outer", "awaiting_nothing", "inner")
        (task,) = [each for each in all_tasks() if each.get_coro().__name__ == "outer"]  # type: ignore[union-attr]  # a coroutine
        capture: Any = vars(asyncio)["capture_call_graph"]
        theirs = [each.frame.f_code for each in capture(task).call_stack]
        ours = [code for code, _ in chain_of(task).lines]

    assert ours == theirs[::-1]
