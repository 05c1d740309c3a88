"""The kit finds what is wrong with a run, says where, and finds nothing that is not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import agenttrace
from agenttrace.spans.lean import LeanSpan
from agenttrace.testing import capture_spans, conformance, examine, fresh_runtime
from agenttrace.testing.conforming import Promise
from agenttrace.testing.conforming.playing import evenly
from agenttrace.testing.conforming.subjects import (
    ASYNC,
    PLAIN,
    InjectedError,
    Interrupt,
    kind_of,
)
from agenttrace.testing.garbage import collect_garbage
from tests.testing.given import expected
from tests.testing.planted import BUGS, TREE, Desk, kept

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

WITHOUT_FORKS = ("forked", "killed")


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """Let go of what the mistakes have held on to."""
    yield
    kept.clear()


def test_a_careful_agent_keeps_every_promise() -> None:
    """A kit that cries wolf is switched off."""
    report = conformance(Desk().answer, tree=TREE)

    assert str(report) == (
        f"tests.testing.planted.Desk.answer keeps its promises in "
        f"{len(report.cases)} cases"
    )
    assert "it is cancelled at suspension 4 of 4" in report.cases
    assert "it is left after item 1 of 2 and dropped" in report.cases
    assert sys.platform == "win32" or "the process is killed in the middle" in (
        report.cases
    )


@pytest.mark.parametrize("bug", BUGS)
def test_every_planted_bug_is_found(bug: str) -> None:
    """A kit that finds nothing proves nothing."""
    report = examine(
        Desk(bug).answer, tree=TREE, patience=0.05, leave_out=WITHOUT_FORKS
    )

    assert BUGS[bug] in report.promises, str(report)


@agenttrace.tool
async def search(query: str) -> str:
    await asyncio.sleep(0)
    return query


@agenttrace.agent
async def stream() -> AsyncGenerator[str]:
    for word in ("sunny", "warm", "dry"):
        await search(word)
        with agenttrace.span("think"):
            await asyncio.sleep(0)
            yield word


@agenttrace.agent
async def fan_out() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(search(word)) for word in "abc"]
    return [*await asyncio.gather(search("d")), *(task.result() for task in tasks)]


@agenttrace.agent
async def retrying() -> str:
    for _ in range(2):
        with contextlib.suppress(Exception):
            return await search("again")
    return "nothing"


@agenttrace.agent
async def in_thread() -> str:
    return await asyncio.to_thread(call)


@agenttrace.agent
async def limited() -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            await search("in time")
    return "done"


@agenttrace.agent
async def reading_another() -> AsyncGenerator[str]:
    async with contextlib.aclosing(stream()) as words:
        async for word in words:
            yield word


async def handing_over() -> AsyncGenerator[str]:
    with agenttrace.span("prepare"):
        await asyncio.sleep(0)
    return stream()


@contextlib.asynccontextmanager
async def entered() -> AsyncGenerator[AsyncGenerator[str]]:
    async with contextlib.aclosing(stream()) as words:
        yield words


@agenttrace.agent
def words() -> Generator[str]:
    with agenttrace.span("look up"):
        yield from ("sunny", "warm", "dry")


@agenttrace.agent
def call() -> str:
    with agenttrace.span("look up"):
        return "sunny"


@pytest.mark.parametrize(
    "factory",
    [
        stream,
        fan_out,
        retrying,
        in_thread,
        limited,
        reading_another,
        handing_over,
        entered,
        words,
        call,
        functools.partial(search, "sunny"),
        lambda: search("sunny"),
    ],
)
def test_decorated_runs_of_every_shape_keep_every_promise(
    factory: Callable[[], Any],
) -> None:
    """Properties D, T, R and C, for what our users write."""
    assert examine(factory, leave_out=WITHOUT_FORKS).broken == []


class Session:
    """A context manager whose span ends with its block, and not with what is read."""

    def __enter__(self) -> Iterator[str]:
        self.span = trace.get_tracer("careful").start_span("session")
        return filter(None, ("sunny", "warm", "dry"))  # no generator: it has no close()

    def __exit__(self, *_: object) -> None:
        self.span.end()


class AsyncSession:
    """The same on an event loop."""

    async def __aenter__(self) -> Words:
        await asyncio.sleep(0)
        self.span = trace.get_tracer("careful").start_span("session")
        return Words()

    async def __aexit__(self, *_: object) -> None:
        self.span.end()
        await asyncio.sleep(0)


class Words:
    """A stream that cannot be closed."""

    def __init__(self) -> None:
        self.words = iter(("sunny", "warm", "dry"))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        for word in self.words:
            return word
        raise StopAsyncIteration


@contextlib.contextmanager
def block() -> Generator[Iterator[str]]:
    with agenttrace.span("session"):
        yield iter(("sunny", "warm", "dry"))


@contextlib.asynccontextmanager
async def async_block() -> AsyncGenerator[Words]:
    with agenttrace.span("session"):
        yield Words()


@contextlib.asynccontextmanager
async def block_of_a_value() -> AsyncGenerator[str]:
    with agenttrace.span("session"):
        await asyncio.sleep(0)
        yield "sunny"


@pytest.mark.parametrize(
    "factory", [Session, AsyncSession, block, async_block, block_of_a_value]
)
def test_the_block_of_a_context_manager_is_left_as_who_reads_it_does(
    factory: Callable[[], Any],
) -> None:
    """Its span ends at the exit, and in the block it may be current."""
    report = examine(factory)

    assert str(report) == (
        f"{report.name} keeps its promises in {len(report.cases)} cases"
    )


class Lines:
    """A run that can be iterated, and is no iterator."""

    @agenttrace.agent
    def __iter__(self) -> Iterator[str]:
        yield from ("sunny", "warm", "dry")


class LinesInBlock:
    """The same, read in a block that returns it as files do; its exit ends the span."""

    def __enter__(self) -> Self:
        self.span = trace.get_tracer("careful").start_span("lines")
        return self

    @agenttrace.traced
    def __iter__(self) -> Iterator[str]:
        yield from ("sunny", "warm", "dry")

    def __exit__(self, *_: object) -> None:
        self.span.end()


class Opened:
    """A value that is got in a block, which returns it: it is not read at all."""

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        self.span = trace.get_tracer("careful").start_span("opened")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.span.end()


async def lines_later() -> Lines:
    await asyncio.sleep(0)
    return Lines()


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (Lines, "it is left after item 3 of 3 and dropped"),
        (lines_later, "it is left after item 3 of 3 and dropped"),
        (LinesInBlock, "it is left after item 3 of 3 and dropped"),
        (Opened, "it is cancelled at suspension 1 of 1"),
    ],
)
def test_what_can_be_iterated_is_read_whoever_returns_it(
    factory: Callable[[], Any], case: str
) -> None:
    """It was taken for a value: its spans never began, or its block had no end."""
    report = examine(factory)

    assert report.broken == [], str(report)
    assert case in report.cases


def test_what_can_be_iterated_and_leaks_is_found() -> None:
    """A `for` that is left closes nothing, and who holds on to the iterator neither."""

    class Leaking:
        def __iter__(self) -> Iterator[str]:
            span = kept_span("read")
            yield from ("sunny", "warm", "dry")
            span.end()

    report = examine(Leaking, patience=0.05, leave_out=WITHOUT_FORKS)

    assert report.promises == [Promise.CLOSED]
    assert "it is left after item 2 of 3 and closed" in {
        each.case for each in report.broken
    }


class Fields:
    """A value that can be iterated, as a pydantic model can; it has no end, even."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


