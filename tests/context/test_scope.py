"""What `SafeRuntimeContext` promises, case by case; the odd orders are the model's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

import agenttrace
from agenttrace import safety
from agenttrace.context import scope
from agenttrace.context.scope import SafeRuntimeContext
from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

ENTRY_POINT = """
[opentelemetry_context]
agenttrace = {target}
"""
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def named(name: str) -> Context:
    """Return a context that is told from others by *name*."""
    return Context({"name": name})


def variable() -> contextvars.ContextVar[Any]:
    """Return a variable like OTel's own."""
    return contextvars.ContextVar("variable", default=Context())  # noqa: B039 - a Context is immutable


@pytest.fixture
def runtime() -> SafeRuntimeContext:
    """Return a safe runtime context on a variable of its own."""
    return SafeRuntimeContext(variable())


@pytest.mark.parametrize("token", [None, object(), "token", Context(), 0])
def test_what_is_no_token_is_ignored_and_counted(
    runtime: SafeRuntimeContext, token: object
) -> None:
    """`detach` stands in `finally` blocks: what it raises hides what went wrong."""
    before = safety.counts()["foreign_detaches"]
    kept = runtime.attach(named("kept"))

    runtime.detach(token)

    assert runtime.get_current() == named("kept")
    assert safety.counts()["foreign_detaches"] == before + 1
    runtime.detach(kept)


def test_a_token_of_another_variable_changes_nothing(
    runtime: SafeRuntimeContext,
) -> None:
    """Two runtime contexts in a process are one too many, but it happens."""
    other = SafeRuntimeContext(variable())
    kept = runtime.attach(named("kept"))
    token = other.attach(named("other"))

    runtime.detach(token)
    other.detach(token)

    assert runtime.get_current() == named("kept")
    runtime.detach(kept)
    assert runtime.get_current() == {}


def test_what_is_current_at_the_swap_stays_current() -> None:
    """`configure()` is called when the application runs, in the middle of anything."""
    stock = ContextVarsRuntimeContext()

    async def main() -> list[Any]:
        seen: list[Any] = []
        swapped = asyncio.Event()
        runtime: Any = stock

        async def other() -> None:
            token = stock.attach(named("other task"))
            await swapped.wait()
            seen.append(runtime.get_current())
            runtime.detach(token)
            seen.append(runtime.get_current())

        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        token = stock.attach(named("here"))
        variable = stock._current_context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # what the swap takes over
        runtime = SafeRuntimeContext(variable)
        swapped.set()
        await task
        seen.append(runtime.get_current())
        runtime.detach(token)
        seen.append(runtime.get_current())
        return seen

    seen = asyncio.run(main())

    assert seen == [named("other task"), {}, named("here"), {}]


def test_a_scope_that_one_context_closes_is_dropped_by_its_owner(
    runtime: SafeRuntimeContext,
) -> None:
    """An endpoint opens, its stream closes: the endpoint's task goes on without it."""
    token = runtime.attach(named("opened"))
    copy = contextvars.copy_context()

    copy.run(runtime.detach, token)

    assert copy.run(runtime.get_current) == {}
    assert runtime.get_current() == {}


def test_a_scope_under_another_is_taken_out_where_it_was_inherited(
    runtime: SafeRuntimeContext,
) -> None:
    """Else it would be uncovered later, in the very context that has closed it."""
    token = runtime.attach(named("inherited"))

    def child() -> Context:
        above = runtime.attach(named("above"))
        runtime.detach(token)
        assert runtime.get_current() == named("above")
        runtime.detach(above)
        return runtime.get_current()

    assert contextvars.copy_context().run(child) == {}
    assert runtime.get_current() == {}


