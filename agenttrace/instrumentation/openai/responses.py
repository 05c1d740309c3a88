"""Reads responses, whole and streamed, and what becomes of those in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from agenttrace import content, semconv
from agenttrace.instrumentation import _messages as messages
from agenttrace.instrumentation.openai import background, requests, wire
from agenttrace.instrumentation.openai.recording import (
    FINAL,
    NOTHING,
    PROGRESS,
    ModelRecorder,
    failure,
    known_usage,
)
from agenttrace.model import EndedBy, Ending, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.call import Call
    from agenttrace.boundary.recorder import Progress
    from agenttrace.instrumentation.openai.requests import Request
    from agenttrace.model import Attributes


class ResponsesRecorder(ModelRecorder):
    """Reads one response.

    The events that only tell of the response's status are no first chunk, nor is the
    announcement that the model reasons: it may be silent for minutes after either.
    """

    operation: ClassVar = semconv.CHAT
    readers: ClassVar[Mapping[str, tuple[str, requests.Read]]] = {
        "temperature": (semconv.GEN_AI_REQUEST_TEMPERATURE, requests.number),
        "top_p": (semconv.GEN_AI_REQUEST_TOP_P, requests.number),
        "max_output_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, requests.count),
        "stream": (semconv.GEN_AI_REQUEST_STREAM, requests.yes),
        "text": (semconv.GEN_AI_OUTPUT_TYPE, requests.text_format),
        "conversation": (semconv.GEN_AI_CONVERSATION_ID, requests.identity),
    }

    __slots__ = ("_error", "_id", "_last", "_model", "_spoken", "polls", "status")

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._id: object = None
        self._model: object = None
        self._last: Any = None
        self._error: object = None
        self._spoken: list[str] | None = [] if self.captures else None
        self.status: str | None = None
        """The response's status when last heard of."""
        self.polls = 0
        """How often it was asked for, where it is in the background."""

    @property
    def identity(self) -> str | None:
        """The response's id, as soon as it is known."""
        return None if self._id is None else str(self._id)

    @property
    def in_background(self) -> bool:
        """Whether the response goes on when the request has been answered."""
        return self._request.parameters.get("background") is True

    def messages(self) -> Attributes:
        """Return instructions and input."""
        parameters = self._request.parameters
        attributes = content.attribute_of(
            semconv.GEN_AI_INPUT_MESSAGES, messages.of_input(parameters.get("input"))
        )
        instructions = messages.of_instructions(parameters.get("instructions"))
        if instructions:
            attributes |= content.attribute_of(
                semconv.GEN_AI_SYSTEM_INSTRUCTIONS, instructions
            )
        return attributes

    def claims(self, call: Call, value: Any, /) -> bool:  # noqa: ANN401 - any of the five forms
        """Follow *value* if its body is still to come, or the response itself."""
        if self.in_background:
            return background.Background(call, self, self._request).begins_with(value)
        return super().claims(call, value)

    def answer(self, answer: Any) -> dict[str, object]:  # noqa: ANN401 - a Response, or plain JSON
        """Return what is known from a whole response."""
        self.note(answer)
        return self._described()

    def note(self, answer: Any) -> bool:  # noqa: ANN401 - a Response, or plain JSON
        """Take note of a response object; return whether its status is a new one."""
        if answer.__class__ is dict:  # of an event that the client has no model for
            answer = wire.plain(answer)
        self._last = answer
        self._id, self._model = answer.id, answer.model
        before, self.status = self.status, answer.status
        self._complete = bool(_finish_reason(answer))
        if answer.error is not None:
            self._error = answer.error
        return before is not None and before != self.status

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401 - an event, or plain JSON
        """Take note of one event."""
        self._items = True
        kind: str = item.type
        if kind in _TEXTS:
            delta: str = item.delta
            self._characters += len(delta)
            if self._spoken is not None and kind == _TEXT:
                self._spoken.append(delta)
            return PROGRESS if self._first is not None else self.noted()
        if kind in _LIFECYCLE:
            return PROGRESS if self.note(item.response) else NOTHING
        if kind in _LAST:
            self._complete = True
            if kind == _ERROR:
                # The client raises where the API puts it one level deeper.
                self._error = getattr(item, "error", None) or item
            else:
                self.note(item.response)
            return FINAL
        if kind == _KEEPALIVE or (kind == _ADDED and item.item.type == "reasoning"):
            return NOTHING
        return self.noted()

    def gathered(self) -> dict[str, object]:
        """Return what is known from the events so far."""
        return self._described()

    def facts(self) -> Attributes:
        """Return what is known from events and polls."""
        attributes = dict(super().facts())
        if self.in_background:
            if not self._items and self._last is not None:
                attributes |= self._described()
            if self.status is not None:
                attributes[semconv.RESPONSE_STATUS] = self.status
            attributes[semconv.POLLS] = self.polls
        return attributes

    def verdict(self) -> Ending | None:
        """Return how it ended, where the API says in the answer that it went wrong."""
        if self._error is not None or self.status == "failed":
            return failure(self._error)
        if self.status == "cancelled":
            return Ending(Outcome.CANCELLED, EndedBy.CANCEL)
        return None

    def _described(self) -> dict[str, object]:
        attributes: dict[str, object] = {}
        if self._id:
            attributes[semconv.GEN_AI_RESPONSE_ID] = self._id
        if self._model:
            attributes[semconv.GEN_AI_RESPONSE_MODEL] = self._model
        last = self._last
        reason = "" if last is None else _finish_reason(last)
        if reason:
            attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = (reason,)
        usage = None if last is None else last.usage
        if usage is not None:
            attributes |= _usage(usage)
        if self.captures:
            attributes.update(self.content_of(self._said, reason))
        return attributes

    def _said(self, reason: str) -> dict[str, str]:
        """Return the output: all of it where it is known, else the text so far."""
        if reason:
            said = messages.of_output(self._last.output, reason)
        elif self._spoken:
            said = [messages.of_text("".join(self._spoken))]
        else:
            return {}
        return content.attribute_of(semconv.GEN_AI_OUTPUT_MESSAGES, said)


def _finish_reason(response: Any) -> str:  # noqa: ANN401 - a Response, or plain JSON
    """Return why it finished, in the words of a chat completion; empty if it has not.

    The API has no such word for a response that is complete.
    """
    if response.status == "completed":
        called = any(item.type == "function_call" for item in response.output or ())
        return "tool_calls" if called else "stop"
    if response.status == "incomplete":
        reason = getattr(response.incomplete_details, "reason", None)
        return "length" if reason in {None, "max_output_tokens"} else str(reason)
    return ""


def _usage(usage: Any) -> dict[str, object]:  # noqa: ANN401 - a ResponseUsage, or plain JSON
    cached = getattr(usage.input_tokens_details, "cached_tokens", None)
    reasoning = getattr(usage.output_tokens_details, "reasoning_tokens", None)
    return known_usage(usage.input_tokens, usage.output_tokens, cached, reasoning)


_TEXT: Final = "response.output_text.delta"
_TEXTS: Final = frozenset(
    {
        _TEXT,
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)
_LIFECYCLE: Final = frozenset(
    {"response.created", "response.queued", "response.in_progress"}
)
_ERROR: Final = "error"
_LAST: Final = frozenset(
    {
        _ERROR,
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.cancelled",
    }
)
_ADDED: Final = "response.output_item.added"
_KEEPALIVE: Final = "keepalive"
