"""A decorated function is taken for the original by whatever looks at it."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import weakref
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

import agenttrace
from agenttrace import semconv

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    Spans = Callable[[], list[ReadableSpan]]


@agenttrace.agent
def plain(a: int, *, b: str = "b") -> str:
    """Say a and b."""
    return f"{a}{b}"


@agenttrace.agent
async def coroutine(a: int) -> int:
    return a


@agenttrace.agent
def generator(a: int) -> Generator[int]:
    yield a


@agenttrace.agent
async def async_generator(a: int) -> AsyncGenerator[int]:
    yield a


class Tools:
    """Methods of every kind, decorated in both orders where there are two."""

    @agenttrace.agent
    def method(self, a: int) -> tuple[object, int]:
        """Return the receiver."""
        return self, a

    @agenttrace.agent
    async def stream(self, a: int) -> AsyncGenerator[int]:
        """Yield the argument."""
        yield a

    @classmethod
    @agenttrace.agent
    def class_inside(cls, a: int) -> tuple[object, int]:
        """Return the receiver."""
        return cls, a

    @agenttrace.agent
    @classmethod
    def class_outside(cls, a: int) -> tuple[object, int]:
        """Return the receiver."""
        return cls, a

    @staticmethod
    @agenttrace.agent
    def static_inside(a: int) -> int:
        """Return the argument."""
        return a

    @agenttrace.agent
    @staticmethod
    def static_outside(a: int) -> int:
        """Return the argument."""
        return a

    @property
    @agenttrace.agent
    def ready(self) -> bool:
        """Return something true."""
        return True


class Heir(Tools):
    """Inherits all of it."""


DECORATED = [plain, coroutine, generator, async_generator]
QUESTIONS = [
    inspect.isfunction,
    inspect.isroutine,
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    inspect.signature,
    inspect.getdoc,
    inspect.getsource,
    callable,
]


def undecorated(fn: Any) -> Any:  # noqa: ANN401 - a function
    """Return what was decorated."""
    return inspect.unwrap(fn)


@pytest.mark.parametrize("fn", DECORATED, ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_inspect_says_the_same_of_it(
    question: Callable[[object], object], fn: Callable[..., Any]
) -> None:
    """Frameworks choose by these answers how to call what they are given."""
    assert question(fn) == question(undecorated(fn))


def test_asyncio_takes_it_for_a_coroutine_function() -> None:
    """Old code asks asyncio and not inspect."""
    assert inspect.iscoroutinefunction(Tools.stream) is False
    assert inspect.isasyncgenfunction(Tools().stream)
    assert inspect.iscoroutinefunction(functools.partial(coroutine, 1))
    assert inspect.isasyncgenfunction(functools.partial(async_generator, 1))


@pytest.mark.parametrize("name", ["__name__", "__qualname__", "__module__", "__doc__"])
def test_it_has_the_names_of_the_original(name: str) -> None:
    """Logs, registries and schemas of tools are made of them."""
    assert getattr(plain, name) == getattr(undecorated(plain), name)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_by_name(protocol: int) -> None:
    """Process pools send functions and bound methods to their workers."""
    for fn in (*DECORATED, Tools.method, Tools.static_inside, Tools.static_outside):
        assert pickle.loads(pickle.dumps(fn, protocol)) is fn  # noqa: S301 - our own

    bound = pickle.loads(pickle.dumps(Tools().method, protocol))  # noqa: S301 - our own

    assert type(bound.__self__) is Tools
    assert bound(1)[1] == 1
    of_class = pickle.loads(pickle.dumps(Tools.class_outside, protocol))  # noqa: S301 - our own
    assert of_class(1) == (Tools, 1)


def test_it_is_copied_as_functions_are() -> None:
    """Settings that hold tools are copied deeply, and functions are atoms in them."""
    tools = Tools()
    settings: dict[str, Any] = {"tools": [plain, generator], "method": tools.method}

    copied = copy.deepcopy(settings)

    assert copied["tools"] == [plain, generator]
    assert copied["tools"][0] is plain
    assert type(copied["method"].__self__) is Tools
    assert copied["method"].__self__ is not tools
    assert copy.copy(plain) is plain


def test_methods_are_methods() -> None:
    """Overriding is detected by identity, signals refer to methods weakly."""
    tools: Any = Tools()

    assert Heir.method is Tools.method
    assert tools.method == tools.method
    assert hash(tools.method) == hash(tools.method)
    assert tools.method.__self__ is tools
    assert tools.method.__func__ is Tools.method
    assert inspect.ismethod(tools.method)
    assert weakref.WeakMethod(tools.method)() == tools.method
    assert isinstance(vars(Tools)["class_outside"], classmethod)
    assert isinstance(vars(Tools)["static_outside"], staticmethod)
    assert list(inspect.signature(tools.method).parameters) == ["a"]


def test_methods_of_every_kind_are_traced_once(spans: Spans) -> None:
    """The receiver is whoever it is without the decorator, in both orders."""
    tools = Heir()

    assert tools.method(1) == (tools, 1)
    assert Tools.method(tools, 1) == (tools, 1)
    assert tools.class_inside(1) == Heir.class_inside(1) == (Heir, 1)
    assert tools.class_outside(1) == Heir.class_outside(1) == (Heir, 1)
    assert tools.static_inside(1) == Tools.static_inside(1) == 1
    assert tools.static_outside(1) == Tools.static_outside(1) == 1
    assert tools.ready

    names = [span.name.removeprefix("invoke_agent ") for span in spans()]
    assert names == [
        *["method"] * 2,
        *["class_inside"] * 2,
        *["class_outside"] * 2,
        *["static_inside"] * 2,
        *["static_outside"] * 2,
        "ready",
    ]


def test_abstract_methods_stay_abstract() -> None:
    """The class could be made, and fail where it is called."""

    class Base(ABC):
        @agenttrace.agent
        @abstractmethod
        def inside(self) -> None: ...

        @abstractmethod
        @agenttrace.agent
        def outside(self) -> None: ...

    assert Base.__abstractmethods__ == {"inside", "outside"}
    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]  # that is the test


def test_a_wrong_call_fails_at_the_call() -> None:
    """As the original does: not at the first step, somewhere else."""
    decorated: list[Any] = DECORATED
    for fn in decorated:
        with pytest.raises(TypeError, match=r"argument"):
            fn(1, 2, 3, nonsense=4)


def test_fastapi_takes_it_as_a_dependency(spans: Spans) -> None:
    """It asks for generator functions, and drives them in its own way."""
    app = FastAPI(telemetry={"tracing": False})
    closed: list[str] = []

    @agenttrace.agent
    def plain_dependency() -> Generator[str]:
        yield "plain"
        closed.append("plain")

    @agenttrace.agent
    async def async_dependency(q: str) -> AsyncGenerator[str]:
        yield q
        closed.append("async")

    async def endpoint(
        one: Annotated[str, Depends(plain_dependency)],
        other: Annotated[str, Depends(async_dependency)],
    ) -> list[str]:
        return [one, other]

    # The annotations are resolved by name, and these names are local.
    endpoint.__annotations__ = {
        "one": Annotated[str, Depends(plain_dependency)],
        "other": Annotated[str, Depends(async_dependency)],
    }
    app.get("/")(endpoint)

    with TestClient(app) as client:
        answer = client.get("/", params={"q": "async"})

    assert answer.json() == ["plain", "async"]
    assert sorted(closed) == ["async", "plain"]
    assert {span.name for span in spans()} == {
        "invoke_agent plain_dependency",
        "invoke_agent async_dependency",
    }


def test_a_context_manager_may_be_made_of_it(spans: Spans) -> None:
    """`contextmanager` throws into the generator and looks at what comes out."""

    @contextmanager
    @agenttrace.agent
    def managed() -> Generator[int]:
        try:
            yield 1
        except LookupError:
            return

    with managed() as value:
        assert value == 1
        raise LookupError

    (span,) = spans()
    assert (span.attributes or {})[semconv.OUTCOME] == "ok"


def test_what_runs_a_coroutine_function_itself_is_traced_as_a_call(
    spans: Spans,
) -> None:
    """What a function says that it wraps does not say what calling it does."""

    async def inner(*, fail: bool) -> int:
        with agenttrace.span("inner"):
            if fail:
                raise LookupError
            return 1

    @agenttrace.agent
    @functools.wraps(inner)
    def runs(*, fail: bool) -> int:
        return asyncio.run(inner(fail=fail))

    assert runs(fail=False) == 1
    with pytest.raises(LookupError):
        runs(fail=True)

    ended = spans()
    outcomes = [(s.attributes or {})[semconv.OUTCOME] for s in ended if not s.parent]
    assert [span.name for span in ended] == ["inner", "invoke_agent inner"] * 2
    assert outcomes == ["ok", "error"]


def test_what_is_returned_is_the_very_object(tmp_path: Path, spans: Spans) -> None:
    """A file, an iterator, a future, a stream that somebody has begun: not ours."""
    loop = asyncio.new_event_loop()
    closed_loop = asyncio.new_event_loop()
    over = closed_loop.create_future()
    over.set_result(1)
    closed_loop.close()

    def stream() -> Generator[int, int]:
        received = yield 0
        yield received

    begun = stream()
    next(begun)
    with (tmp_path / "file").open("w") as file:
        things: list[Any] = [
            file,
            map(str, [1]),
            iter([1]),
            {}.items(),
            loop.create_future(),
            over,
            Future[int](),
            begun,
            None,
            NotImplemented,
        ]

        returned = [agenttrace.agent(lambda thing=thing: thing)() for thing in things]

    assert all(one is other for one, other in zip(returned, things, strict=True))
    assert begun.send(7) == 7
    for future in (things[4], things[6]):
        future.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert len(spans()) == len(things)


@pytest.mark.asyncio
async def test_an_async_generator_that_was_begun_is_the_very_object() -> None:
    """Whoever has begun it may be about to send something in."""

    async def stream() -> AsyncGenerator[int, int]:
        received = yield 0
        yield received

    begun = stream()
    await anext(begun)

    returned = agenttrace.agent(lambda: begun)()

    assert returned is begun
    assert await begun.asend(7) == 7
    await begun.aclose()


def test_a_stream_that_is_left_last_of_all_is_abandoned(spans: Spans) -> None:
    """A script that breaks out and is done: `asyncio.run` cancels the closing of it."""

    @agenttrace.agent
    async def stream() -> AsyncGenerator[int]:
        while True:
            yield 1

    async def main() -> None:
        async for _ in stream():
            break

    asyncio.run(main())

    (span,) = spans()
    attributes = span.attributes or {}
    assert attributes[semconv.OUTCOME] == "abandoned"
    assert attributes[semconv.ENDED_BY] == "gc"


@pytest.mark.asyncio
async def test_a_task_ends_its_span_when_it_is_done(spans: Spans) -> None:
    """Its identity matters to `cancel` and `gather`; the span goes on with it."""

    @agenttrace.agent
    def start(work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - a coroutine
        return asyncio.create_task(work)

    async def fails() -> None:
        raise LookupError

    cancelled, failed = start(asyncio.sleep(3600)), start(fails())
    cancelled.cancel()
    results = await asyncio.gather(cancelled, failed, return_exceptions=True)

    assert [type(result) for result in results] == [asyncio.CancelledError, LookupError]
    outcomes = [(span.attributes or {})[semconv.OUTCOME] for span in spans()]
    assert sorted(map(str, outcomes)) == ["cancelled", "error"]
