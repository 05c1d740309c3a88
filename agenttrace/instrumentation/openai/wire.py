"""JSON and server-sent events, read from the bytes of a body.  Pure.

For responses that the application takes raw: nothing has parsed them, so this does, for
the few facts that a span wants.  What it returns is read by attribute like the client's
own models.  Bodies and events beyond a bound are passed over: telling the usage of an
answer is not worth a copy of all of it.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_BYTES: Final = 1 << 20
"""Bytes of one body, or of one event, that are read."""
_DONE: Final = b"[DONE]"


class Plain(dict[str, Any]):
    """A JSON object that is read by attribute; what it has not is None."""

    __getattr__ = dict[str, Any].get


def parsed(content: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return what *content* is as JSON, None where it is none or is too large."""
    if len(content) > MOST_BYTES:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(content, object_hook=Plain)
    return None


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    """Return *value*, which is JSON in any form; None where it is no object.

    Args:
        value: It, parsed, or in bytes, or in models of pydantic.
    """
    found = parsed(value) if isinstance(value, bytes) else _plain(value)
    return found if isinstance(found, Plain) else None


def _plain(value: object) -> object:
    if hasattr(type(value), "model_fields"):
        # Not `model_dump`: that would run what the application has put into it.
        more = cast("dict[str, object]", getattr(value, "model_extra", None) or {})
        value = {**vars(value), **more}
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return Plain({key: _plain(each) for key, each in items})
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[object]", value)]
    return value


class Whole:
    """Keeps the bytes of one body as they pass, to be read when it is complete.

    Args:
        response: The response whose body it is.
    """

    def __init__(self, response: Any) -> None:  # noqa: ANN401 - a response of httpx or its fork
        # Not the response: it holds what holds this.
        self._class: Callable[..., Any] = type(response)
        self._encoding = _encoding_of(response)
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes have passed."""
        return self._size

    def read(self, part: bytes) -> tuple[()]:
        """Take note of *part*; there is never an item in it."""
        self._size += len(part)
        if self._size <= MOST_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()
        return ()

    def value(self) -> Any:  # noqa: ANN401 - any JSON
        """Return what the body was as JSON, None where it was none or is too large."""
        if self._size > MOST_BYTES:
            return None
        content = b"".join(self._parts)
        if self._encoding:
            # Whatever it knows to decode the application could have asked for.
            headers = {"content-encoding": self._encoding}
            content = self._class(200, headers=headers, content=content).content
        return parsed(content)


class Events:
    """Finds the server-sent events in the bytes of a body as they pass.

    Args:
        response: The response whose body it is.  Compressed with anything but gzip or
            deflate it has no events for us.
    """

    def __init__(self, response: Any) -> None:  # noqa: ANN401 - a response of httpx or its fork
        encoding = _encoding_of(response)
        self._decode: Callable[[bytes], bytes] | None = bytes
        if encoding in ("gzip", "deflate"):
            self._decode = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
        elif encoding:
            self._decode = None
        self._rest = b""
        self._data: list[bytes] = []

    def read(self, part: bytes) -> Iterator[Any]:
        """Yield the data of every event that is complete with *part*."""
        if self._decode is None:
            return
        *lines, rest = (self._rest + self._decode(part)).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")  # noqa: PLW2901 - the same line
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                event = None if data == _DONE else parsed(data)
                if event is not None:
                    yield event
        # A line that never ends is dropped, and what comes of it cannot be parsed.
        self._rest = rest if len(rest) <= MOST_BYTES else b""


def _encoding_of(response: Any) -> str:  # noqa: ANN401 - a response of httpx or its fork
    encoding = cast("str", response.headers.get("content-encoding", ""))
    return "" if encoding == "identity" else encoding.strip().lower()
