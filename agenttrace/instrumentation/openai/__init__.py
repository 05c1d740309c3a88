"""Traces the openai client: chat, responses and embeddings, as one span a call.

Everything that the client does goes through one method of each colour, `request` of
`SyncAPIClient` and `AsyncAPIClient`: plain and streamed calls, helpers, `parse`, raw
and streaming responses, Azure, with the retries inside.  Patched there, no object that
the application gets is ours.  The one other place is where a stream object is made, as
those of raw responses are made later, out of the response.

| module | owns |
|---|---|
| `clients` | what is wrong with a client: its time-outs, loops that share it |
| `calls` | which request becomes a call, and by which recorder |
| `requests` | what is read of a request: who is called, with which parameters |
| `recording` | what the recorders share: bodies, streams, the time of the first chunk |
| `chat`, `responses`, `embeddings` | a recorder each |
| `background` | responses that go on after their request, and the polls for them |
| `wire` | JSON and server-sent events, read from bytes |
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.instrumentation._patching import Instrumentor, Patch
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenttrace.boundary.call import Call


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
    safety.guarded("openai.stream", _follow, stream)


def _follow(stream: Any) -> None:  # noqa: ANN401 - a Stream or AsyncStream
    _calls().follow_made(stream)


def _call(
    client: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call | None:
    call: Call | None = _calls().call_of(client, args, kwargs)
    return call


@cache
def _calls() -> Any:  # noqa: ANN401 - the module
    with no_fork():
        from agenttrace.instrumentation.openai import calls  # noqa: PLC0415 - see there
    return calls


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
