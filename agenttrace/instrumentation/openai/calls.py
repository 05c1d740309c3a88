"""Which request becomes a call of ours, and which stream belongs to one.

Imported with the first request, and all that records with it: a process that asks no
model does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel

from agenttrace import _otel, safety, tracing
from agenttrace.boundary import shared, streams
from agenttrace.instrumentation.openai import (
    background,
    clients,
    recording,
    requests,
)
from agenttrace.instrumentation.openai.chat import ChatRecorder
from agenttrace.instrumentation.openai.embeddings import EmbeddingsRecorder
from agenttrace.instrumentation.openai.responses import ResponsesRecorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.call import Call
    from agenttrace.instrumentation.openai.recording import ModelRecorder

_RECORDERS: Final[Mapping[str, type[ModelRecorder]]] = {
    "/chat/completions": ChatRecorder,
    "/responses": ResponsesRecorder,
    "/embeddings": EmbeddingsRecorder,
}
"""What is traced, by the path of a POST."""


def call_of(
    client: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call | None:
    """Return the call that this request is, None where it is not to be traced."""
    if tracing.installed is tracing.DISABLED:
        return None
    options = args[1] if len(args) > 1 else kwargs["options"]
    streamed = bool(kwargs.get("stream"))
    is_post = options.method.lower() == "post"
    recorder = _RECORDERS.get(options.url) if is_post else None
    if recorder is None and is_post:
        recorder = _RECORDERS.get(requests.path_of(options.url))
    if recorder is None:
        return background.visit(client, options, streamed=streamed)
    context = otel.get_current()
    if context and _otel.is_suppressed(context):
        return None
    safety.guarded("openai.client", clients.look, client, options)
    reader = recorder(requests.Request(client, options, streamed=streamed))
    # In the background it outlives whatever asks for it.
    lasting = isinstance(reader, ResponsesRecorder) and reader.in_background
    return shared.call_in(context, reader, reader.operation, lasting=lasting)


def follow_made(stream: Any) -> None:  # noqa: ANN401 - a Stream or AsyncStream
    """Follow the items of a stream that was made out of a response we follow."""
    body = streams.body_of(stream.response)
    if body is not None:
        recording.read_as_given(body.call, stream)
        body.follow_items(stream, "_iterator")
