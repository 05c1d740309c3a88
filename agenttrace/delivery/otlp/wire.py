"""The three shapes of protobuf's wire format that OTLP's traces are made of.

Varints, 64-bit floats and length-delimited fields, as bytes
(https://protobuf.dev/programming-guides/encoding).  Nothing here knows a message.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

UINT32_LIMIT: Final = 1 << 32
_INT64_LIMIT: Final = 1 << 63
_UINT64_MASK: Final = (1 << 64) - 1
_ONE_BYTE: Final = 1 << 7
_TWO_BYTES: Final = 1 << 14
_SMALL: Final = 1 << 11

pack_double: Final = Struct("<d").pack


def _varint(number: int) -> bytes:
    if _ONE_BYTE <= number < _TWO_BYTES:
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number >= _ONE_BYTE:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


SMALL_VARINTS: Final = (
    *(bytes((number,)) for number in range(_ONE_BYTE)),
    *(
        bytes((low, high))
        for high in range(1, _SMALL >> 7)
        for low in range(_ONE_BYTE, _ONE_BYTE << 1)
    ),
)
"""Varints by number: lengths, and most counts, are found here."""


def varint(number: int) -> bytes:
    """Return *number*, not negative, as a varint.

    >>> varint(300).hex()
    'ac02'
    """
    return SMALL_VARINTS[number] if number < _SMALL else _varint(number)


def int64(number: int) -> bytes:
    """Return *number* as protobuf's `int64`: a negative one takes ten bytes.

    Raises:
        OverflowError: *number* does not fit in 64 bits.
    """
    if 0 <= number < _SMALL:
        return SMALL_VARINTS[number]
    if not -_INT64_LIMIT <= number < _INT64_LIMIT:
        message = "an int64 holds 64 bits"
        raise OverflowError(message)
    return _varint(number & _UINT64_MASK)


def uint32(number: int) -> bytes:
    """Return *number* as protobuf's `uint32`.

    Raises:
        OverflowError: *number* is negative or does not fit in 32 bits.
    """
    if not 0 <= number < UINT32_LIMIT:
        message = "a uint32 holds 32 bits"
        raise OverflowError(message)
    return varint(number)


def delimited(tag: bytes, body: bytes) -> bytes:
    r"""Return *body*, a message, bytes or UTF-8, as the field that *tag* opens.

    >>> delimited(b"\x0a", b"hi")
    b'\n\x02hi'
    """
    size = len(body)
    # Not varint(): the call would take longer than all the rest.
    return tag + (SMALL_VARINTS[size] if size < _SMALL else _varint(size)) + body
