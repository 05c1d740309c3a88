"""Adds to the runs of the Agents SDK what Agency Swarm alone knows of them.

An agency runs its agents with the Agents SDK, whose instrumentation makes the spans: an
agency is its `invoke_workflow`, an agent that another one sends a message to is a run
in the span of that tool.  What is added: who has sent a message to whom, and who has
left a stream.  An agency answers from a run on another task, and cancels that when its
reader leaves; without a word from here that would look like somebody's cancellation.

Also what is read of a stream in a response, after the endpoint has returned, keeps the
parent that it had where the stream was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace

from agenttrace import safety, semconv, tracing
from agenttrace.instrumentation._patching import Instrumentor, Patch
from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    from collections.abc import Callable


def _stream_made(
    make: Callable[..., None],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    if args and tracing.installed is not tracing.DISABLED:
        read = safety.guarded("agency_swarm.stream", _read_through, args[0])
        if read is not None:
            args = (read, *args[1:])
    make(*args, **kwargs)


def _read_through(generator: object) -> Any:  # noqa: ANN401 - an asynchronous generator
    with no_fork_at_first("left"):
        from agenttrace.boundary.left import (  # noqa: PLC0415 - most processes have no agency
            ReadThrough,
        )
    return ReadThrough(otel.get_current()).settle(generator)


def _asked(
    answer: Callable[..., Any],
    agent: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine, or a stream
    if kwargs.get("sender_name") is not None:
        safety.guarded("agency_swarm.message", _say_who, kwargs["sender_name"], agent)
    return answer(*args, **kwargs)


def _say_who(sender: object, agent: Any) -> None:  # noqa: ANN401 - an Agent
    span = trace.get_current_span()
    record = tracing.record_of(span)
    # That of the tool with which the message is sent: any other is somebody else's.
    if record is not None and record.operation == semconv.EXECUTE_TOOL:
        span.set_attributes(
            {semconv.MESSAGE_FROM: str(sender), semconv.MESSAGE_TO: str(agent.name)}
        )


INSTRUMENTOR: Final = Instrumentor(
    "agency-swarm",
    (
        Patch(
            "agency_swarm.agent.execution_stream_response",
            "StreamingRunResponse.__init__",
            _stream_made,
        ),
        Patch("agency_swarm.agent.core", "Agent.get_response", _asked),
        Patch("agency_swarm.agent.core", "Agent.get_response_stream", _asked),
    ),
    majors=range(1, 2),
)
