"""A library starts and ends its spans by itself; what it gets in their place."""

from __future__ import annotations

import asyncio
import os
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace

import agenttrace
from agenttrace import semconv
from agenttrace.boundary import owned
from agenttrace.boundary.pending import Pending, pending
from agenttrace.boundary.recorder import Progress
from agenttrace.boundary.shared import call_in
from agenttrace.model import NO_ATTRIBUTES, Opening
from agenttrace.testing.garbage import collect_garbage

if TYPE_CHECKING:
    from agenttrace.model import Attributes
    from tests.instrumentation.given import Spans


class Recorder:
    """Reads a call whose streams say "last" before they end."""

    def request(self) -> Opening:
        return Opening("asked", semconv.CHAT, attributes={"server.port": 80})

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - any
        return Progress.FINAL if item == "last" else Progress.PROGRESS

    def result(self, value: Any, /) -> Attributes:  # noqa: ANN401, ARG002 - any
        return NO_ATTRIBUTES

    def facts(self) -> Attributes:
        return NO_ATTRIBUTES

    def claims(self, call: Any, value: Any, /) -> bool:  # noqa: ANN401 - a stream
        if isinstance(value, Stream):
            call.follow(value)
        return isinstance(value, Stream)


class Stream:
    """The library's: its span ends with it."""

    def __init__(self, span: trace.Span, *items: str) -> None:
        self._items = iter(items)
        self._span = span

    def __aiter__(self) -> Stream:
        return self

    def __anext__(self) -> Any:  # noqa: ANN401 - a coroutine
        return owned.pulls(self, self._pull(), reads=True)

    async def _pull(self) -> str:
        for item in self._items:
            return item
        self._span.end()
        raise StopAsyncIteration

    def close(self) -> None:
        self._span.end()


def tracer() -> trace.Tracer:
    return owned.tracer_here(trace.get_tracer("library"))


def stream(*items: str) -> Stream:
    return Stream(tracer().start_span("chat m"), *items)


def call_here(*, offers: bool = False) -> owned.OwnedCall:
    return owned.OwnedCall(Recorder(), otel.get_current(), offers=offers)


def asks_with_its_client() -> None:
    """Ask as a library does whose client is traced as well."""
    with trace.use_span(tracer().start_span("chat m"), end_on_exit=True):
        asked = call_in(otel.get_current(), Recorder(), semconv.CHAT)
        asked.run(int, (), {})


def test_a_client_goes_on_in_the_span_that_it_is_offered(spans: Spans) -> None:
    """The call is one span, and has what the client alone knows."""
    call_here(offers=True).run(asks_with_its_client, (), {})

    [found] = spans.all()
    assert (found.attributes or {})["server.port"] == 80
    assert spans.named("asked").ending == ("ok", "return")


def test_a_background_stream_that_is_left_after_its_last_word_is_over(
    spans: Spans,
) -> None:
    """Nobody polls for what has said that it is complete."""

    async def main() -> None:
        call = call_here()
        found = call.run(stream, ("one", "last"), {})
        call.pending = Pending(call)
        call.pending.keep("r1")
        async for item in found:
            if item == "last":
                break
        found.close()

    asyncio.run(main())

    assert spans.named("chat m").ending == ("ok", "return")
    assert pending("r1") is None
    assert not agenttrace.open_spans()


def test_a_tracer_that_was_kept_starts_spans_of_its_own(spans: Spans) -> None:
    """The call's is the first; its caller's is nobody's to end but the caller's."""
    kept: list[trace.Tracer] = []

    def library() -> None:
        kept.append(tracer())
        for name in ("chat m", "another"):
            kept[0].start_span(name).end()

    with trace.get_tracer("app").start_as_current_span("outer") as outer:
        call_here().run(library, (), {})
        kept[0].start_span("third").end()
        assert outer.is_recording()

    assert {span.name for span in spans.all()} == {
        "chat m",
        "another",
        "third",
        "outer",
    }


@pytest.mark.usefixtures("spans")
def test_a_pull_that_is_cancelled_before_it_begins_is_no_warning() -> None:
    """`wait_for` with no time left does so; the library's coroutine is then closed."""

    async def main() -> None:
        found = call_here().run(stream, ("one",), {})
        pull = asyncio.ensure_future(found.__anext__())
        pull.cancel()
        await asyncio.wait([pull])
        found.close()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
        collect_garbage()

    assert [str(each.message) for each in told if "awaited" in str(each.message)] == []


@pytest.mark.usefixtures("spans")
def test_a_poll_that_is_cancelled_before_it_begins_is_not_at_work() -> None:
    """It never comes to say so itself, and takes no span that is started later."""

    async def poll() -> None:
        raise AssertionError

    async def main() -> None:
        call = call_here()
        found = call.run(stream, ("one",), {})
        task = asyncio.ensure_future(call.run(poll, (), {}))
        task.cancel()
        await asyncio.wait([task])
        del task
        collect_garbage()
        assert not call.is_inside
        assert not call.wants_span
        found.close()

    asyncio.run(main())


def test_what_is_waited_for_under_a_name_that_is_taken_displaces_the_other(
    spans: Spans,
) -> None:
    """The one that nobody can find any more ends, and takes nobody along."""
    first, second = call_here(), call_here()
    for call in (first, second):
        call.run(stream, (), {})
        call.pending = Pending(call)
        call.pending.keep("r2")

    assert first.done
    assert pending("r2") is second.pending
    assert len(spans.all()) == 1
    assert second.pending is not None
    second.pending.let_go()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("spans")
def test_a_forked_child_waits_for_nothing() -> None:
    """A poll of the child's is its own, in no span that its parent will end."""
    waiting = Pending(call_here())
    waiting.keep("r3")

    child = os.fork()
    if child == 0:
        os._exit(0 if pending("r3") is None else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert pending("r3") is waiting
    waiting.over()


def test_the_span_of_a_call_that_is_over_is_no_longer_held(spans: Spans) -> None:
    """What it refers to would otherwise wait for the garbage collector."""
    call = call_here(offers=True)
    call.run(asks_with_its_client, (), {})
    late = call_in(call.context, Recorder(), semconv.CHAT)
    late.run(types.SimpleNamespace, (), {})

    assert len(spans.all()) == 2
