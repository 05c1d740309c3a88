"""The bytes of the protocol: JSON bodies and server-sent events.  Pure.

A stream is a list of `Frame`s, so that "half way" has a meaning before the first byte
is sent, and so that a background response can be read again from any event on.
"""

from __future__ import annotations

import json
import secrets
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrace.testing.model_server.replies import Reply

JsonObject: TypeAlias = dict[str, Any]

DONE: Final = b"data: [DONE]\n\n"
COMMENT: Final = b": keep-alive\n\n"
_GARBAGE: Final = b'data: {"id": "half an obj\n\n'

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FIRST_SERVER_ERROR: Final = 500
_TOO_MANY_REQUESTS: Final = 429


class Frame(NamedTuple):
    """One event of a stream.

    Args:
        data: The event as bytes.
        paced: Whether it carries a piece of the answer: gaps come between these.
    """

    data: bytes
    paced: bool = False


class Ids:
    """Ids that no other server hands out: frameworks keep them across runs."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def new(self, kind: str) -> str:
        """Return the next id, for example `call_5f0c2a91_7` for the kind `call_`."""
        return f"{kind}{self._prefix}_{next(self._numbers)}"


def json_bytes(value: object) -> bytes:
    """Encode *value* as the API does: UTF-8, nothing escaped that need not be."""
    encoded = _encode(value)
    try:
        return encoded.encode()
    except UnicodeEncodeError:
        # A lone surrogate, which a client may send as an escape and an echo returns.
        return json.dumps(value).encode()


def event(data: Mapping[str, object], name: str | None = None) -> bytes:
    """Encode one server-sent event; chat streams name none, responses name all."""
    head = b"" if name is None else b"event: %s\n" % name.encode()
    return b"%sdata: %s\n\n" % (head, json_bytes(data))


def middle_of(frames: Sequence[Frame]) -> int:
    """Return the index of the frame before which a stream is half way.

    At least one piece of the answer has been sent by then, where there is one.
    """
    paced = [index for index, frame in enumerate(frames) if frame.paced]
    if not paced:
        return len(frames) // 2
    if len(paced) == 1:
        return paced[0] + 1
    return paced[len(paced) // 2]


def spoilt(frames: list[Frame], reply: Reply) -> list[Frame]:
    """Return *frames*, with garbage half way where *reply* wants it."""
    if not reply.garbage:
        return frames
    middle = middle_of(frames)
    return [*frames[:middle], Frame(_GARBAGE), *frames[middle:]]


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> JsonObject:
    """Return the body of an HTTP error, of the type that goes with *status*."""
    if status >= _FIRST_SERVER_ERROR:
        kind = "server_error"
    elif status == _TOO_MANY_REQUESTS:
        kind, code = "requests", code or "rate_limit_exceeded"
    else:
        kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
