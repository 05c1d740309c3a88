"""Traces the openai client: chat, responses and embeddings, as one span a call.

Everything that the client does goes through one method of each colour, `request` of
`SyncAPIClient` and `AsyncAPIClient`: plain and streamed calls, helpers, `parse`, raw
and streaming responses, Azure, with the retries inside.  Patched there, no object that
the application gets is ours.  The one other place is where a stream object is made, as
those of raw responses are made later, out of the response.

| module | owns |
|---|---|
| `requests` | what is read of a request: who is called, with which parameters |
| `recording` | what the recorders share: bodies, streams, the time of the first chunk |
| `chat`, `responses`, `embeddings` | a recorder each |
| `background` | responses that go on after their request, and the polls for them |
| `messages` | content in the form of the GenAI conventions |
| `wire` | JSON and server-sent events, read from bytes |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel

from agenttrace import _otel, safety, tracing
from agenttrace.boundary import streams
from agenttrace.boundary.call import Call
from agenttrace.instrumentation._patching import Instrumentor, Patch
from agenttrace.instrumentation.openai import background, recording, requests
from agenttrace.instrumentation.openai.chat import ChatRecorder
from agenttrace.instrumentation.openai.embeddings import EmbeddingsRecorder
from agenttrace.instrumentation.openai.responses import ResponsesRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenttrace.instrumentation.openai.recording import ModelRecorder

_RECORDERS: Final[Mapping[str, type[ModelRecorder]]] = {
    "/chat/completions": ChatRecorder,
    "/responses": ResponsesRecorder,
    "/embeddings": EmbeddingsRecorder,
}
"""What is traced, by the path of a POST."""


def _request(
    request: Callable[..., Any],
    client: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - what the client returns
    call = safety.guarded("openai.request", _call, client, args, kwargs)
    if call is None:
        return request(*args, **kwargs)
    return call.run(request, args, kwargs)


def _async_request(
    request: Callable[..., Any],
    client: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - a coroutine
    # The coroutine is made here and begun when it is awaited, as the span is.
    call = safety.guarded("openai.request", _call, client, args, kwargs)
    if call is None:
        return request(*args, **kwargs)
    return call.settle(request(*args, **kwargs))


def _stream_made(
    make: Callable[..., None],
    stream: Any,  # noqa: ANN401 - a Stream or AsyncStream
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    make(*args, **kwargs)
    safety.guarded("openai.stream", _follow_made, stream)


def _call(
    client: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call | None:
    """Return the call that this request is, None where it is not to be traced."""
    if tracing.tracer() is tracing.DISABLED:
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
    return Call(recorder(requests.Request(client, options, streamed=streamed)), context)


def _follow_made(stream: Any) -> None:  # noqa: ANN401 - a Stream or AsyncStream
    """Follow the items of a stream that was made out of a response we follow."""
    body = streams.body_of(stream.response)
    if body is not None:
        recording.read_as_given(body.call, stream)
        body.follow_items(stream, "_iterator")


INSTRUMENTOR: Final = Instrumentor(
    "openai",
    (
        Patch("openai._base_client", "SyncAPIClient.request", _request),
        Patch("openai._base_client", "AsyncAPIClient.request", _async_request),
        Patch("openai._streaming", "Stream.__init__", _stream_made),
        Patch("openai._streaming", "AsyncStream.__init__", _stream_made),
    ),
    majors=range(2, 4),
)
