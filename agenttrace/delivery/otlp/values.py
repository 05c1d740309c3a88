"""Attributes as OTLP's `KeyValue` and `AnyValue`.

Most of what a span costs to encode is here, so a `KeyValueWriter` remembers: whole
fields for short strings, and for every key the bytes that stand before its value.  A
cache is only ever asked with the key *and* a type in hand: 1, 1.0 and True are equal
and hash alike, and would otherwise answer for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from agenttrace.delivery.otlp.caches import MAX_TEXT, BoundedDict
from agenttrace.delivery.otlp.wire import (
    SMALL_VARINTS,
    delimited,
    int64,
    pack_double,
    varint,
)

if TYPE_CHECKING:
    from agenttrace.model import Attributes

MAX_NESTING: Final = 16
"""Lists in lists that are written as such.

Protobuf decoders give up at 100 messages within each other and refuse the *whole*
request; a level costs up to three.  `attributes.clean` stops long before.
"""

MAX_KEYS: Final = 512
"""Keys that a writer remembers."""
MAX_TEXTS: Final = 32
"""Short strings that are remembered of each: no id of many values displaces others."""

_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"
_STRING: Final = b"\x0a"
_TRUE: Final = b"\x10\x01"
_FALSE: Final = b"\x10\x00"
_INT: Final = b"\x18"
_DOUBLE: Final = b"\x21"
_ARRAY: Final = b"\x2a"
_KVLIST: Final = b"\x32"
_BYTES: Final = b"\x3a"
_ITEM: Final = b"\x0a"
_SMALL: Final = len(SMALL_VARINTS)

_Nested = Mapping[object, object] | Sequence[object]


def any_value(value: object, levels: int = MAX_NESTING) -> bytes:  # noqa: PLR0911 - one per type
    """Return the body of the `AnyValue` that says *value*.

    Raises:
        TypeError: OTLP has no form for a value of this type.
        OverflowError: An integer needs more than 64 bits.
        UnicodeEncodeError: A string holds lone surrogates.
        ValueError: It is nested more than *levels* deep.
    """
    # The order matters: a bool is an int, a string is a sequence, and what clean
    # values are comes before what others might be, because asking an abstract class
    # takes ten times as long.
    match value:
        case str():
            return delimited(_STRING, str.encode(value))
        case tuple() | dict():
            return _nested(cast("_Nested", value), levels)
        case None:
            return b""
        case bool():
            return _TRUE if value else _FALSE
        case int():
            return _INT + int64(value)
        case float():
            return _DOUBLE + pack_double(value)
        case bytes() | bytearray() | memoryview():
            return delimited(_BYTES, bytes(cast("bytes", value)))
        case Mapping() | Sequence():
            return _nested(cast("_Nested", value), levels)
        case _:
            message = f"OTLP has no form for {type(value).__name__}"
            raise TypeError(message)


def _nested(value: _Nested, levels: int) -> bytes:
    if levels == 0:
        message = "nested too deeply"
        raise ValueError(message)
    if not isinstance(value, tuple) and isinstance(value, Mapping):
        fields = [
            delimited(_ITEM, key_value(cast("str", key), any_value(item, levels - 1)))
            for key, item in value.items()
        ]
        return delimited(_KVLIST, b"".join(fields))
    items = [delimited(_ITEM, any_value(item, levels - 1)) for item in value]
    return delimited(_ARRAY, b"".join(items))


def key_value(key: str, value: bytes) -> bytes:
    """Return the body of a `KeyValue` around the body of its `AnyValue`.

    Raises:
        TypeError: *key* is not a string.
        UnicodeEncodeError: *key* holds lone surrogates.
    """
    return _key_field(key) + delimited(_VALUE, value)


def _key_field(key: str) -> bytes:
    # As a method of str: something else that can `encode` is not a key.
    name = str.encode(key)
    return delimited(_KEY, name) if name else b""


class _Key:
    """What comes before a value of one key, as far as it is always the same."""

    __slots__ = ("double", "false", "integers", "name", "tag", "texts", "true")

    def __init__(self, tag: bytes, key: str) -> None:
        self.tag = tag
        # Up to the tag of the value; the length of the whole is not in it.
        self.name = _key_field(key) + _VALUE
        self.true = self._before(_TRUE, 0)
        self.false = self._before(_FALSE, 0)
        self.double = self._before(_DOUBLE, 8)
        # By the number of bytes that the integer's varint takes.
        self.integers = tuple(self._before(_INT, size) for size in range(11))
        # Whole fields, by text.
        self.texts: BoundedDict[str, bytes] = BoundedDict(MAX_TEXTS)

    def _before(self, tag: bytes, size: int) -> bytes:
        inner = self.name + varint(len(tag) + size) + tag
        return self.tag + varint(len(inner) + size) + inner

    def text(self, text: str) -> bytes:
        """Return the field of a short *text*, and remember it."""
        body = text.encode()
        size = SMALL_VARINTS[len(body)]
        # The value is a message with one field: tag, size, body.
        inner = varint(1 + len(size) + len(body))
        length = varint(len(self.name) + len(inner) + 1 + len(size) + len(body))
        field = b"".join((self.tag, length, self.name, inner, _STRING, size, body))
        return self.texts.remember(text, field)

    def field(self, body: bytes) -> tuple[bytes, ...]:
        """Return the field around the *body* of a value, in parts."""
        size = varint(len(body))
        length = varint(len(self.name) + len(size) + len(body))
        return self.tag, length, self.name, size, body


class KeyValueWriter:
    """Writes attributes as the repeated field that *tag* opens.

    Args:
        tag: The field's tag in the message around: spans, events, links, resources
            and scopes each have another one.
    """

    __slots__ = ("_keys", "_tag")

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._keys: BoundedDict[str, _Key] = BoundedDict(MAX_KEYS)

    def extend(self, parts: list[bytes], attributes: Attributes) -> None:
        """Append *attributes* to *parts*, to be joined by the caller.

        Raises:
            Exception: Whatever `any_value` and `key_value` raise; *parts* is of no
                use then.
        """
        append = parts.append
        known = self._keys.get
        # Exact types and casts: isinstance would cost more than the encoding does.
        for name, value in attributes.items():
            key = known(name) or self._key(name)
            kind = type(value)
            if kind is str:
                text = cast("str", value)
                if len(text) <= MAX_TEXT:
                    append(key.texts.get(text) or key.text(text))
                else:
                    parts += key.field(any_value(text))
            elif kind is int:
                number = cast("int", value)
                if 0 <= number < _SMALL:
                    digits = SMALL_VARINTS[number]
                else:
                    digits = int64(number)
                append(key.integers[len(digits)])
                append(digits)
            elif kind is float:
                append(key.double)
                append(pack_double(cast("float", value)))
            elif kind is bool:
                append(key.true if value else key.false)
            else:
                parts += key.field(any_value(value))

    def remembered(self) -> tuple[int, int]:
        """Return how many keys are remembered, and how many texts of all of them."""
        return len(self._keys), sum(len(key.texts) for key in self._keys.values())

    def _key(self, name: str) -> _Key:
        key = _Key(self._tag, name)
        return key if len(name) > MAX_TEXT else self._keys.remember(name, key)
