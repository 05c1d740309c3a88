"""Traces the OpenAI Agents SDK: each of its traces and spans as one of OpenTelemetry's.

The SDK makes spans of its own.  Each is followed by a mirror, which starts with it, is
its parent's child, and ends when it ends, with the truth about how; no span of the SDK
is ever finished by us.  A mirror is kept by the span it follows, so it ends for its
reader even where nobody finishes that one, when both are collected.

The SDK's current trace and span are kept inside OpenTelemetry's context, so what makes
that safe across contexts, generators and threads holds for them as well, and spans of
all libraries nest in each other.

A model call is one span, also where the client that it is made with is instrumented:
the mirror is offered to it (`boundary.shared`).

A streamed run that nobody listens to any more is marked, and cancelled where
`on_abandon` says so.  One that is started for a request hears from the server's
middleware that the client has gone (`context.request`), and is cancelled with its
request to the model.

| module | owns |
|---|---|
| `currents` | the SDK's current trace and span |
| `mirrors` | the span that follows one of the SDK's, and its ending |
| `kinds` | what each type of span says |
| `peers` | other tools that follow the SDK |
| `runs` | runs, streamed ones, and who listens to them |
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety, settings
from agenttrace.instrumentation._patching import Instrumentor, Patch, Swap
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    from collections.abc import Callable


def _trace_starts(
    start: Callable[..., None],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    mirrors = _mirrors()
    safety.guarded("openai_agents.start", mirrors.follow_trace, *args, **kwargs)
    with mirrors.peers.shown_theirs():
        start(*args, **kwargs)


def _span_starts(
    start: Callable[..., None],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    mirrors = _mirrors()
    safety.guarded("openai_agents.start", mirrors.follow_span, *args, **kwargs)
    with mirrors.peers.shown_theirs():
        start(*args, **kwargs)


def _fails(
    set_error: Callable[..., None],
    span: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    safety.guarded("openai_agents.error", _mirrors().note_failure, span)
    set_error(*args, **kwargs)


def _run(
    run: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine
    call = safety.guarded("openai_agents.run", _runs().begin, kwargs)
    if call is None:
        return run(*args, **kwargs)
    return call.settle(run(*args, **kwargs))


def _stream_events(
    stream_events: Callable[..., Any],
    result: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - an asynchronous generator
    call = safety.guarded("openai_agents.stream_events", _runs().listen, result)
    if call is None:
        return stream_events(*args, **kwargs)
    return call.settle(stream_events(*args, **kwargs))


def _cancel(
    cancel: Callable[..., None],
    result: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    safety.guarded("openai_agents.cancel", _runs().cancels, result, *args, **kwargs)
    cancel(*args, **kwargs)


def _export(
    export: Callable[..., None],
    processor: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    module = sys.modules["agents.tracing.processors"]
    is_vendors = processor is getattr(module, "_global_processor", None)
    if not is_vendors or settings.in_use().vendor_export:
        export(*args, **kwargs)


def _current(key: str) -> Callable[..., Any]:
    def make(original: Any, is_on: Callable[[], bool]) -> Any:  # noqa: ANN401 - a ContextVar
        return _currents().Current(key, original, is_on)

    return make


# Imported with the SDK, which takes a second itself.


@cache
def _currents() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.openai_agents import (  # noqa: PLC0415 - see above
            currents,
        )
    return currents


@cache
def _mirrors() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.openai_agents import (  # noqa: PLC0415 - see above
            mirrors,
        )
    return mirrors


@cache
def _runs() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.openai_agents import (  # noqa: PLC0415 - see above
            runs,
        )
    return runs


_TELLS: Final = "SynchronousMultiTracingProcessor"
INSTRUMENTOR: Final = Instrumentor(
    "openai-agents",
    (
        Swap("agents.tracing.scope", "_current_trace", _current("agents-trace")),
        Swap("agents.tracing.scope", "_current_span", _current("agents-span")),
        Patch("agents.tracing.provider", f"{_TELLS}.on_trace_start", _trace_starts),
        Patch("agents.tracing.provider", f"{_TELLS}.on_span_start", _span_starts),
        Patch("agents.tracing.spans", "SpanImpl.set_error", _fails),
        Patch(
            "agents.tracing.processors", "BatchTraceProcessor.on_trace_start", _export
        ),
        Patch("agents.tracing.processors", "BatchTraceProcessor.on_span_end", _export),
        Patch("agents.run", "AgentRunner.run", _run),
        Patch("agents.run", "start_streaming", _run),
        Patch("agents.result", "RunResultStreaming.stream_events", _stream_events),
        Patch("agents.result", "RunResultStreaming.cancel", _cancel),
    ),
    landmark="tracing/span_data.py",
)
