"""Makes any value an application hands over into one that can be encoded.

Values are cleaned when they are set, not when they are sent: what a caller changes in
its list afterwards must not change the span.  What OTLP can carry passes unchanged;
the rest becomes text, bounded in size and depth, and is counted.  Nothing here raises,
whatever a foreign `__str__`, `__iter__` or `__eq__` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from agenttrace import safety

SCALARS: Final = frozenset({str, bool, int, float, bytes, type(None)})
"""Exact types that need no cleaning (but for length, and integers for size)."""

MAX_DEPTH: Final = 8
"""Nesting beyond this, cycles included, is cut and said."""
MAX_ITEMS: Final = 10_000
"""Items of one value that are kept, those of all its levels together."""
MAX_TEXT: Final = 1 << 20
"""Characters of one value that are kept when no OTEL_* limit says less."""
MAX_NAME: Final = 4096
"""Characters of a span's name that are kept."""
_INT64: Final = 1 << 63
_FEW: Final = 8
# What values mostly are before what they might be: asking an abstract class takes ten
# times as long.
_BINARY: Final = (bytes, bytearray, memoryview)
_LISTS: Final = (tuple, list)
_NESTED: Final = (*_LISTS, dict, Mapping, Sequence)


def clean(value: object, limit: int | None = None) -> object:
    """Return *value* as None, str, bool, int, float, bytes, a tuple or a dict.

    Args:
        value: Anything at all.
        limit: Most characters of a string; None means `MAX_TEXT`.

    >>> clean([1, "a", {"k": {2}}])
    (1, 'a', {'k': '{2}'})
    >>> clean(2**70)
    '1180591620717411303424'
    """
    room = MAX_TEXT if limit is None else limit
    try:
        if are_few_words(value, room):
            return value
        return _clean(value, _Room(room), MAX_DEPTH)
    except Exception as error:  # noqa: BLE001 - foreign code runs inside
        safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
        return f"<{_type_name(value)}: {type(error).__name__} when read>"


def are_few_words(value: object, limit: int) -> bool:
    """Return whether *value* is clean at first sight, as finish reasons are."""
    kind: object = type(value)
    if kind is not tuple:
        return False
    items: Any = value
    if len(items) > _FEW:
        return False
    for item in items:
        if not (type(item) is str and item.isascii() and len(item) <= limit):
            return False
    return True


def flat(value: object) -> object:
    """Return *value* as every OTel SDK takes it: nested values as JSON text.

    >>> flat({"a": [1, None]})
    '{"a": [1, null]}'
    >>> flat(["a", "b"])
    ('a', 'b')
    """
    cleaned: Any = clean(value)
    if cleaned is None:
        return "null"
    if isinstance(cleaned, tuple):
        items = cast("tuple[object, ...]", cleaned)
        kinds = {type(item) for item in items}
        if len(kinds) <= 1 and kinds <= {str, bool, int, float}:
            return items
    elif not isinstance(cleaned, dict):
        return cleaned
    return json.dumps(cleaned, ensure_ascii=False, default=repr)


def clean_key(key: object) -> str | None:
    """Return *key* as a key an attribute can have, None where it cannot be one."""
    if type(key) is str and key:
        return _text(key, MAX_TEXT)
    name = None if key is None else str(clean(key)) or None
    # A string of a class of its own is one nevertheless.
    if name is None or not issubclass(type(key), str):
        safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
    return name


def mapping_of(given: object) -> Mapping[str, object]:
    """Return *given* if it is a mapping, or what can be made of it: pairs, or nothing.

    >>> mapping_of([("page", 1)])
    {'page': 1}
    >>> mapping_of(7)
    {}
    """
    if type(given) is dict:
        return given  # pyright: ignore[reportUnknownVariableType]  # keys are looked at later
    try:
        return dict(cast("Mapping[str, object]", given))
    except Exception:  # noqa: BLE001 - foreign code runs inside
        safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
        return {}


class _Room:
    """What one value may still take.

    Args:
        limit: Characters of one string.
    """

    __slots__ = ("characters", "items", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.characters = max(limit, MAX_TEXT)
        self.items = MAX_ITEMS

    def text(self) -> int:
        """Return how many characters the next string may have."""
        return min(self.limit, self.characters)


def _clean(value: object, room: _Room, depth: int) -> object:  # noqa: PLR0911 - one per type
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        text = _text(value, room.text())
        room.characters -= len(text)
        return text
    if isinstance(value, int):
        number = int(value)
        return number if -_INT64 <= number < _INT64 else _fallback(number, room)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, _BINARY):
        binary = bytes(cast("bytes", value))[: room.text()]
        room.characters -= len(binary)
        return binary
    if isinstance(value, _NESTED):
        # The room is for cycles and diamonds: eight levels of ten are 10**8.
        if depth == 0 or room.items <= 0:
            safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
            return "<nested too deeply>"
        if not isinstance(value, _LISTS) and isinstance(value, Mapping):
            return _mapping(cast("Mapping[object, object]", value), room, depth - 1)
        items = cast("Sequence[object]", value)[: room.items]
        room.items -= len(items)
        return tuple([_clean(item, room, depth - 1) for item in items])
    return _fallback(value, room)


def _mapping(
    value: Mapping[object, object], room: _Room, depth: int
) -> dict[str, object]:
    cleaned: dict[str, object] = {}
    for key, item in value.items():
        if room.items <= 0:
            break
        room.items -= 1
        name = clean_key(key)
        if name is not None:
            cleaned[name] = _clean(item, room, depth)
    return cleaned


def _text(value: str, limit: int) -> str:
    # str subclasses (enums) become plain; lone surrogates cannot be encoded at all.
    text = value[:limit] if len(value) > limit else value
    text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
        return text.encode(errors="backslashreplace").decode()
    return text


def _fallback(value: object, room: _Room) -> str:
    safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
    try:
        text = _text(str(value), room.text())
    except Exception as error:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<{_type_name(value)}: {type(error).__name__} when read>"
    room.characters -= len(text)
    return text


def _type_name(value: object) -> str:
    return type(value).__name__
