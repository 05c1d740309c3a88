"""The texts of a slot: names, in a room of fixed size, to bytes and back.

Pure.  A text is a tag, a length and UTF-8; the tag 0, or the end of the room, ends
them.  Which texts there are stands in the table of `format`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agenttrace import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS_SIZE: Final = 356
"""Bytes that texts and links have together."""
KEY_ATTRIBUTES: Final[tuple[str, ...]] = (
    semconv.GEN_AI_CONVERSATION_ID,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.GEN_AI_AGENT_NAME,
    semconv.GEN_AI_TOOL_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
)
"""The attributes that are kept, which are names and no content.  Tags from 5 on."""
_NAME, _OPERATION, _SCOPE_NAME, _SCOPE_VERSION, CONVERSATION = range(1, 6)
_WHOLE: Final = frozenset({CONVERSATION})
_MOST_BYTES: Final = (0, 128, 32, 64, 16, 64, 64, 64, 64, 32)


def pack_texts(
    name: str,
    operation: str | None,
    scope_name: str,
    scope_version: str,
    attributes: Mapping[str, object],
) -> bytes:
    """Return a slot's texts; of *attributes* the strings under `KEY_ATTRIBUTES`."""
    given = (
        name,
        operation,
        scope_name or None,
        scope_version or None,
        *(attributes.get(key) for key in KEY_ATTRIBUTES),
    )
    packed = b""
    for tag, text in enumerate(given, start=1):
        packed += pack_text(tag, text, TEXTS_SIZE - len(packed))
    return packed


def pack_text(tag: int, text: object, room: int) -> bytes:
    """Return *text* with its tag, in at most *room* bytes; nothing where it is none."""
    room = min(_MOST_BYTES[tag], room - 2)
    if not isinstance(text, str) or room < 0:
        return b""
    cut = encoded(text, room)
    if tag in _WHOLE and cut != text.encode(errors="replace"):
        return b""
    return bytes((tag, len(cut))) + cut


def encoded(text: str, most: int) -> bytes:
    """Return *text* in UTF-8, cut between two characters to at most *most* bytes.

    >>> encoded("Zürich", 2)
    b'Z'
    """
    most = max(most, 0)
    # No character has less than one byte, so what is beyond need not be encoded.
    data = text[:most].encode(errors="replace")
    if len(data) <= most:
        return data
    return data[:most].decode(errors="ignore").encode()


def places(data: bytes | memoryview[int]) -> list[int]:
    """Return where each text of *data* begins, and behind them where they end."""
    found, at = [0], 0
    while at < len(data) - 1 and data[at]:
        at += 2 + data[at + 1]
        found.append(at)
    return found


@lru_cache(maxsize=1024)
def read_texts(
    data: bytes,
) -> tuple[str, str | None, str, str, Mapping[str, str]]:
    """Return what `pack_texts` was given.  Kept: the spans of a process are alike."""
    found: dict[int, str] = {}
    at, end = 0, len(data)
    while at < end and data[at]:
        tag, size = data[at], data[at + 1]
        at += 2 + size
        if at > end or tag >= len(_MOST_BYTES) or tag in found:
            msg = f"a text of {size} bytes with tag {tag}"
            raise ValueError(msg)
        found[tag] = data[at - size : at].decode()
    attributes = {
        key: found[tag]
        for tag, key in enumerate(KEY_ATTRIBUTES, start=CONVERSATION)
        if tag in found
    }
    return (
        found[_NAME],
        found.get(_OPERATION),
        found.get(_SCOPE_NAME, ""),
        found.get(_SCOPE_VERSION, ""),
        attributes,
    )
