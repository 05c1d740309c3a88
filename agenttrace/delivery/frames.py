"""A frame, and how frames stand in a segment file: bytes in, frames out.

Pure: which files there are, and when they are written, is `segments`' business.

A segment file, all integers little-endian and unsigned::

    offset  bytes
    0       8      magic: b"ATSPOOL" and a zero
    8       4      version of this format: 1
    12      4      zeros
    16      8      acknowledged offset: every record that begins before it is settled
    24      ...    records, one behind the other, none between them

A record::

    offset  bytes
    0       4      length of what stands behind these twelve bytes
    4       4      CRC-32 of the whole record but these four bytes
    8       4      number of spans, n
    12      24 n   trace id (16) and span id (8) of every span
    ...            payload

The acknowledged offset is the one thing that is ever overwritten.  It is a word of its
own on a boundary of eight, so that one write replaces it as a whole.  An offset that is
no boundary between records counts as the last boundary before it: what is sent again
is merged by backends, what is not sent is lost.

The length is under the checksum too, and twelve zeros are no record; so neither a file
that was made larger and never written nor one that was cut short has anything to say.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Final
from zlib import crc32

from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ACKNOWLEDGED_AT: Final = 16
"""Where the acknowledged offset stands in a segment."""
HEADER_SIZE: Final = 24
"""Where the first record begins: the acknowledged offset of a new segment."""

_MAGIC: Final = b"ATSPOOL\0"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sI4xQ")
_WORD: Final = struct.Struct("<Q")
_HEAD: Final = struct.Struct("<III")
_PAIR: Final = struct.Struct("<II")
_TRACE_ID: Final = 16
_IDS: Final = 24
_PIECE: Final = 5 * 1024  # bytes that `zlib.crc32` takes without releasing the GIL


class SegmentError(ValueError):
    """A file is no segment, or one of another version of agenttrace."""


class SegmentVersionError(SegmentError):
    """A segment of another version of agenttrace, which alone can read it."""


class Frame(NamedTuple):
    """Some spans as OTLP bytes, and the ids that stand in them.

    Args:
        ids: Trace id and span id of every span, in the order of the payload.
        payload: One `ExportTraceServiceRequest`.  Two payloads one behind the other
            are a valid request too: protobuf appends repeated fields.
    """

    ids: tuple[tuple[bytes, bytes], ...]
    payload: bytes


class Record(NamedTuple):
    """A frame and where it stands.

    Args:
        start: Offset of its first byte in the file.
        end: Offset behind its last one.
        frame: What was written.
    """

    start: int
    end: int
    frame: Frame


class Contents(NamedTuple):
    """What a segment says.

    Args:
        records: Those that are whole, settled ones included, in order.
        acknowledged: The boundary before which every record is settled.
        end: Offset behind the last whole record.
        is_damaged: Whether something that is no whole record stands behind it.
    """

    records: tuple[Record, ...]
    acknowledged: int
    end: int
    is_damaged: bool

    @property
    def unsettled(self) -> tuple[Record, ...]:
        """The records that are not known to be settled."""
        return tuple(one for one in self.records if one.start >= self.acknowledged)


def header(acknowledged: int = HEADER_SIZE) -> bytes:
    """Return what a segment begins with."""
    return _HEADER.pack(_MAGIC, _VERSION, acknowledged)


def acknowledged_word(offset: int) -> bytes:
    """Return what stands at `ACKNOWLEDGED_AT` once all before *offset* is settled."""
    return _WORD.pack(offset)


def record_of(frame: Frame) -> bytes:
    """Return *frame* as a record.

    Raises:
        ValueError: An id has another length, or the frame has 4 GiB.
    """
    ids = b"".join(chain.from_iterable(frame.ids))
    spans = len(frame.ids)
    length = len(ids) + len(frame.payload)
    if len(ids) != spans * _IDS or length >= 1 << 32:
        message = f"no record can be made of {spans} ids and {length} bytes"
        raise ValueError(message)
    checksum = _checksum(length, spans, ids, frame.payload)
    return b"".join((_HEAD.pack(length, checksum, spans), ids, frame.payload))


def contents_of(data: bytes) -> Contents:
    """Return what *data*, a whole segment, says: up to the first damage.

    One that ends in its header has no records: it was cut short when it was begun.

    Raises:
        SegmentError: It is no segment, or of a version that is not known here.
    """
    if len(data) < HEADER_SIZE and header().startswith(data[:ACKNOWLEDGED_AT]):
        return Contents((), HEADER_SIZE, HEADER_SIZE, is_damaged=True)
    said = _acknowledged(data)
    records = tuple(_records(data))
    end = records[-1].end if records else HEADER_SIZE
    boundaries = (HEADER_SIZE, *(one.end for one in records))
    acknowledged = max((at for at in boundaries if at <= said), default=HEADER_SIZE)
    return Contents(records, acknowledged, end, is_damaged=end != len(data))


def _acknowledged(data: bytes) -> int:
    if len(data) < HEADER_SIZE or not data.startswith(_MAGIC):
        message = "this is no segment of agenttrace's"
        raise SegmentError(message)
    _, version, acknowledged = _HEADER.unpack_from(data)
    if version != _VERSION:
        message = f"a segment of version {version}; version {_VERSION} can be read here"
        raise SegmentVersionError(message)
    return int(acknowledged)


def _records(data: bytes) -> Iterator[Record]:
    """Yield the whole records up to the first that is none.

    There is no looking for a next one behind it: a payload may quote a record.
    """
    start = HEADER_SIZE
    view = memoryview(data)
    while start + _HEAD.size <= len(data):
        length, checksum, spans = _HEAD.unpack_from(data, start)
        begin = start + _HEAD.size
        end = begin + length
        payload = begin + spans * _IDS
        if end > len(data) or payload > end:
            return
        if _checksum(length, spans, view[begin:end]) != checksum:
            return
        ids = tuple(
            (bytes(view[at : at + _TRACE_ID]), bytes(view[at + _TRACE_ID : at + _IDS]))
            for at in range(begin, payload, _IDS)
        )
        yield Record(start, end, Frame(ids, bytes(view[payload:end])))
        start = end


def _checksum(length: int, spans: int, *parts: bytes | memoryview) -> int:
    value = crc32(_PAIR.pack(length, spans))
    for part in parts:
        view = memoryview(part)
        # More at once would let go of the interpreter, for ten microseconds of work,
        # and wait up to five milliseconds to have it again.
        for start in range(0, len(view), _PIECE):
            value = crc32(view[start : start + _PIECE], value)
    return value
