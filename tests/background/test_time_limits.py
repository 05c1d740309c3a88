"""Who ran out of time says so, and whoever was stopped for it says that instead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

import agenttrace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from agenttrace.testing import CapturedSpans

SOON = 0.01
LATE = 3600.0


async def by_wait_for(work: Callable[[], Awaitable[None]]) -> None:
    await asyncio.wait_for(work(), SOON)


async def by_timeout(work: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(SOON):
        await work()


async def by_fail_after(work: Callable[[], Awaitable[None]]) -> None:
    with anyio.fail_after(SOON):
        await work()


async def by_a_group(work: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(by_timeout(work))


@agenttrace.tool
async def ask() -> None:
    """Get no answer."""
    await asyncio.sleep(LATE)


@pytest.mark.parametrize("limit", [by_wait_for, by_timeout, by_fail_after, by_a_group])
def test_the_step_that_is_stopped_is_cancelled_and_the_one_with_the_limit_timed_out(
    limit: Callable[..., Awaitable[None]], agenttrace_spans: CapturedSpans
) -> None:
    """`TimeoutError` comes out of the one, `CancelledError` went through the other."""

    @agenttrace.agent
    async def triage() -> None:
        await limit(ask)

    with pytest.raises((TimeoutError, ExceptionGroup)):
        asyncio.run(triage())

    agenttrace_spans.assert_tree("""
        invoke_agent triage: timed_out ended_by=exception
          execute_tool ask: cancelled ended_by=cancel
    """)
    assert agenttrace_spans.span("invoke_agent triage").error_type == "timeout"


def test_a_limit_that_the_step_itself_has_is_its_own(
    agenttrace_spans: CapturedSpans,
) -> None:
    """The same wait, with the limit on the inside."""

    @agenttrace.tool
    async def ask_for_a_moment() -> None:
        await by_timeout(lambda: asyncio.sleep(LATE))

    @agenttrace.agent
    async def triage() -> str:
        try:
            await ask_for_a_moment()
        except TimeoutError:
            return "no answer"
        return "an answer"

    assert asyncio.run(triage()) == "no answer"

    agenttrace_spans.assert_tree("""
        invoke_agent triage: ok
          execute_tool ask_for_a_moment: timed_out ended_by=exception
    """)


def test_a_scope_that_moves_on_has_not_failed(agenttrace_spans: CapturedSpans) -> None:
    """Nothing comes out of it: what went through it was cancelled all the same."""

    @agenttrace.agent
    async def triage() -> None:
        with anyio.move_on_after(SOON):
            await ask()

    asyncio.run(triage())

    agenttrace_spans.assert_tree("""
        invoke_agent triage: ok
          execute_tool ask: cancelled ended_by=cancel
    """)


def test_a_failure_in_a_group_cancels_its_siblings(
    agenttrace_spans: CapturedSpans,
) -> None:
    """One error, and the others say that they were stopped, not that they failed."""

    @agenttrace.tool
    async def fail(sibling_has_begun: asyncio.Event) -> None:
        await sibling_has_begun.wait()
        raise LookupError

    @agenttrace.tool
    async def wait(has_begun: asyncio.Event) -> None:
        has_begun.set()
        await asyncio.sleep(LATE)

    @agenttrace.agent
    async def triage() -> None:
        begun = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(begun))
            group.create_task(fail(begun))

    with pytest.raises(ExceptionGroup):
        asyncio.run(triage())

    agenttrace_spans.assert_tree("""
        invoke_agent triage: error ended_by=exception
          execute_tool wait: cancelled ended_by=cancel
          execute_tool fail: error ended_by=exception
    """)


def nested(error: Exception, depth: int) -> Exception:
    """Return *error* within so many groups."""
    for _ in range(depth):
        error = ExceptionGroup("of tasks", [error])
    return error


class Guarded(ExceptionGroup[Exception]):
    """A group that lets nobody see its members."""

    @property
    def exceptions(self) -> NoReturn:
        raise PermissionError


@pytest.mark.parametrize(
    ("group", "outcome"),
    [
        (nested(TimeoutError(), 50), "timed_out"),
        (ExceptionGroup("wide", [TimeoutError()] * 50), "timed_out"),
        (nested(TimeoutError(), 900), "error"),
        (ExceptionGroup("wide", [TimeoutError()] * 10_000), "error"),
        (Guarded("shy", [TimeoutError()]), "timed_out"),
        (Guarded("shy", [LookupError()]), "error"),
    ],
    ids=range(6),
)
def test_a_group_comes_out_of_its_step_as_it_is(
    group: Exception,
    outcome: str,
    agenttrace_spans: CapturedSpans,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However deep, wide or odd it is: to look into it must not fail, nor take long."""
    monkeypatch.delenv("AGENTTRACE_STRICT")  # its stack cannot be told

    @agenttrace.tool
    def work() -> None:
        with agenttrace.span("step"):
            raise group

    came_out: list[BaseException] = []
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - pytest fails to show some of these
        came_out.append(error)

    assert [error is group for error in came_out] == [True]
    assert [span.outcome for span in agenttrace_spans] == [outcome, outcome]


def test_gather_lets_siblings_go_on_until_it_is_cancelled_itself(
    agenttrace_spans: CapturedSpans,
) -> None:
    """A time limit around it stops those that are left, each of which says so."""

    @agenttrace.tool
    async def fail() -> None:
        raise LookupError

    @agenttrace.agent
    async def triage() -> None:
        results = asyncio.gather(ask(), fail(), return_exceptions=True)
        await asyncio.wait_for(results, SOON)

    with pytest.raises(TimeoutError):
        asyncio.run(triage())

    agenttrace_spans.assert_tree("""
        invoke_agent triage: timed_out
          execute_tool ask: cancelled ended_by=cancel
          execute_tool fail: error
    """)
