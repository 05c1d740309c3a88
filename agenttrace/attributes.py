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
"""Items of one sequence or mapping that are kept."""
MAX_TEXT: Final = 1 << 20
"""Characters of one string that are kept when no OTEL_* limit says less."""
MAX_NAME: Final = 4096
"""Characters of a span's name that are kept."""
_INT64: Final = 1 << 63


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
    try:
        return _clean(value, MAX_TEXT if limit is None else limit, MAX_DEPTH)
    except Exception as error:  # noqa: BLE001 - foreign code runs inside
        safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
        return f"<{_type_name(value)}: {type(error).__name__} when read>"


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
    if isinstance(key, str) and key:
        return _text(key, MAX_TEXT)
    safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
    if key is None or key == "":
        return None
    return str(clean(key)) or None


def _clean(value: object, limit: int, depth: int) -> object:  # noqa: PLR0911 - one per type
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value, limit)
    if isinstance(value, int):
        number = int(value)
        return number if -_INT64 <= number < _INT64 else _fallback(number, limit)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(cast("bytes", value))[:limit]
    if isinstance(value, Mapping | Sequence):
        if depth == 0:
            safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
            return "<nested too deeply>"
        if isinstance(value, Mapping):
            return _mapping(cast("Mapping[object, object]", value), limit, depth - 1)
        items = cast("Sequence[object]", value)[:MAX_ITEMS]
        return tuple(_clean(item, limit, depth - 1) for item in items)
    return _fallback(value, limit)


def _mapping(
    value: Mapping[object, object], limit: int, depth: int
) -> dict[str, object]:
    cleaned: dict[str, object] = {}
    for key, item in value.items():
        name = clean_key(key)
        if name is not None:
            cleaned[name] = _clean(item, limit, depth)
        if len(cleaned) >= MAX_ITEMS:
            break
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


def _fallback(value: object, limit: int) -> str:
    safety.count(safety.Count.ATTRIBUTE_FALLBACKS)
    try:
        return _text(str(value), limit)
    except Exception as error:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<{_type_name(value)}: {type(error).__name__} when read>"


def _type_name(value: object) -> str:
    return type(value).__name__