@agenttrace.agent
def fields() -> Fields:
    return Fields()


@agenttrace.agent
async def fields_later() -> Fields:
    await asyncio.sleep(0)
    return Fields()


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (fields, "it is called in another thread"),
        (fields_later, "it is awaited in another task"),
    ],
)
def test_a_value_that_can_be_iterated_is_a_value(
    factory: Callable[[], Any], case: str
) -> None:
    """No span begins or ends by reading it, so nobody can leave it in the middle."""
    report = examine(factory, leave_out=WITHOUT_FORKS)

    assert report.broken == [], str(report)
    assert case in report.cases
    assert not [case for case in report.cases if "item" in case]


class Answer:
    """It is closed itself, and what iterates it cannot be."""

    def __init__(self) -> None:
        self.span = trace.get_tracer("careful").start_span("answer")

    async def aclose(self) -> None:
        if self.span.is_recording():
            self.span.set_attribute("agenttrace.outcome", "abandoned")
            self.span.end()

    def __aiter__(self) -> AnswerWords:
        return AnswerWords(self)


class AnswerWords(Words):
    """Reads an answer, whose span ends with it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    async def __anext__(self) -> str:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            self.answer.span.end()
            raise


def test_a_run_is_closed_itself_and_not_only_what_iterates_it() -> None:
    """The report said that it leaves its span open, and nobody had closed it."""
    report = examine(Answer, leave_out=["suspension", *WITHOUT_FORKS])

    open_when = {each.case for each in report.broken if each.promise is Promise.CLOSED}
    assert not {case for case in open_when if "close" in case}, str(report)
    assert "it is left after item 1 of 3 and closed" in report.cases


class Unlucky(AsyncSession):
    """It begins with something that can be cancelled, and nobody exits it then."""

    async def __aenter__(self) -> Words:
        self.span = kept_span("session")
        await asyncio.sleep(0)
        return Words()


class Forgetful(Session):
    """Its exit ends the span only when all went well."""

    def __enter__(self) -> Iterator[str]:
        words = super().__enter__()
        kept.append(self.span)
        return words

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self.span.end()


def kept_span(name: str) -> trace.Span:
    span = trace.get_tracer("bad").start_span(name)
    kept.append(span)
    return span


class Attaching(Session):
    """What it makes current in its block stays so after it."""

    def __enter__(self) -> Iterator[str]:
        words = super().__enter__()
        otel.attach(trace.set_span_in_context(self.span))
        return words


@pytest.mark.parametrize(
    ("factory", "promise", "case"),
    [
        (Unlucky, Promise.CLOSED, "it is cancelled at suspension 1 of 6"),
        (Forgetful, Promise.CLOSED, "its consumer raises"),
        (Attaching, Promise.CURRENT, "nothing happens to it"),
    ],
)
def test_what_is_wrong_with_context_managers_is_found(
    factory: Callable[[], Any], promise: Promise, case: str
) -> None:
    """The block is where a stream is left, and its exit is what is forgotten."""
    report = examine(factory, patience=0.05, leave_out=WITHOUT_FORKS)

    assert (promise, case) in {(each.promise, each.case) for each in report.broken}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_run_with_a_single_suspension_has_a_middle() -> None:
    """It was over before its process was forked or killed, and so proved nothing."""
    report = examine(functools.partial(search, "sunny"), leave_out=["it is", "two"])

    assert report.skipped == []
    assert report.cases[-3:] == [
        "its event loop is closed in the middle",
        "the process is forked in the middle",
        "the process is killed in the middle",
    ]


def test_what_is_left_open_is_not_blamed_for_how_it_ended() -> None:
    """The kit ended it, so that no later case finds it; the report blamed the run."""

    async def run() -> None:
        span = kept_span("look up")
        await asyncio.sleep(0)
        span.end()

    report = examine(run, patience=0.05, leave_out=WITHOUT_FORKS)

    assert "its time is over at suspension 1 of 1" in {
        each.case for each in report.broken
    }
    assert report.promises == [Promise.CLOSED]


def test_what_ends_in_a_later_case_is_not_blamed_on_that() -> None:
    """The report named a span that no source has, in a case that did nothing wrong."""

    def run() -> Generator[str]:
        while kept:
            kept.pop().end()
        span = kept_span("read")
        yield from ("sunny", "warm")
        kept.remove(span)
        span.end()

    report = examine(run, patience=0.05, leave_out=[*WITHOUT_FORKS, "two"])

    assert "it is left after item 1 of 2 and closed" in {
        each.case for each in report.broken
    }
    assert report.promises == [Promise.CLOSED], str(report)


class Reader:
    """A stream of somebody's own make, whose close() ends the span without a word."""

    def __init__(self) -> None:
        self.span = trace.get_tracer("bad").start_span("read")
        self.words = iter(("sunny", "warm"))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for word in self.words:
            return word
        self.close()
        raise StopIteration

    def close(self) -> None:
        if self.span.is_recording():
            self.span.end()


