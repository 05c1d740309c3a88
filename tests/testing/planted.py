"""A small agent that is traced by hand, and the mistakes that are made in doing so.

The healthy version is as careful as one can be with OpenTelemetry's API alone.  Every
bug is one that was seen in an instrumentation or an application, in one line or two.
"""

# ruff: noqa: C901, PLR0912 - every bug is a branch, where it would be made

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace

from agenttrace.testing.conforming import Promise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from opentelemetry.context import Context

TREE: Final = """
    invoke_agent triage
      execute_tool search
      chat
      chat
"""
WORDS: Final = ("sunny", "warm")

BUGS: Final = {
    "the agent's span ends on Exception alone": Promise.CLOSED,
    "the tool's span ends on Exception alone": Promise.CLOSED,
    "the tool's span ends on success alone": Promise.CLOSED,
    "the agent's span is never ended": Promise.CLOSED,
    "a task goes on with a span": Promise.CLOSED,
    "two runs share a variable": Promise.ONCE,
    "a list keeps the model's stream": Promise.CLOSED,
    "the tool's span is a root": Promise.TREE,
    "the tool's span is the caller's child": Promise.TREE,
    "the second chat is beneath the first": Promise.TREE,
    "the parent is whatever is current": Promise.TREE,
    "the agent's span is current across items": Promise.CURRENT,
    "the agent's span stays current": Promise.CURRENT,
    "the status is OK whatever comes": Promise.TRUTH,
    "the tool's span ends after the exception was put aside": Promise.TRUTH,
    "the agent's span ends before its last step": Promise.TREE,
    "whoever leaves is told as an error": Promise.TRUTH,
    "a cancellation is told as an error": Promise.TRUTH,
    "an error is told as ok": Promise.TRUTH,
    "the status comes after the end": Promise.ONCE,
    "the tool's span ends in except and finally": Promise.ONCE,
    "the agent's span ends twice when it is left": Promise.ONCE,
    "the tool takes a cancellation for an answer": Promise.THROUGH,
    "the tool takes anything for an answer": Promise.THROUGH,
    "the agent goes on when it is closed": Promise.THROUGH,
    "the tool hides what went wrong in a cancellation": Promise.THROUGH,
}
"""Bugs, and the promise that each of them breaks first of all."""

kept: Final[list[Any]] = []


class Desk:
    """An agent that looks something up and answers in words.

    Args:
        bug: One of `BUGS`; empty for none.
    """

    def __init__(self, bug: str = "") -> None:
        assert not bug or bug in BUGS
        self.bug = bug
        self.tracer = trace.get_tracer("desk")
        self.shared: Any = None

    def has(self, bug: str) -> bool:
        assert bug in BUGS
        return self.bug == bug

    async def answer(self) -> AsyncGenerator[str]:
        agent = self.tracer.start_span("invoke_agent triage")
        if self.has("two runs share a variable"):
            self.shared = agent
        within: Any = trace.set_span_in_context(agent)
        token: Any = None
        if self.has("the agent's span stays current"):
            otel.attach(within)
        is_ended = False
        try:
            if self.has("a task goes on with a span"):
                kept.append(asyncio.create_task(self.watch(within)))
            await self.search(within)
            before: Any = None
            for word in WORDS:
                before = await self.chat(within, before)
                if self.has("the agent's span is current across items"):
                    token = otel.attach(within)
                yield word
                if token is not None:
                    otel.detach(token)
            if self.has("the agent's span ends before its last step"):
                agent.end()
                is_ended = True
                await self.chat(within, before)
        except GeneratorExit:
            if self.has("whoever leaves is told as an error"):
                agent.set_status(trace.StatusCode.ERROR, "closed")
            if self.has("the agent's span ends twice when it is left"):
                agent.end()
            if self.has("the agent goes on when it is closed"):
                yield "one more"
            if self.has("the agent's span ends on Exception alone"):
                is_ended = True
            raise
        except asyncio.CancelledError:
            if self.has("the agent's span ends on Exception alone"):
                is_ended = True
            if self.has("a cancellation is told as an error"):
                agent.set_status(trace.StatusCode.ERROR, "cancelled")
            raise
        finally:
            if self.has("the status is OK whatever comes"):
                agent.set_status(trace.StatusCode.OK)
            if self.has("two runs share a variable"):
                agent = self.shared
            if self.has("the agent's span is never ended") or is_ended:
                kept.append(agent)
            else:
                agent.end()

    async def watch(self, within: Context) -> None:
        with self.tracer.start_as_current_span("watch", context=within):
            await asyncio.Event().wait()

    async def search(self, within: Any) -> None:  # noqa: ANN401 - a context, or None
        if self.has("the tool's span is a root"):
            within = otel.Context()
        if self.has("the tool's span is the caller's child"):
            within = None
        tool = self.tracer.start_span("execute_tool search", context=within)
        try:
            await self.look_up()
        except Exception as error:
            if self.has("the tool's span ends after the exception was put aside"):
                kept.append(error)
                is_put_aside = True
            else:
                is_put_aside = False
            if self.has("an error is told as ok"):
                tool.set_status(trace.StatusCode.OK)
            if self.has("the status comes after the end"):
                tool.end()
                tool.set_status(trace.StatusCode.ERROR, str(error))
            if self.has("the tool's span ends in except and finally"):
                tool.end()
            if self.has("the tool's span ends on success alone"):
                kept.append(tool)
            if not is_put_aside:
                raise
        except asyncio.CancelledError:
            if self.has("the tool's span ends on Exception alone"):
                kept.append(tool)
            if self.has("the tool hides what went wrong in a cancellation"):
                message = "could not look it up"
                raise RuntimeError(message) from None
            if not self.has("the tool takes a cancellation for an answer"):
                raise
        except BaseException:
            if not self.has("the tool takes anything for an answer"):
                raise
        finally:
            is_ended = self.has("the status comes after the end")
            if tool not in kept and not (is_ended and not tool.is_recording()):
                tool.end()
        if self.has("the tool's span ends after the exception was put aside") and kept:
            raise kept.pop()

    async def chat(self, within: Any, before: Any) -> trace.Span:  # noqa: ANN401 - contexts, or None
        if self.has("the parent is whatever is current"):
            within = None
        if self.has("the second chat is beneath the first") and before is not None:
            within = trace.set_span_in_context(before)
        span = self.tracer.start_span("chat", context=within)
        try:
            if self.has("a list keeps the model's stream"):
                stream = self.tokens()
                kept.append(stream)
                await anext(stream)
            await asyncio.sleep(0)
        finally:
            span.end()
        return span

    async def tokens(self) -> AsyncGenerator[int]:
        with self.tracer.start_as_current_span("tokens"):
            yield 1

    async def look_up(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
