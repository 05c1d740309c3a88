"""Follows Microsoft's Agent Framework, which traces itself through OpenTelemetry.

The framework starts a span for each run of an agent and each question to a model, and
ends it where it can.  Those spans stay its own; how each of them ends is told by what
is followed here: the run, the question, and the streams that either returns
(`boundary.owned`).  Tools, workflows and MCP need no help: their spans are blocks.

A model call is one span, also where the client that it is made with is instrumented
(`boundary.shared`).  A response in the background is one run from its request to its
completion, with the polls inside (`boundary.pending`).

| module | owns |
|---|---|
| `calls` | which call is followed, and in which span it goes on |
| `recorders` | what is read of runs, questions, and what comes back |
| `sessions` | the token by which a session knows the run that broke off in it |
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.instrumentation._patching import Instrumentor, Patch, Swap
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable


def _run(
    run: Callable[..., Any],
    agent: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine, or a stream
    call = _guarded(_calls, "call_of_run", agent, kwargs)
    return run(*args, **kwargs) if call is None else call.run(run, args, kwargs)


def _get_response(
    get_response: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine, or a stream
    call = _guarded(_calls, "call_of_question", kwargs)
    if call is None:
        return get_response(*args, **kwargs)
    return call.run(get_response, args, kwargs)


def _get_tracer(
    get_tracer: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a tracer
    tracer = get_tracer(*args, **kwargs)
    traced = _guarded(_calls, "tracer_here", tracer)
    return tracer if traced is None else traced


def _next(
    anext_: Callable[..., Any],
    stream: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine
    return _pulled(stream, anext_(*args, **kwargs), reads=True)


def _get_final_response(
    get_final_response: Callable[..., Any],
    stream: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine
    return _pulled(stream, get_final_response(*args, **kwargs), reads=False)


def _pulled(stream: object, step: Any, *, reads: bool) -> Any:  # noqa: ANN401 - a coroutine
    pull = _guarded(_calls, "pulls", stream, step, reads=reads)
    return step if pull is None else pull


def _to_dict(
    to_dict: Callable[..., dict[str, Any]],
    session: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    written = to_dict(*args, **kwargs)
    _guarded(_sessions, "write", session, written)
    return written


def _from_dict(
    from_dict: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a session
    session = from_dict(*args, **kwargs)
    given = args[0] if args else kwargs.get("data")
    _guarded(_sessions, "read", session, given)
    return session


class _Forgiving:
    """Stands in for a context variable that is set in one task and reset in another.

    Args:
        original: The variable, whose the tokens are.
        is_on: Tells whether the instrumentation is on.
    """

    in_use = False

    def __init__(
        self, original: contextvars.ContextVar[Any], is_on: Callable[[], bool]
    ) -> None:
        self._original = original
        self._is_on = is_on

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a variable has
        return getattr(self._original, name)

    def reset(self, token: contextvars.Token[Any]) -> None:
        """Do so, unless this is another context: what was set there ends with it."""
        with contextlib.suppress(*(_ELSEWHERE if self._is_on() else ())):
            self._original.reset(token)


_ELSEWHERE: Final = (ValueError,)


# Imported with the framework, which takes seconds itself.


def _guarded(
    module: Callable[[], Any],
    name: str,
    *args: object,
    **options: object,
) -> Any:  # noqa: ANN401 - what the function returns
    """Call a function of one of our modules behind the guard, its import as well."""
    site = f"agent_framework.{name}"
    return safety.guarded(site, _call, module, name, *args, **options)


def _call(
    module: Callable[[], Any], name: str, *args: object, **options: object
) -> Any:  # noqa: ANN401 - what the function returns
    return getattr(module(), name)(*args, **options)


@cache
def _calls() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.agent_framework import (  # noqa: PLC0415 - see above
            calls,
        )
    return calls


@cache
def _sessions() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.agent_framework import (  # noqa: PLC0415 - see above
            sessions,
        )
    return sessions


_TRACES: Final = "agent_framework.observability"
_STREAMS: Final = "agent_framework._types"
_SESSIONS: Final = "agent_framework._sessions"
INSTRUMENTOR: Final = Instrumentor(
    "agent-framework",
    (
        Swap(_TRACES, "INNER_RESPONSE_TELEMETRY_CAPTURED_FIELDS", _Forgiving),
        Swap(_TRACES, "INNER_ACCUMULATED_USAGE", _Forgiving),
        Patch(_TRACES, "get_tracer", _get_tracer),
        Patch(_TRACES, "AgentTelemetryLayer.run", _run),
        Patch(_TRACES, "ChatTelemetryLayer.get_response", _get_response),
        Patch(_STREAMS, "ResponseStream.__anext__", _next),
        Patch(_STREAMS, "ResponseStream.get_final_response", _get_final_response),
        Patch(_SESSIONS, "AgentSession.to_dict", _to_dict),
        Patch(_SESSIONS, "AgentSession.from_dict", _from_dict),
    ),
    landmark="observability.py",
)
