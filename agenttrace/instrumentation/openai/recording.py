"""What the recorders of chat, responses and embeddings have in common.

A request can be answered in five forms: a parsed model; a stream object; a raw response
with its body in memory; a raw response with the body still to come, whole or as events.
(`client.post` has others to choose from: JSON, a response of the HTTP library, a text.)
This tells them apart, and lets each recorder read one and the same: an answer, and
items.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, cast, get_origin

from agenttrace import content, safety, semconv
from agenttrace.boundary import streams
from agenttrace.boundary.recorder import Progress
from agenttrace.instrumentation.openai import requests, wire
from agenttrace.model import EndedBy, Ending, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from agenttrace.boundary.call import Call
    from agenttrace.boundary.recorder import Recorder
    from agenttrace.instrumentation.openai.requests import Read, Request
    from agenttrace.model import Attributes, Opening
    from agenttrace.registry import OpenSpan

P = ParamSpec("P")

_INPUT_TOKENS: Final = semconv.GEN_AI_USAGE_INPUT_TOKENS
_OUTPUT_TOKENS: Final = semconv.GEN_AI_USAGE_OUTPUT_TOKENS
_CACHED_TOKENS: Final = semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS
_REASONING_TOKENS: Final = semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS
NOTHING: Final = Progress.NOTHING
PROGRESS: Final = Progress.PROGRESS
FINAL: Final = Progress.FINAL


class ModelRecorder:
    """Reads one request to a model.

    Args:
        request: The request.
    """

    operation: ClassVar[str]
    """`gen_ai.operation.name`."""
    readers: ClassVar[Mapping[str, tuple[str, Read]]]
    """By parameter of the request, its attribute and how it is read."""

    __slots__ = (
        "_began",
        "_characters",
        "_complete",
        "_first",
        "_items",
        "_record",
        "_request",
        "_streamed",
        "_whole",
        "captures",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self.captures = content.wanted()
        """Whether content is captured: asked once, so that one call has one answer."""
        self._began = 0.0
        self._first: float | None = None
        self._streamed = False
        self._items = False
        self._complete = False
        self._characters = 0
        self._whole: wire.Whole | None = None
        self._record: OpenSpan | None = None

    # What each of them says for itself.

    def messages(self) -> Attributes:
        """Return the content of the request."""
        raise NotImplementedError

    def answer(self, answer: Any) -> dict[str, object]:  # noqa: ANN401 - a model, or plain JSON
        """Return what is known from the whole answer."""
        raise NotImplementedError

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - a model, or plain JSON
        """Take note of one item of a stream."""
        raise NotImplementedError

    def gathered(self) -> dict[str, object]:
        """Return what is known from the items so far."""
        raise NotImplementedError

    # The protocol (see `boundary.call.Recorder`).

    def request(self) -> Opening:
        """Return how the span opens."""
        self._began = time.perf_counter()
        more: Attributes = self.content_of(self.messages) if self.captures else {}
        return self._request.opening(self.operation, self.readers, more)

    @staticmethod
    def content_of(
        read: Callable[P, Mapping[str, object]], *about: P.args, **more: P.kwargs
    ) -> Attributes:
        """Return content; what cannot be read costs itself alone, and not the span.

        Args:
            read: Returns it as attributes.
            about: Its arguments.
            more: Further ones.
        """
        return safety.guarded("openai.content", read, *about, **more) or {}

    def result(self, value: Any, /) -> Attributes:  # noqa: ANN401 - any of the five forms
        """Return what is known from what came back, if it came back at once."""
        form = _form_of(value)
        if self._whole is not None:
            value = self._whole.value()
        elif form is _RAW:
            value = wire.parsed(value.http_response.content)
        elif form is _FOREIGN:
            value = wire.plain(value)
        elif form is _OTHER:
            # An HTTP response has it in bytes.
            value = wire.plain(getattr(value, "content", value))
        if value is None:
            # Read item by item already, or no answer of the API's.
            return {}
        self._complete = True
        return self.answer(value)

    def facts(self) -> Attributes:
        """Return what is known from what was streamed, however it ended."""
        if self._whole is not None:
            return {} if self._whole.size else {semconv.STREAM_UNREAD: True}
        if not self._items:
            return {semconv.STREAM_UNREAD: True} if self._streamed else {}
        attributes = self.gathered()
        if self._first is not None:
            attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (
                self._first - self._began
            )
        if not self._complete:
            attributes[semconv.PARTIAL] = True
            attributes[semconv.OUTPUT_CHARACTERS] = self._characters
        return attributes

    def claims(self, call: Call, value: Any, /) -> bool:  # noqa: ANN401 - any of the five forms
        """Follow *value* if its body is still to come."""
        form = _form_of(value)
        if form in _COMPLETE:
            return False
        if self._request.is_streamed:
            self._record = call.record
        if form is _STREAM:
            read_as_given(call, value)
        response = value.response if form is _STREAM else value.http_response
        if response.is_closed:
            if form is not _STREAM:
                return False
            # All of it is here, as from a cache or a test's double of the server.
            self._streamed = True
            streams.follow_items(call, value, "_iterator")
            return True
        if self._request.is_streamed:
            self._streamed = True
            body = streams.follow(call, response, wire.Events(response).read)
            if form is _STREAM:
                body.follow_items(value, "_iterator")
        else:
            self._whole = whole = wire.Whole(response)
            streams.follow(call, response, whole.read)
        return True

    def noted(self) -> Progress:
        """Note that the model has said something, and when it first did."""
        if self._first is None:
            self._first = time.perf_counter()
            record = self._record
            if record is not None:
                # Not longer than it was silent before, from here on.
                record.heartbeat_timeout = requests.NEXT_WORD
        return PROGRESS


class _Plainly:
    """Has a recorder read as plain JSON what the client makes of items on request.

    Args:
        recorder: The recorder.
    """

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Any) -> None:  # noqa: ANN401 - any that reads plain JSON
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it has
        return getattr(self._recorder, name)

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - whatever was asked for
        """Take note of one item; one that is no object says nothing."""
        item = wire.plain(item)
        return NOTHING if item is None else self._recorder.item(item)


def read_as_given(call: Call, stream: Any) -> None:  # noqa: ANN401 - a Stream or AsyncStream
    """Prepare *call* for items that are not of the client's own classes."""
    asked: Any = getattr(stream, "_cast_to", None)
    kind = get_origin(asked) or asked
    if kind in _JSON or _form_of_class(kind) is _FOREIGN:
        call.recorder = cast("Recorder", _Plainly(call.recorder))


