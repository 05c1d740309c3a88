"""A test can have a step hang, for as long as it wants it to, and see what comes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import agenttrace
from agenttrace.testing import Hang, ManualClock, capture_spans
from agenttrace.testing.model_server import FAULTS, ModelServer, in_turn

if TYPE_CHECKING:
    from agenttrace.testing import CapturedSpans


def test_a_tool_that_hangs_is_told_as_stuck(
    agenttrace_spans: CapturedSpans,
    agenttrace_clock: ManualClock,
    agenttrace_hang: Hang,
) -> None:
    """The three fixtures together are the test of a hang that our users write."""

    @agenttrace.tool(heartbeat_timeout=30)
    async def search(query: str) -> object:
        return await agenttrace_hang(query)

    async def main() -> None:
        task = asyncio.create_task(search("the weather"))
        await asyncio.to_thread(agenttrace_hang.wait)
        agenttrace_clock.advance(31)
        agenttrace_hang.release()
        await task

    asyncio.run(main())

    assert agenttrace_spans.find("execute_tool search", outcome="stuck")


def test_threads_hang_and_go_on_with_the_result() -> None:
    """A tool that blocks is the other half of them."""
    with Hang("the answer") as hang, ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(hang.block, "any", argument="s") for _ in range(2)]
        hang.wait(2)
        assert hang.reached == 2
        hang.release()

        assert [future.result(60) for future in futures] == ["the answer"] * 2


def test_who_comes_after_the_release_does_not_hang() -> None:
    """An agent that tries again is not to hang a second time."""
    hang = Hang(1)
    hang.release()

    assert (asyncio.run(hang()), hang.block(), hang.reached) == (1, 1, 2)


def test_the_end_of_the_block_releases_everybody() -> None:
    """A test that fails is not to leave a thread behind."""
    with Hang() as hang:
        thread = threading.Thread(target=hang.block)
        thread.start()
        hang.wait()
    thread.join(60)

    assert not thread.is_alive()


def test_a_task_that_hangs_can_be_cancelled() -> None:
    """What hangs in truth can be, too."""

    async def main() -> bool:
        with Hang() as hang:
            task = asyncio.create_task(hang())
            await asyncio.to_thread(hang.wait)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

    assert asyncio.run(main())


def test_nobody_is_waited_for_for_ever() -> None:
    """A test whose agent never comes to the tool says so."""
    with pytest.raises(TimeoutError, match=r"0 of 1 began to hang in 0\.01 s"):
        Hang().wait(timeout=0.01)


def release_first_request(server: ModelServer) -> None:
    server.wait_for_request(timeout=60)
    server.release()


@pytest.mark.parametrize("fault", FAULTS)
def test_an_agent_can_be_tried_with_every_fault_of_a_model(
    fault: str, agenttrace_model_server: ModelServer
) -> None:
    """Whatever the model does, the span of the agent ends."""
    openai = pytest.importorskip("openai")
    server = agenttrace_model_server
    server.script = in_turn(FAULTS[fault])

    @agenttrace.agent
    def ask() -> str:
        with openai.OpenAI(
            base_url=server.base_url, api_key="unused", max_retries=0
        ) as client:
            stream = client.chat.completions.create(
                model="test-model",
                messages=[{"role": "user", "content": "hello"}],
                stream=True,
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    ends = ("never answers", "stalls half way", "stalls with comments")
    with capture_spans() as spans:
        if fault in ends:
            helper = threading.Thread(target=release_first_request, args=(server,))
            helper.start()
            ask()
            helper.join()
        elif fault in ("slow headers", "drips"):
            assert ask() == "one two three"
        else:
            with pytest.raises(Exception):  # noqa: B017, PT011 - each fault has its own
                ask()

    spans.assert_all_closed()
    outcome = spans.span("invoke_agent ask").outcome
    assert outcome == ("ok" if fault in (*ends, "slow headers", "drips") else "error")