def test_a_stream_that_was_left_and_says_ok_is_told_what_says_more() -> None:
    """OpenTelemetry's span has no word for it, so the reader has to be told another."""
    report = examine(Reader, leave_out=WITHOUT_FORKS)

    assert report.promises == [Promise.TRUTH]
    assert report.broken[0].what == (
        "'read' says that it was ok: it was abandoned\n"
        "end() says so unless an exception is on its way: a decorated generator hears "
        "how it is left"
    )


def test_a_tree_may_say_all_that_a_tree_can() -> None:
    """Its facts were those of a drawing, so that nothing else was ever true."""

    @agenttrace.agent
    def run() -> str:
        span = trace.get_current_span()
        span.set_attribute("gen_ai.usage.output_tokens", 3)
        return "sunny"

    facts = "output_tokens=3 ended_by=return duration<60"
    right = examine(run, tree=f"invoke_agent *: {facts}")
    wrong = examine(run, tree="invoke_agent *: output_tokens=4")

    assert right.broken == [], str(right)
    assert wrong.promises == [Promise.TREE]


def test_each_case_is_logged_as_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    """One that hangs its test is the last of them."""
    with caplog.at_level(logging.INFO, "agenttrace.testing"):
        report = examine(call, name="call")

    assert [*dict.fromkeys(caplog.messages)] == [
        f"call: when {case}" for case in report.cases
    ]


