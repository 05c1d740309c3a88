"""Reads chat completions, whole and streamed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from agenttrace import content, semconv
from agenttrace.instrumentation import _messages as messages
from agenttrace.instrumentation.openai import requests
from agenttrace.instrumentation.openai.recording import (
    FINAL,
    NOTHING,
    PROGRESS,
    ModelRecorder,
    failure,
    known_usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agenttrace.boundary.recorder import Progress
    from agenttrace.instrumentation._messages import Spoken
    from agenttrace.instrumentation.openai.requests import Request
    from agenttrace.model import Attributes, Ending


class ChatRecorder(ModelRecorder):
    """Reads one chat completion.

    A stream is complete when each choice has its `finish_reason`; the usage may come
    after that, or not at all.  A chunk in which nothing is said is no progress: servers
    send the role, or a word on content filters, before the model has begun.
    """

    operation: ClassVar = semconv.CHAT
    readers: ClassVar[Mapping[str, tuple[str, requests.Read]]] = {
        "temperature": (semconv.GEN_AI_REQUEST_TEMPERATURE, requests.number),
        "top_p": (semconv.GEN_AI_REQUEST_TOP_P, requests.number),
        "max_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, requests.count),
        "max_completion_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, requests.count),
        "frequency_penalty": (
            semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY,
            requests.number,
        ),
        "presence_penalty": (semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, requests.number),
        "stop": (semconv.GEN_AI_REQUEST_STOP_SEQUENCES, requests.texts),
        "seed": (semconv.GEN_AI_REQUEST_SEED, requests.count),
        "n": (semconv.GEN_AI_REQUEST_CHOICE_COUNT, requests.choices),
        "stream": (semconv.GEN_AI_REQUEST_STREAM, requests.yes),
        "response_format": (semconv.GEN_AI_OUTPUT_TYPE, requests.output_type),
    }

    __slots__ = (
        "_choices",
        "_finished",
        "_id",
        "_model",
        "_spoken",
        "_usage",
        "verdict",
    )

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._id: object = None
        self._model: object = None
        self._usage: Any = None
        asked = request.parameters.get("n")
        # A server may take it for a number where the conventions do not.
        self._choices = asked if isinstance(asked, int) else 1
        self._finished: dict[int, str] = {}
        self._spoken = messages.Spoken() if self.captures else None
        # Where a slot is empty, who asks pays for an exception.
        self.verdict: Callable[[], Ending] | None = None

    def messages(self) -> Attributes:
        """Return the conversation so far."""
        return content.attribute_of(
            semconv.GEN_AI_INPUT_MESSAGES,
            messages.of_chat(self._request.parameters.get("messages")),
        )

    def answer(self, answer: Any) -> dict[str, object]:  # noqa: ANN401 - a completion, or plain JSON
        """Return what is known from a whole completion."""
        choices = answer.choices or ()
        attributes = _described(answer.id, answer.model, answer.usage)
        if not choices:
            self._says_so(answer)
            return attributes
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = tuple(
            [choice.finish_reason or "" for choice in choices]
        )
        if self.captures:
            attributes.update(self.content_of(_said, choices))
        return attributes

    def item(self, item: Any, /) -> Progress:  # noqa: ANN401, C901 - a chunk, or plain JSON; each call more would cost every chunk
        """Take note of one chunk."""
        if item.usage is not None:
            self._usage = item.usage
        choices = item.choices
        if not choices:
            if self._first is None:
                self._begins(item)
            return FINAL if self._says_so(item) else NOTHING
        progress = NOTHING
        for choice in choices:
            delta = choice.delta
            if delta is not None:
                text = delta.content
                if text:
                    self._characters += len(text)
                    progress = PROGRESS
                    if self._spoken is not None:
                        self._spoken.text(choice.index, text)
                if (not text or delta.tool_calls) and self._also(choice.index, delta):
                    progress = PROGRESS
            reason = choice.finish_reason
            if reason:
                self._finished[choice.index] = reason
                if len(self._finished) >= self._choices:
                    self._complete = True
                    progress = FINAL
        if self._first is None:
            self._begins(item)
            if progress is not NOTHING:
                self.noted()
        return progress

    def _begins(self, item: Any) -> None:  # noqa: ANN401 - a chunk, or plain JSON
        """Take note of what every chunk says of the whole."""
        self._items = True
        self._id, self._model = item.id, item.model

    def _says_so(self, answer: Any) -> bool:  # noqa: ANN401 - a model, or plain JSON
        """Take note if *answer* says that there is none; return whether it does.

        Gateways answer 200 and an error; and what the client raises for in the middle
        of a stream is a line like the others to whoever reads the lines.
        """
        error = getattr(answer, "error", None)
        if error:
            # Not a method: every call would be asked, for the sake of these.
            self.verdict = partial(failure, error)
        return bool(error)

    def _also(self, index: int, delta: Any) -> bool:  # noqa: ANN401 - a delta, or plain JSON
        """Take note of what is not text; return whether there was any."""
        spoken = self._spoken
        calls = delta.tool_calls
        for call in calls or ():
            function = call.function
            if function is not None:
                self._characters += len(function.arguments or "")
                if spoken is not None:
                    spoken.tool_call(index, call)
        refusal = delta.refusal
        if refusal:
            self._characters += len(refusal)
            if spoken is not None:
                spoken.text(index, refusal)
        # Reasoning has a name of its own at every compatible server.
        return bool(
            calls or refusal or delta.function_call or any(messages.unmodelled(delta))
        )

    def gathered(self) -> dict[str, object]:
        """Return what is known from the chunks so far."""
        attributes = _described(self._id, self._model, self._usage)
        if self._finished:
            attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = tuple(
                [self._finished[index] for index in sorted(self._finished)]
            )
        if self._spoken is not None:
            attributes.update(self.content_of(self._said_so_far, self._spoken))
        return attributes

    def _said_so_far(self, spoken: Spoken) -> Attributes:
        said = spoken.messages(self._finished)
        if not said:
            return {}
        return content.attribute_of(semconv.GEN_AI_OUTPUT_MESSAGES, said)


def _said(choices: Sequence[Any]) -> Attributes:
    return content.attribute_of(
        semconv.GEN_AI_OUTPUT_MESSAGES,
        [messages.of_choice(choice) for choice in choices],
    )


def _described(
    identity: object,
    model: object,
    usage: Any,  # noqa: ANN401 - CompletionUsage, plain JSON, or None
) -> dict[str, object]:
    attributes: dict[str, object] = {}
    if identity:
        attributes[semconv.GEN_AI_RESPONSE_ID] = identity
    if model:
        attributes[semconv.GEN_AI_RESPONSE_MODEL] = model
    if usage is None:
        return attributes
    cached = getattr(usage.prompt_tokens_details, "cached_tokens", None)
    reasoning = getattr(usage.completion_tokens_details, "reasoning_tokens", None)
    attributes |= known_usage(
        usage.prompt_tokens, usage.completion_tokens, cached, reasoning
    )
    return attributes
