"""Which call of the framework is followed, and in which span it goes on.

Imported with the first of them.  What is read of a call is `recorders`' business.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel

from agenttrace import _otel, model, semconv, tracing
from agenttrace.boundary import owned
from agenttrace.boundary.pending import pending
from agenttrace.context.bound import BOUND_KEY, bound_in
from agenttrace.instrumentation.agent_framework.recorders import Recorder, identity_of
from agenttrace.instrumentation.agent_framework.sessions import conversation_of
from agenttrace.safety import traceback_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context.context import Context

pulls = owned.pulls
tracer_here = owned.tracer_here


def call_of_run(agent: object, given: Mapping[str, Any]) -> owned.OwnedCall | None:
    """Return the call that a run of *agent* is, None where it is not to be traced.

    Args:
        agent: The agent.
        given: The arguments of `run`, by name.
    """
    usual: Mapping[str, Any] = getattr(agent, "default_options", None) or {}
    options: Mapping[str, Any] = {**usual, **(given.get("options") or {})}
    return _call(semconv.INVOKE_AGENT, options, given.get("session"))


def call_of_question(given: Mapping[str, Any]) -> owned.OwnedCall | None:
    """Return the call that a question to a model is; see `call_of_run`."""
    return _call(semconv.CHAT, given.get("options") or {}, None)


def _call(
    operation: str, options: Mapping[str, Any], session: object
) -> owned.OwnedCall | None:
    context = otel.get_current()
    if (
        tracing.installed is tracing.DISABLED
        or (context and _otel.is_suppressed(context))
        or not _is_traced()
    ):
        return None
    token = options.get("continuation_token")
    if token is not None:
        known = pending(identity_of(operation, token))
        if known is not None and isinstance(known.call, owned.OwnedCall):
            known.polled()
            return known.call
    if session is not None:
        context = _with_conversation(context, conversation_of(session))
    lasts = bool(options.get("background")) or token is not None
    recorder = Recorder(operation, session, lasts=lasts)
    return _Call(recorder, context, offers=operation == semconv.CHAT)


class _Call(owned.OwnedCall):
    """A call that may see its instrumentation taken out."""

    __slots__ = ("_started_during",)

    def begin(self) -> bool:
        """Wait for the framework to start the span."""
        error = sys.exception()
        self._started_during = 0 if error is None else model.identity_of(error)
        return super().begin()

    def unheard(self) -> BaseException | None:
        """Return what the framework handles, once the instrumentation is taken out.

        What the application handles as it closes a stream did not end that.
        """
        from agenttrace.instrumentation.agent_framework import (  # noqa: PLC0415 - it imports this module
            INSTRUMENTOR,
        )

        error = None if INSTRUMENTOR.is_on() else sys.exception()
        if error is None or model.is_same(error, self._started_during):
            return None
        trace = traceback_of(error)  # its first frame is that which handles it
        module = "" if trace is None else trace.tb_frame.f_globals.get("__name__")
        return error if str(module).partition(".")[0] == _LIBRARY else None


def _is_traced() -> bool:
    """Return whether the framework will start a span for it: it has a switch."""
    settings = getattr(sys.modules.get(_TRACES), "OBSERVABILITY_SETTINGS", None)
    return bool(getattr(settings, "ENABLED", True))


def _with_conversation(context: Context, conversation: str | None) -> Context:
    bound = bound_in(context)
    if conversation is None or semconv.GEN_AI_CONVERSATION_ID in bound:
        return context
    return otel.set_value(
        BOUND_KEY, {**bound, semconv.GEN_AI_CONVERSATION_ID: conversation}, context
    )


_LIBRARY: Final = "agent_framework"
_TRACES: Final = f"{_LIBRARY}.observability"