@agenttrace.agent
def returning() -> Generator[str]:
    try:
        yield "sunny"
    except Exception:  # noqa: BLE001 - whatever is thrown in
        return


@agenttrace.agent
async def returning_async() -> AsyncGenerator[str]:
    try:
        yield "sunny"
    except Exception:  # noqa: BLE001 - whatever is thrown in
        return


@agenttrace.agent
def translating() -> Generator[str]:
    try:
        yield "sunny"
    except Exception:  # noqa: BLE001 - whatever is thrown in
        raise TimeoutError from None


@agenttrace.agent
async def translating_async() -> AsyncGenerator[str]:
    try:
        yield "sunny"
    except Exception:  # noqa: BLE001 - whatever is thrown in
        raise TimeoutError from None


@pytest.mark.parametrize(
    "factory", [returning, returning_async, translating, translating_async]
)
def test_what_is_thrown_in_may_be_handled_or_made_into_another(
    factory: Callable[[], Any],
) -> None:
    """Which of it is right is for the application to say."""
    assert examine(factory, leave_out=WITHOUT_FORKS).broken == []


def test_ctrl_c_comes_out_of_an_examination() -> None:
    """Whoever presses it wants the tests to end, not a report."""

    @agenttrace.agent
    def run() -> Generator[str]:
        try:
            yield "sunny"
        except InjectedError:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        examine(run, leave_out=WITHOUT_FORKS)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("factory", [fan_out, words])
def test_runs_of_every_shape_survive_the_end_of_their_process(
    factory: Callable[[], Any],
) -> None:
    """A coroutine and a plain generator; the agent above is an asynchronous one."""
    report = examine(factory, leave_out=["it is", "every", "two", "thread"])

    assert (
        str(report) == f"{report.name} keeps its promises in {len(report.cases)} cases"
    )
    assert report.cases[-2:] == [
        "the process is forked in the middle",
        "the process is killed in the middle",
    ]


class Listed:
    """A stream of somebody's own make, which is done before it is read."""

    def __init__(self) -> None:
        with agenttrace.span("look up"):
            self.words = iter(("sunny", "warm"))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self.words)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_run_that_has_nothing_open_in_the_middle_loses_nothing() -> None:
    """What had ended is told by then, and there is nothing to recover."""
    report = examine(Listed, leave_out=["it is", "every", "two", "thread", "forked"])

    assert report.broken == []
    assert report.skipped == [
        "the process is killed in the middle: it has no span open in the middle"
    ]


class Proxy:
    """What a library puts around a stream of either kind, with the methods of both."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - of either kind
        self.__wrapped__ = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        return next(self.__wrapped__)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        return await anext(self.__wrapped__)


@pytest.mark.parametrize(("made", "kind"), [(words, PLAIN), (stream, ASYNC)])
def test_a_proxy_is_read_as_what_it_stands_for(
    made: Callable[[], Any], kind: str
) -> None:
    """Its methods promise both; the stream behind it can do one."""
    assert kind_of(lambda: Proxy(made())) == kind


class Crashing:
    """Its last resort is none, in a forked process, which lets go of it."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __enter__(self) -> Listed:
        return Listed()

    def __exit__(self, *_: object) -> None:
        pass

    def __del__(self) -> None:
        if os.getpid() != self.pid:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_process_that_crashes_is_found() -> None:
    """It tells no span twice, and leaves none open, because it is dead."""
    report = examine(Crashing, leave_out=["it is", "every", "two", "thread", "killed"])

    assert [each.what for each in report.broken] == [
        "the child process ends with status -9"
    ]