def failure(error: object) -> Ending:
    """Return how a call ended that was answered with what the API calls an error.

    Args:
        error: It, in any form; it may have neither code nor message.
    """
    told = wire.plain(error) or error
    code = getattr(told, "code", None) or "_OTHER"
    message = getattr(told, "message", None) or "the response failed"
    return Ending(
        Outcome.ERROR,
        EndedBy.RETURN,
        message=str(message),
        attributes={semconv.ERROR_TYPE: str(code)},
    )


def known_usage(
    given: object, said: object, cached: object, reasoning: object
) -> dict[str, object]:
    """Return the numbers of tokens as attributes, but for those that are not known.

    Args:
        given: Input tokens.
        said: Output tokens.
        cached: Input tokens that were read from a cache.
        reasoning: Output tokens that were reasoning.
    """
    tokens: dict[str, object] = {}
    if given is not None:
        tokens[_INPUT_TOKENS] = given
    if said is not None:
        tokens[_OUTPUT_TOKENS] = said
    if cached is not None:
        tokens[_CACHED_TOKENS] = cached
    if reasoning is not None:
        tokens[_REASONING_TOKENS] = reasoning
    return tokens


_MODEL: Final = "model"
_STREAM: Final = "stream"
_RAW: Final = "raw"
_FOREIGN: Final = "foreign"
"""A model of the application's own, with the fields that it wants."""
_OTHER: Final = "other"
"""What `client.post` was asked for, as it is for what has no method yet."""
_COMPLETE: Final = (_MODEL, _FOREIGN, _OTHER)
_JSON: Final = (object, dict, list, str)
"""What JSON can be asked for as."""


def _form_of(value: object) -> str:
    """Return which of the forms an answer has."""
    # The type checkers do not believe that every class can be hashed.
    class_: Any = type(value)
    return _form_of_class(class_)


@lru_cache(maxsize=256)
def _form_of_class(cls: Hashable) -> str:
    # By what only such classes have.
    if hasattr(cls, "http_request"):
        return _RAW
    if hasattr(cls, "_iter_events"):
        return _STREAM
    if not hasattr(cls, "model_fields"):
        return _OTHER
    bases = cast("type", cls).__mro__
    is_own = any(base.__module__.startswith("openai.types.") for base in bases)
    return _MODEL if is_own else _FOREIGN
