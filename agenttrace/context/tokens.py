"""Tokens: the place that a run has come to, as text that outlives its process.

    agenttrace-1-<trace id>-<span id>-<flags>[-<conversation id>]

Ids and flags are hexadecimal, as in `traceparent`; the conversation id is
percent-encoded and may be missing.  A token has at most `MAX_TOKEN` characters, all of
them ASCII, so it fits into a column, a cookie, or a JSON document as it stands.

Nothing else goes into it.  What else an application has bound, a user's id for one, is
no other system's business, and a token is stored in one.

Pure functions: what is current is for the verbs to ask.
"""

from __future__ import annotations

import re
from typing import Final, cast
from urllib.parse import quote, unquote

from opentelemetry.trace import SpanContext, TraceFlags

from agenttrace.records import NamedTuple

MAX_TOKEN: Final = 1024
"""Characters of a token.  Whose conversation id leaves no room for it has none."""

_PATTERN: Final = re.compile(
    r"agenttrace-1-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})"
    r"(?:-((?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+))?"
)


class Origin(NamedTuple):
    """Where a token was made: the span, and the conversation that it was part of."""

    span: SpanContext
    conversation_id: str | None = None


def write(origin: Origin) -> str:
    """Return the token of *origin*.

    >>> span = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    >>> token = write(Origin(span, "c 17"))
    >>> token
    'agenttrace-1-00000000000000000000000000000abc-0000000000000def-01-c%2017'
    >>> read(token).conversation_id
    'c 17'
    """
    span = origin.span
    token = (
        f"agenttrace-1-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    )
    if origin.conversation_id:
        whole = f"{token}-{quote(origin.conversation_id, safe='')}"
        if len(whole) <= MAX_TOKEN:
            return whole
    return token


def read(token: object) -> Origin | None:
    """Return what *token* says; None where it is none, or of a form of the future.

    >>> read("agenttrace-1-made-up") is None
    True
    """
    # By type, and past what a subclass of `str` makes of it: both may be foreign code.
    if not issubclass(type(token), str):
        return None
    text = str.__str__(cast("str", token))
    match = _PATTERN.fullmatch(text) if len(text) <= MAX_TOKEN else None
    if match is None:
        return None
    trace_id, span_id, flags, quoted = match.groups()
    span = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
    )
    try:
        conversation_id = None if quoted is None else unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        return None
    return Origin(span, conversation_id) if span.is_valid else None