def keep(generator: Generator[str]) -> Generator[str]:
    kept.append(generator)
    return generator


def left_current() -> Generator[str]:
    with trace.get_tracer("bad").start_as_current_span("look up"):
        yield from ("sunny", "warm")


def unclosed() -> Generator[str]:
    inner = keep(words())
    yield next(inner)
    yield "warm"


@agenttrace.agent
def swallowing() -> Generator[str]:
    with agenttrace.span("look up"):
        for word in ("sunny", "warm"):
            with contextlib.suppress(BaseException):
                yield word


def attached() -> str:
    span = trace.get_tracer("bad").start_span("look up")
    otel.attach(trace.set_span_in_context(span))
    span.end()
    return "sunny"


@pytest.mark.parametrize(
    ("factory", "promise"),
    [
        (left_current, Promise.CURRENT),
        (unclosed, Promise.CLOSED),
        (swallowing, Promise.THROUGH),
        (attached, Promise.CURRENT),
        (lambda: None, Promise.TRACED),
    ],
)
def test_what_is_wrong_with_plain_runs_is_found(
    factory: Callable[[], Any], promise: Promise
) -> None:
    """Half of the world's agents have no event loop."""
    report = examine(factory, patience=0.05, leave_out=WITHOUT_FORKS)

    assert promise in report.promises, str(report)


def test_what_a_run_leaves_current_is_gone_after_its_examination() -> None:
    """The next test would have it for a parent."""
    with fresh_runtime():
        report = examine(attached, patience=0.05, leave_out=WITHOUT_FORKS)

        assert Promise.CURRENT in report.promises
        assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_plain_run_that_fails_at_once_is_reported_like_any_other() -> None:
    """It is called before the first case, to see what it returns."""

    @agenttrace.agent
    def run() -> None:
        raise LookupError

    report = examine(run)

    assert [each.what for each in report.broken] == [
        "LookupError() comes out of the run"
    ]


async def unmoved() -> None:
    with contextlib.suppress(asyncio.CancelledError), agenttrace.span("look up"):
        await asyncio.sleep(0)  # where
    await asyncio.sleep(0)


def test_the_report_says_which_promise_broke_when_and_where() -> None:
    """The message is the product."""
    with pytest.raises(AssertionError) as told:
        conformance(unmoved, leave_out=["forked", "killed", "event loop", "time"])

    here = "tests/testing/test_conforming.py"
    line = unmoved.__code__.co_firstlineno + 2
    assert str(told.value) == expected(f"""
        tests.testing.test_conforming.unmoved breaks 1 promise, in 1 of 11 cases

        the run behaves as it would without spans
          when it is cancelled at suspension 1 of 2
              in unmoved ({here}:{line})
                  await asyncio.sleep(0)  # where
            the cancellation is lost: the run goes on, and returns
    """)


def test_a_run_that_fails_by_itself_is_not_put_through_more() -> None:
    """All its cases would break, and none of them would say why."""

    async def run() -> None:
        message = "no such model"
        raise LookupError(message)

    report = examine(run)

    assert report.cases == ["nothing happens to it"]
    assert [each.what for each in report.broken] == [
        "LookupError('no such model') comes out of the run"
    ]


def test_a_tree_that_differs_each_time_is_not_compared() -> None:
    """A model answers one thing today and another tomorrow."""
    numbers = iter(range(1_000))

    @agenttrace.agent
    async def run() -> None:
        with agenttrace.span(f"step {next(numbers)}"):
            await asyncio.sleep(0)

    report = examine(run, leave_out=WITHOUT_FORKS)

    assert report.broken == []
    assert report.skipped == [
        "to compare trees: they differ from run to run, undisturbed"
    ]
    assert str(report).endswith(
        "\n\nnot tried: to compare trees: they differ from run to run, undisturbed"
    )