def test_many_threads_may_close_one_scope_at_once(runtime: SafeRuntimeContext) -> None:
    """One of them is first, and none of them fails or leaves it current."""
    for _ in range(50):
        token = runtime.attach(named("shared"))
        start = threading.Barrier(4)
        left: list[Context] = []

        def close(
            start: threading.Barrier = start,
            token: Any = token,  # noqa: ANN401 - opaque
            left: list[Context] = left,
        ) -> None:
            start.wait()
            runtime.detach(token)
            left.append(runtime.get_current())

        copies = [contextvars.copy_context() for _ in range(4)]
        threads = [threading.Thread(target=copy.run, args=(close,)) for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert left == [{}] * 4
        assert runtime.get_current() == {}


def test_a_block_that_is_entered_again_is_another_scope(
    spans: Callable[[], list[ReadableSpan]],
) -> None:
    """Tasks of its first time keep their parent: a closed scope never comes back."""
    block = agenttrace.span("again")
    seen: list[trace.Span] = []

    async def child(over: asyncio.Event) -> None:
        await over.wait()
        seen.append(trace.get_current_span())

    async def main() -> None:
        over = asyncio.Event()
        with block as first:
            task = asyncio.create_task(child(over))
        with block as second:
            over.set()
            await task
            assert trace.get_current_span() is second
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert seen == [first]
        block.__exit__(None, None, None)
        with agenttrace.span("outer") as outer:
            block.__exit__(None, None, None)
            assert trace.get_current_span() is outer

    asyncio.run(main())

    assert [span.name for span in spans()] == ["again", "again", "outer"]


def test_a_foreign_detach_is_counted_and_explained_once_for_each_place(
    caplog: pytest.LogCaptureFixture, runtime: SafeRuntimeContext
) -> None:
    """At DEBUG, where whoever looks for leaks finds file and line of them."""
    caplog.set_level(logging.DEBUG, "agenttrace")
    before = safety.counts()["foreign_detaches"]
    safety.reset_for_tests()

    def elsewhere() -> None:
        runtime.detach(token)  # the place

    for _ in range(3):
        token = runtime.attach(named("opened"))
        contextvars.Context().run(elsewhere)

    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert f"{__file__}:{elsewhere.__code__.co_firstlineno + 1}" in record.getMessage()
    assert safety.counts()["foreign_detaches"] in (3, before + 3)


def test_a_foreign_runtime_context_is_left_in_place() -> None:
    """Another tracer's (ddtrace has one) knows things that ours does not."""
    ran = run("""
        from opentelemetry import context
        from opentelemetry.context.context import Context, _RuntimeContext

        import threading

        class Foreign(threading.local, _RuntimeContext):
            def __init__(self):
                self.stack = [Context()]
            def attach(self, context):
                self.stack.append(context)
                return len(self.stack)
            def get_current(self):
                return self.stack[-1]
            def detach(self, token):
                del self.stack[token - 1:]

        context._RUNTIME_CONTEXT = foreign = Foreign()
        import agenttrace
        runtime = agenttrace.configure()
        assert not runtime.status().safe_context
        assert context._RUNTIME_CONTEXT is foreign

        @agenttrace.agent
        def stream():
            with agenttrace.span("inner"):
                yield len(foreign.stack)
                yield len(foreign.stack)

        with agenttrace.span("outer"):
            assert list(stream()) == [4, 3]
            assert len(foreign.stack) == 2
        assert len(foreign.stack) == 1
    """)

    assert (ran.code, ran.err) == (0, "")


def entry_point_named_by_the_project() -> str:
    """Return what the distribution declares."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    target = project["entry-points"]["opentelemetry_context"]["agenttrace"]
    assert isinstance(target, str)
    return target


@pytest.mark.parametrize(
    "first",
    [
        "import opentelemetry.context",
        "import opentelemetry.trace",
        "import opentelemetry.sdk.trace",
        "import agenttrace",
        "import agenttrace.context.scope",
        "import agenttrace; agenttrace.configure()",
    ],
)
def test_the_environment_selects_it_before_anything_runs(
    first: str, tmp_path: Path
) -> None:
    """`agenttrace run` sets the variable, and nobody's import may go in circles."""
    info = tmp_path / "agenttrace_otel-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: agenttrace-otel\nVersion: 0\n")
    target = entry_point_named_by_the_project()
    (info / "entry_points.txt").write_text(ENTRY_POINT.format(target=target))
    inherited = [entry or str(Path.cwd()) for entry in sys.path]

    ran = run(
        f"""
        {first}
        from opentelemetry import context
        from agenttrace.context.scope import SafeRuntimeContext
        assert type(context._RUNTIME_CONTEXT) is SafeRuntimeContext
        token = context.attach(context.set_value("k", 1))
        context.detach(token)
        context.detach(token)
        assert context.get_value("k") is None
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *inherited]),
        OTEL_PYTHON_CONTEXT="agenttrace",
    )

    assert (ran.code, ran.err) == (0, "")


def test_nothing_of_ours_is_current_where_nothing_was_attached() -> None:
    """The default of OTel's variable is shared by every context there is."""
    assert contextvars.Context().run(otel.get_current) == {}
    assert scope.before(Context()) == {}


def test_a_sub_interpreter_can_trace() -> None:
    """mod_wsgi runs applications in such, where `Token.MISSING` has no name."""
    ran = run(
        '''
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters

        inside = """if True:
            import agenttrace
            from agenttrace.context import scope
            from opentelemetry import context as otel

            scope.install()
            outer = otel.attach(otel.Context({"name": "outer"}))
            inner = otel.attach(otel.Context({"name": "inner"}))
            otel.detach(outer)
            otel.detach(inner)
            print(otel.get_current(), flush=True)
        """
        exec_in = getattr(interpreters, "exec", None) or interpreters.run_string
        if hasattr(interpreters, "whence"):
            made = interpreters.create("legacy")
        else:
            made = interpreters.create(isolated=False)
        failed = exec_in(made, inside)
        interpreters.destroy(made)
        assert failed is None, failed
        '''
    )

    assert (ran.code, ran.out, ran.err) == (0, "{}\n", "")
