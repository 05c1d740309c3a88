"""The wire form of Chat Completions.  Pure: request and reply in, JSON and frames out.

Shapes follow https://platform.openai.com/docs/api-reference/chat, Azure's additions
https://learn.microsoft.com/azure/ai-services/openai/reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from agenttrace.testing.model_server.encoding import (
    DONE,
    Frame,
    Ids,
    JsonObject,
    error_body,
    event,
    middle_of,
    spoilt,
)
from agenttrace.testing.model_server.replies import Reply, Text
from agenttrace.testing.model_server.requests import Request, text_of

_NO_FILTER: Final[JsonObject] = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT_FILTER: Final = [{"prompt_index": 0, "content_filter_results": _NO_FILTER}]


def token_usage(request: Request, reply: Reply) -> tuple[int, int]:
    """Return input and output tokens: the script's, or else about a word each."""
    if reply.usage is not None:
        return reply.usage
    given = sum(
        len(text_of(message.get("content", message.get("output"))).split())
        for message in request.messages
    )
    said = sum(
        len(reply.pieces(part.content if isinstance(part, Text) else part.arguments))
        for part in reply.parts
    )
    return max(1, given), max(1, said)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One chat completion, which can be read whole or as a stream.

    Args:
        request: What was asked.
        reply: What the script answered.
        ids: Gives the ids of the completion and of its tool calls.
        created: Seconds since the epoch.
    """

    request: Request
    reply: Reply
    ids: Ids
    created: int

    def whole(self) -> JsonObject:
        """Return the completion as one object."""
        body: JsonObject = {
            **self._head("chat.completion"),
            "choices": [self._choice(index) for index in range(self._choices)],
            "usage": self._usage(),
        }
        if self.request.azure:
            body["prompt_filter_results"] = _PROMPT_FILTER
        return body

    def frames(self) -> list[Frame]:
        """Return the completion as a stream, with what is broken in it."""
        frames = list(self._frames())
        if self.reply.fail is not None:
            failure = Frame(event(error_body(500, self.reply.fail)))
            frames = [*frames[: middle_of(frames)], failure]
        return spoilt(frames, self.reply)

    @property
    def _choices(self) -> int:
        wanted = self.request.body.get("n")
        return wanted if isinstance(wanted, int) and wanted > 1 else 1

    @property
    def _finish_reason(self) -> str:
        ordinary = "tool_calls" if self.reply.tool_calls else "stop"
        return self.reply.finish_reason or ordinary

    def _head(self, kind: str) -> JsonObject:
        return {
            "id": self.ids.new("chatcmpl-"),
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }

    def _choice(self, index: int) -> JsonObject:
        message: JsonObject = {
            "role": "assistant",
            "content": self.reply.text,
            "refusal": None,
            "annotations": [],
        }
        calls = [
            {
                "id": self.ids.new("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in self.reply.tool_calls
        ]
        if calls:
            message["tool_calls"] = calls
        choice: JsonObject = {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": self._finish_reason,
        }
        if self.request.azure:
            choice["content_filter_results"] = _NO_FILTER
        return choice

    def _usage(self) -> JsonObject:
        given, said = token_usage(self.request, self.reply)
        return {
            "prompt_tokens": given,
            "completion_tokens": said,
            "total_tokens": given + said,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def _frames(self) -> Iterator[Frame]:
        streaming: object = self.request.body.get("stream_options")
        with_usage = (
            isinstance(streaming, Mapping)
            and cast("Mapping[str, Any]", streaming).get("include_usage") is True
        )
        # The API says `usage: null` on every chunk but the last, where it is wanted.
        unknown: JsonObject = {"usage": None} if with_usage else {}
        chunks = _Chunks({**self._head("chat.completion.chunk"), **unknown})
        if self.request.azure:
            yield chunks.frame(id="", choices=[], prompt_filter_results=_PROMPT_FILTER)
        choices = range(self._choices)
        for delta, paced in self._deltas():
            for choice in choices:
                yield chunks.delta(choice, delta, paced=paced)
        for choice in choices:
            yield chunks.delta(choice, {}, self._finish_reason)
        if with_usage:
            yield chunks.frame(choices=[], usage=self._usage())
        yield Frame(DONE)

    def _deltas(self) -> Iterator[tuple[JsonObject, bool]]:
        """Give what each choice says in turn, and whether it is a piece of content."""
        content = None if self.reply.text is None else ""
        yield {"role": "assistant", "content": content, "refusal": None}, False
        call_index = 0
        for part in self.reply.parts:
            if isinstance(part, Text):
                for piece in self.reply.pieces(part.content):
                    yield {"content": piece}, True
                continue
            opening = {
                "index": call_index,
                "id": self.ids.new("call_"),
                "type": "function",
                "function": {"name": part.name, "arguments": ""},
            }
            yield {"tool_calls": [opening]}, False
            for piece in self.reply.pieces(part.arguments):
                more = {"index": call_index, "function": {"arguments": piece}}
                yield {"tool_calls": [more]}, True
            call_index += 1


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Encodes the chunks of one stream, which share their *head*."""

    head: JsonObject

    def frame(self, *, paced: bool = False, **data: object) -> Frame:
        return Frame(event({**self.head, **data}), paced=paced)

    def delta(
        self,
        choice: int,
        delta: JsonObject,
        finish_reason: str | None = None,
        *,
        paced: bool = False,
    ) -> Frame:
        said = {
            "index": choice,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return self.frame(choices=[said], paced=paced)