async def wait() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    tell = loop.call_soon(answer.set_result, None)
    try:
        await answer
    finally:
        tell.cancel()


def test_a_wait_of_the_applications_own_is_no_join() -> None:
    """Whatever goes wrong outside comes up there, whatever asyncio calls its own."""

    async def run() -> None:
        with agenttrace.span("look up"), contextlib.suppress(Interrupt):
            await wait()

    report = examine(run, leave_out=WITHOUT_FORKS)

    assert [each.what for each in report.broken] == [
        "a BaseException is lost: the run goes on, and returns"
    ]


def test_one_word_leaves_out_what_it_stands_in() -> None:
    """Taken for its letters, it would leave out nearly everything."""
    assert examine(words, leave_out="process").cases == [
        case
        for case in examine(words, leave_out=WITHOUT_FORKS).cases
        if "process" not in case
    ]


def test_a_run_that_takes_no_cancellation_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of its event loop would wait for ever."""
    monkeypatch.setattr("agenttrace.testing.conforming.stage._HANG", 0.05)
    ended: list[str] = []

    async def run() -> None:
        at_last = asyncio.Event()
        asyncio.get_running_loop().call_later(30, at_last.set)
        with agenttrace.span("look up"):
            while not at_last.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await at_last.wait()
        ended.append("run")

    report = examine(run, patience=0.05)

    assert report.broken[0].what == "it has not come to an end in 0.05 s"
    assert ended == []
    collect_garbage()  # its span is told late, and here


def test_spans_of_a_thread_that_was_there_before_are_left_alone() -> None:
    """A test suite has servers and workers, and they have spans of their own."""
    wanted, begun, enough = (threading.Event() for _ in range(3))

    def work() -> None:
        wanted.wait()
        with agenttrace.span("theirs"):
            begun.set()
            enough.wait()

    async def run() -> None:
        with agenttrace.span("look up"):
            wanted.set()
            begun.wait()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    with capture_spans() as spans:
        report = examine(run, patience=0.05)
        enough.set()
        worker.join()

    assert report.broken == []
    assert spans.span("theirs").outcome == "ok"


def test_examinations_in_threads_leave_nothing_in_place() -> None:
    """What was put round the methods of spans would stay there for ever."""
    begun, over = threading.Event(), threading.Event()

    async def first() -> None:
        other.start()
        begun.wait(0.2)  # in vain: the other one has to wait for its turn
        raise LookupError

    async def second() -> None:
        begun.set()
        over.wait()
        raise LookupError

    before = LeanSpan.end
    other = threading.Thread(target=examine, args=(second,))
    one = threading.Thread(target=examine, args=(first,))
    one.start()
    one.join()
    over.set()
    other.join()

    assert LeanSpan.end is before


def test_the_ends_are_always_among_the_points() -> None:
    """The first and the last suspension are where clean-up goes wrong."""
    assert evenly(0, 5) == []
    assert evenly(1_000, 3) == [1, 500, 1_000] or evenly(1_000, 3)[::2] == [1, 1_000]
    assert evenly(7, 1) == [1]


def test_what_is_examined_leaves_nothing_behind(
    agenttrace_spans: Any,  # noqa: ANN401 - the fixture
) -> None:
    """What it finds open it has told: no later test is to find it again."""
    examine(unclosed, patience=0.05, leave_out=WITHOUT_FORKS)

    agenttrace_spans.assert_all_closed()


def test_spans_of_another_provider_are_held_to_the_same() -> None:
    """Applications that have an OpenTelemetry of their own leak as well."""
    provider = TracerProvider()
    tracer = provider.get_tracer("theirs")

    async def run(ends: int) -> None:
        with tracer.start_as_current_span("look up") as span:
            await asyncio.sleep(0)
            for _ in range(ends):
                span.end()

    with fresh_runtime(tracer_provider=provider):
        good = examine(functools.partial(run, 0))
        bad = examine(functools.partial(run, 1), leave_out=WITHOUT_FORKS)

    assert good.broken == []
    assert bad.promises[0] is Promise.ONCE
    assert not hasattr(os, "fork") or good.skipped[-1].startswith(
        "the process is killed in the middle: the application has a tracer provider"
    )
