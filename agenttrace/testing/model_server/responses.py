"""The wire form of Responses, and the life of one that runs in the background.  Pure.

A `StoredResponse` is told the time and the polls; it reads no clock and starts nothing.
Shapes follow https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from agenttrace.testing.model_server.chat import token_usage
from agenttrace.testing.model_server.encoding import (
    Frame,
    Ids,
    JsonObject,
    event,
    middle_of,
    spoilt,
)
from agenttrace.testing.model_server.replies import Part, Reply, Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrace.testing.model_server.requests import Request

_INCOMPLETE: Final = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
_QUEUED_SHARE: Final = 1 / 3
"""How much of its time in the background a response waits for its turn."""
_ECHOED: Final[JsonObject] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class Status(StrEnum):
    """Where a response is in its life."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class StoredResponse:
    """One response, from the request that made it on.

    Args:
        request: What was asked.
        reply: What the script answered.
        ids: Gives the ids of the response, its items and its tool calls.
        created: Seconds since the epoch, for the client to see.
        started: The same instant by the clock that `status` is asked with, in seconds.
    """

    request: Request
    reply: Reply
    ids: Ids
    created: float
    started: float
    id: str = field(init=False)
    cancelled: bool = field(init=False, default=False)
    released: bool = field(init=False, default=False)
    _polls: int = field(init=False, default=0)
    _output: list[JsonObject] = field(init=False)
    _usage: JsonObject = field(init=False)

    def __post_init__(self) -> None:
        """Fix the ids: each view of the response must show the same ones."""
        self.id = self.ids.new("resp_")
        self._output = [self._item(part) for part in self.reply.parts]
        given, said = token_usage(self.request, self.reply)
        self._usage = {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + said,
        }

    @property
    def background(self) -> bool:
        """Whether it was asked for with `background=True`."""
        return self.request.body.get("background") is True

    @property
    def final_status(self) -> Status:
        """What it comes to if nobody cancels it."""
        if self.reply.fail is not None:
            return Status.FAILED
        if self.reply.finish_reason in _INCOMPLETE:
            return Status.INCOMPLETE
        return Status.COMPLETED

    def poll(self, now: float) -> Status:
        """Count one poll and return what it finds."""
        self._polls += 1
        return self.status(now)

    def status(self, now: float) -> Status:
        """Return the status at the instant *now*."""
        if self.cancelled:
            return Status.CANCELLED
        left = self.left(now)
        if not left and not self._polls_left:
            return self.final_status
        if self.reply.background is not None and not self.reply.never:
            begun = left < self.reply.background * (1 - _QUEUED_SHARE)
        else:
            begun = self._polls > 0
        return Status.IN_PROGRESS if begun else Status.QUEUED

    def left(self, now: float) -> float:
        """Return the seconds until it is complete; infinite where it never is."""
        if self.released or not self.background:
            return 0.0
        if self.reply.never:
            return math.inf
        return max(0.0, self.started + (self.reply.background or 0.0) - now)

    @property
    def _polls_left(self) -> int:
        timed = self.reply.never or self.reply.background is not None
        if self.released or timed or not self.background:
            return 0
        return max(0, (self.reply.polls or 1) - self._polls)

    def cancel(self, now: float) -> None:
        """Cancel it, unless it has come to its end: as often as one likes."""
        if self.status(now) in (Status.QUEUED, Status.IN_PROGRESS):
            self.cancelled = True

    def release(self) -> None:
        """Let it complete now, whatever it was waiting for."""
        self.released = True

    def as_json(self, status: Status) -> JsonObject:
        """Return the response object as it looks in *status*."""
        finished = status in (Status.COMPLETED, Status.INCOMPLETE)
        given = self.request.body
        body = {name: given.get(name, usual) for name, usual in _ECHOED.items()}
        failed = status is Status.FAILED
        error = {"code": "server_error", "message": self.reply.fail} if failed else None
        incomplete = None
        if status is Status.INCOMPLETE and self.reply.finish_reason is not None:
            incomplete = {"reason": _INCOMPLETE[self.reply.finish_reason]}
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(self.created),
            "status": status,
            "background": self.background,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.request.model,
            "output": self._output if finished else [],
            "usage": self._usage if finished else None,
            **body,
        }

    def frames(self) -> tuple[list[Frame], list[Frame]]:
        """Return the stream: what comes at once, and what comes with the answer.

        The number of an event is its index in the two lists together.
        """
        first = Status.QUEUED if self.background else Status.IN_PROGRESS
        opening = [self._lifecycle(0, "created", first)]
        if self.background:
            opening.append(self._lifecycle(1, "queued", Status.QUEUED))
        opening.append(self._lifecycle(len(opening), "in_progress", Status.IN_PROGRESS))
        answer = list(self._answer_frames(len(opening)))
        final = self.final_status
        if final is Status.FAILED:
            answer = answer[: middle_of(answer)]
        last = self._lifecycle(len(opening) + len(answer), final, final)
        return opening, spoilt([*answer, last], self.reply)

    def _lifecycle(self, number: int, name: str, status: Status) -> Frame:
        return self._event(number, name, response=self.as_json(status))

    def _event(
        self, number: int, name: str, /, *, paced: bool = False, **data: object
    ) -> Frame:
        kind = f"response.{name}"
        encoded = event({"type": kind, "sequence_number": number, **data}, kind)
        return Frame(encoded, paced=paced)

    def _answer_frames(self, number: int) -> Iterator[Frame]:
        for index, item in enumerate(self._output):
            item_frames = (
                self._call_frames
                if item["type"] == "function_call"
                else self._message_frames
            )
            for frame in item_frames(number, index, item):
                yield frame
                number += 1

    def _message_frames(
        self, number: int, index: int, item: JsonObject
    ) -> Iterator[Frame]:
        part: JsonObject = item["content"][0]
        text: str = part["text"]
        place: JsonObject = {
            "item_id": item["id"],
            "output_index": index,
            "content_index": 0,
        }
        started: JsonObject = {**item, "status": Status.IN_PROGRESS, "content": []}
        yield self._event(number, "output_item.added", output_index=index, item=started)
        empty = {**part, "text": ""}
        yield self._event(number + 1, "content_part.added", **place, part=empty)
        number += 2
        for piece in self.reply.pieces(text):
            yield self._event(
                number,
                "output_text.delta",
                paced=True,
                **place,
                delta=piece,
                logprobs=[],
            )
            number += 1
        yield self._event(number, "output_text.done", **place, text=text, logprobs=[])
        yield self._event(number + 1, "content_part.done", **place, part=part)
        yield self._event(number + 2, "output_item.done", output_index=index, item=item)

    def _call_frames(
        self, number: int, index: int, item: JsonObject
    ) -> Iterator[Frame]:
        arguments: str = item["arguments"]
        place: JsonObject = {"item_id": item["id"], "output_index": index}
        started: JsonObject = {**item, "status": Status.IN_PROGRESS, "arguments": ""}
        yield self._event(number, "output_item.added", output_index=index, item=started)
        kind = "function_call_arguments"
        number += 1
        for piece in self.reply.pieces(arguments):
            yield self._event(number, f"{kind}.delta", paced=True, **place, delta=piece)
            number += 1
        yield self._event(
            number, f"{kind}.done", **place, name=item["name"], arguments=arguments
        )
        yield self._event(number + 1, "output_item.done", output_index=index, item=item)

    def _item(self, part: Part) -> JsonObject:
        if isinstance(part, Text):
            content: JsonObject = {
                "type": "output_text",
                "text": part.content,
                "annotations": [],
                "logprobs": [],
            }
            return {
                "id": self.ids.new("msg_"),
                "type": "message",
                "status": Status.COMPLETED,
                "role": "assistant",
                "content": [content],
            }
        return {
            "id": self.ids.new("fc_"),
            "type": "function_call",
            "status": Status.COMPLETED,
            "call_id": self.ids.new("call_"),
            "name": part.name,
            "arguments": part.arguments,
        }
