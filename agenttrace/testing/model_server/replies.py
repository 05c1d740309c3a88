"""What a script answers: the content, its pace, and what goes wrong on the way.

A `Reply` is a value.  It is made by `text`, `tool_call`, `json_value` or `error`, each
of which takes every option as a keyword argument; `reply.with_options(...)` changes
options afterwards, and `+` puts several contents into one answer.  How a reply looks on
the wire is the business of `chat` and `responses`, how it travels that of `sending`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, Unpack

from agenttrace.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

Stage: TypeAlias = Literal["head", "mid"]
"""Where a fault strikes: before the first byte of the answer, or half way through."""

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]

_TOKENS: Final = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+")
_STAGES: Final = (None, "head", "mid")
_FINISH_REASONS: Final = (None, "stop", "length", "tool_calls", "content_filter")


class Options(TypedDict, total=False):
    """The options of a reply, by name; `Reply` says what each one means."""

    delay: float
    gap: float
    chunks: int
    stall: Stage
    cut: Stage
    fail: str
    garbage: bool
    drip: float
    keep_alive_comments: float
    background: float
    polls: int
    never: bool
    usage: tuple[int, int]
    finish_reason: FinishReason
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Text:
    """Something the model says.

    Args:
        content: The text.
    """

    content: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants called.

    Args:
        name: The tool's.
        arguments: JSON, sent as it is, valid or not.
    """

    name: str
    arguments: str


Part: TypeAlias = Text | ToolCall
"""What the model says, or wants called."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error in place of an answer.

    Args:
        status: HTTP's.
        message: What the error says.
        code, param: OpenAI's, where there are any.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the model server.  All times are seconds.

    Args:
        parts: What the model says and calls, in order.
        failure: An HTTP error; then *parts* is not looked at.
        delay: Time before the head of the answer.
        gap: Time between two chunks of a stream.
        chunks: Into how many chunks a stream splits each part (fewer, where it has
            fewer characters); None splits at words, about as a tokenizer does.
        stall: Go silent at this stage, until `ModelServer.release` or `stop`, or until
            the client has gone.
        cut: Close the connection at this stage, without the end of the message.
        fail: The model fails half way, with this message: `response.failed`, an error
            inside a chat stream; a plain chat completion becomes a status 500.
        garbage: Half way, something that is not JSON.
        drip: Send byte by byte, with this much time between two of them.
        keep_alive_comments: While a stream is silent, send an SSE comment each time
            this much has passed: bytes arrive, and no progress is made.
        background: How long a response that was asked for with `background=True` takes.
        polls: The poll that finds such a response complete, 1 being the first.
        never: Such a response stays in progress, until `ModelServer.release`.
            Of *never*, *background* and *polls* the first that is given holds; without
            any of them the first poll finds the response complete.
        usage: Input and output tokens; None estimates them.
        finish_reason: Of every choice; `length` and `content_filter` make a response
            `incomplete`.  None is `stop`, or `tool_calls` where there are some.
        headers: Further headers of the HTTP response.

    Raises:
        SettingError: An option has a value that cannot be meant.
    """

    parts: tuple[Part, ...] = ()
    failure: Failure | None = None
    delay: float = 0.0
    gap: float = 0.0
    chunks: int | None = None
    stall: Stage | None = None
    cut: Stage | None = None
    fail: str | None = None
    garbage: bool = False
    drip: float | None = None
    keep_alive_comments: float | None = None
    background: float | None = None
    polls: int | None = None
    never: bool = False
    usage: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant here, where the script's line is on the stack."""
        for name in ("delay", "gap", "drip", "background"):
            seconds: float | None = getattr(self, name)
            if seconds is not None and not (0 <= seconds < math.inf):
                raise SettingError(name, seconds, "zero or more seconds")
        # Zero would be a loop of comments that leaves the server no time to do more.
        comments = self.keep_alive_comments
        if comments is not None and not (0 < comments < math.inf):
            raise SettingError(
                setting="keep_alive_comments",
                value=comments,
                allowed="more than zero seconds",
            )
        for name in ("chunks", "polls"):
            number: int | None = getattr(self, name)
            if number is not None and number < 1:
                raise SettingError(name, number, "one or more")
        for name in ("stall", "cut"):
            if getattr(self, name) not in _STAGES:
                raise SettingError(name, getattr(self, name), '"head" or "mid"')
        if self.finish_reason not in _FINISH_REASONS:
            allowed = ", ".join(str(reason) for reason in _FINISH_REASONS[1:])
            raise SettingError(
                setting="finish_reason",
                value=self.finish_reason,
                allowed=f"one of {allowed}",
            )

    def __add__(self, other: Reply) -> Reply:
        """Return one answer with the parts of both.

        Raises:
            ValueError: *other* has options, or one of the two is an error: which of
                them would hold?

        >>> (tool_call("a") + tool_call("b")).with_options(chunks=2).chunks
        2
        """
        if self.failure is not None or other != Reply(parts=other.parts):
            message = (
                "only plain replies can follow a +; give options to the sum: "
                "(a + b).with_options(...)"
            )
            raise ValueError(message)
        return replace(self, parts=self.parts + other.parts)

    def with_options(self, **options: Unpack[Options]) -> Reply:
        """Return the same reply with *options* changed."""
        return replace(self, **options)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that this reply asks for."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def text(self) -> str | None:
        """All that the model says; None where it only calls tools."""
        said = [part.content for part in self.parts if isinstance(part, Text)]
        return "".join(said) if said else None

    def pieces(self, content: str) -> list[str]:
        """Split *content* as a stream would.

        >>> text("one two  three").pieces("one two  three")
        ['one', ' two', '  three']
        >>> text("abcdefg", chunks=3).pieces("abcdefg")
        ['abc', 'de', 'fg']
        """
        if self.chunks is None:
            return _TOKENS.findall(content)
        size, longer = divmod(len(content), self.chunks)
        pieces: list[str] = []
        at = 0
        for index in range(min(self.chunks, len(content))):
            end = at + size + (index < longer)
            pieces.append(content[at:end])
            at = end
        return pieces


def text(content: str, **options: Unpack[Options]) -> Reply:
    """Answer with *content*."""
    return Reply(parts=(Text(content),), **options)


def tool_call(
    name: str,
    arguments: Mapping[str, object] | str = "{}",
    **options: Unpack[Options],
) -> Reply:
    """Ask for the tool *name*; a string of *arguments* is sent as it is.

    >>> tool_call("search", {"query": "tea"}).tool_calls
    (ToolCall(name='search', arguments='{"query": "tea"}'),)
    """
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    return Reply(parts=(ToolCall(name, arguments),), **options)


def json_value(value: object, **options: Unpack[Options]) -> Reply:
    """Answer with *value* as JSON: what structured outputs expect."""
    return text(json.dumps(value), **options)


def error(
    status: int,
    message: str = "the script said so",
    *,
    code: str | None = None,
    **options: Unpack[Options],
) -> Reply:
    """Answer with an HTTP error, for example 429 with `headers={"retry-after": "1"}`.

    Raises:
        SettingError: *status* is no status of an error.
    """
    if not 400 <= status <= 599:  # noqa: PLR2004 - HTTP's own numbers
        raise SettingError(setting="status", value=status, allowed="from 400 to 599")
    return Reply(failure=Failure(status, message, code), **options)
