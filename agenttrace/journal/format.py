"""The journal's bytes: where everything stands, and the header to bytes and back.

Pure: no file, no clock.  A slot is read by `slot`, its texts are packed by `texts`.
Who writes is `file`, who reads is `reader`.

Everything is little endian, times are nanoseconds since the epoch, a text is UTF-8.
This is version 1.

The header, at the file's beginning; its length is a multiple of 4096:

======  =====  ==================================================================
offset  bytes  what
======  =====  ==================================================================
0       8      magic, `89 41 54 4A 52 4E 4C 0A`
8       4      version of this format: 1
12      4      length of the header: where the first slot begins
16      4      size of a slot: 512
20      4      process id
24      8      when the process started
32      16     boot id of the machine, zeros where it is unknown
48      8      last tick: when the process was last known to be alive
56      4      length of the resource
60      4      CRC32 of bytes 0 to 47 and of the resource
64             the resource: bytes of whoever made the journal; then zeros
======  =====  ==================================================================

The last 8 bytes of the header are zeros until the process is dead.  Whoever recovers it
first writes there when it last made a sign (`reader`), before anything else: so all who
come later have its open spans end at the same instant.

Slots follow without a gap, as many as the file has whole.  A slot:

======  =====  ==================================================================
offset  bytes  what
======  =====  ==================================================================
0       8      commit word, see below
8       8      last heartbeat
16      8      end time; it counts when the state is ENDED
24      8      started at
32      16     trace id
48      8      span id
56      8      parent's span id, zeros at a root
64      8      id of the thread that started it
72      8      heartbeat timeout, seconds as a double; NaN means the default
80      8      longest duration, likewise
88      1      trace flags
89      1      span kind, OpenTelemetry's number
90      1      1 where the parent is remote, else 0
91      1      how many links stand behind the texts, at most 14
92      356    texts: tag (1), length (1), text; the tag 0 ends them, and what
               stands behind it is of spans before, up to the links: the first
               in the last 25 bytes (423), the second in those before (398), and
               so on
448     1      length of `error.type`; it counts when there is an outcome but OK
449     63     `error.type`
======  =====  ==================================================================

Tags of texts: 1 name, 2 operation, 3 scope name, 4 scope version, 5 conversation id,
6 request model, 7 agent name, 8 tool name, 9 provider name.  A text that is too long is
cut between two characters, an id (5) is left out instead: half an id is a wrong one.

A link: trace id (16), span id (8), flags (1): 1 its span is remote, 2 `agenttrace.link`
is `resumed`; other attributes of links are not kept.  They stand there while there is
room behind the texts.  For the first two there always is: where texts take it, those
with tags from 5 on are given up, the last one first, by a zero in place of its tag.  A
link may come any time after the commit: its bytes first, then their number.  Journals
from before there were links have a zero at 91, and a reader from then reads all the
rest as ever.

The commit word is `state | outcome << 8 | ended_by << 16 | sequence << 32`.  States are
0 FREE, 1 OPEN, 2 ENDED, 3 JUDGED.  Everything else is written before it, so the one
aligned store of this word makes a slot valid, and no SIGKILL can tear it.  The
sequence, modulo 2**32, rises whenever a slot is taken: a reader that finds the same one
before and after it has read the rest, and neither time FREE, has read one span.  Texts
and links (91 to 447) change with a link that is added: whoever finds the same there in
two readings, one after the other, has what stood there at one instant.

All that ever enters a slot are names and numbers of the start, and how it ended: no
content, no note of a heartbeat.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agenttrace.journal.texts import TEXTS_SIZE
from agenttrace.model import EndedBy, Outcome
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC: Final = b"\x89ATJRNL\n"
VERSION: Final = 1
HEADER_MULTIPLE: Final = 4096
HEADER_START: Final = 64
"""As many bytes tell how long the header is."""
LONGEST_HEADER: Final = 1 << 24
LAST_TICK: Final = 48
"""Offset of the last tick in the header."""
SLOT_SIZE: Final = 512
LINK_COUNT: Final = 91
"""Offset in a slot of the byte that says how many links it has."""
TEXTS_START: Final = 92
ERROR_CELL: Final = 448
"""Offset of `error.type` in a slot: length, then text."""
ERROR_SIZE: Final = 63

MEMORY: Final = 0xFFFF_FFFF
"""Numbers of slots up to this are of slots in memory.  That of a slot in a journal is
its commit word when it is open, so that ending a span need not read what stands there.
"""

OUTCOMES: Final[Mapping[Outcome, int]] = {
    Outcome.OK: 1,
    Outcome.ERROR: 2,
    Outcome.TIMED_OUT: 3,
    Outcome.CANCELLED: 4,
    Outcome.ABANDONED: 5,
    Outcome.STUCK: 6,
    Outcome.LOST: 7,
}
"""Numbers of the format: they never change their meaning."""
ENDED_BY: Final[Mapping[EndedBy, int]] = {
    EndedBy.RETURN: 1,
    EndedBy.EXCEPTION: 2,
    EndedBy.CANCEL: 3,
    EndedBy.CLOSE: 4,
    EndedBy.GC: 5,
    EndedBy.DISCONNECT: 6,
    EndedBy.WATCHDOG: 7,
    EndedBy.EXIT: 8,
    EndedBy.RECOVERY: 9,
}
"""Numbers of the format: they never change their meaning."""
_FIXED: Final = "<QQQ16s8s8sQddBBBx"  # the last byte: no links, until they are written
PAYLOAD: Final = struct.Struct(f"{_FIXED}{TEXTS_SIZE}s")
"""What is written at the start of a span, from the heartbeat word on."""
PAYLOAD_START: Final = 8

_HEADER: Final = struct.Struct("<8sIIIIQ16sQII")
_CRC: Final = struct.Struct("<I")
_SIGN: Final = struct.Struct("<Q")
_COMMITTED: Final = slice(0, LAST_TICK)
_BOOT_ID_SIZE: Final = 16


class JournalError(ValueError):
    """Bytes that are no journal of ours, or not of this version, or damaged."""


class UnknownVersionError(JournalError):
    """A journal of another version of agenttrace, which alone can read it."""


class State(IntEnum):
    """What a slot's commit word says of it."""

    FREE = 0
    OPEN = 1
    ENDED = 2
    """Ended by its owner, and not yet where it cannot be lost."""
    JUDGED = 3
    """Its end was told by somebody else; its owner has it still."""


class Header(NamedTuple):
    """Whose journal it is.

    Args:
        pid: The process id.
        boot_id: 16 bytes, zeros where it is unknown.
        started_at: When the process started, nanoseconds since the epoch.
        last_tick: When it was last known to be alive, likewise.
        resource: What the maker of the journal wrote there, for whoever recovers it.
        last_sign: When it last made any sign, likewise, as whoever recovered it first
            has found; 0 before that.
    """

    pid: int
    boot_id: bytes
    started_at: int
    last_tick: int
    resource: bytes
    last_sign: int = 0


def pack_header(header: Header, multiple: int = HEADER_MULTIPLE) -> bytes:
    """Return the bytes of *header*, whose length is a multiple of *multiple*.

    Raises:
        JournalError: It is too long, or a number does not fit.
    """
    size = HEADER_START + len(header.resource) + _SIGN.size
    length = -(-size // multiple) * multiple
    if length > LONGEST_HEADER or length % HEADER_MULTIPLE:
        msg = f"a header of {length} bytes: must be a multiple of 4096, at most 2**24"
        raise JournalError(msg)
    if len(header.boot_id) != _BOOT_ID_SIZE:
        msg = f"boot_id={header.boot_id!r}: must be 16 bytes"
        raise JournalError(msg)
    try:
        start = bytearray(
            _HEADER.pack(
                MAGIC,
                VERSION,
                length,
                SLOT_SIZE,
                header.pid,
                header.started_at,
                header.boot_id,
                header.last_tick,
                len(header.resource),
                0,
            )
        )
        sign = pack_sign(header.last_sign)
    except struct.error as error:
        msg = f"{header!r} does not fit into a header: {error}"
        raise JournalError(msg) from error
    check = zlib.crc32(header.resource, zlib.crc32(start[_COMMITTED]))
    _CRC.pack_into(start, HEADER_START - _CRC.size, check)
    return bytes(start + header.resource).ljust(length - len(sign), b"\0") + sign


def pack_sign(last_sign: int) -> bytes:
    """Return the last sign as a header ends with it.

    Raises:
        struct.error: It does not fit.
    """
    return _SIGN.pack(last_sign)


def header_length(data: bytes) -> int:
    """Return how long the header is that begins with *data* (`HEADER_START` bytes).

    Raises:
        JournalError: This is no journal of ours, or one of another version.
    """
    if data[: len(MAGIC)] != MAGIC:
        msg = "not a journal: it does not begin with the magic bytes"
        raise JournalError(msg)
    if len(data) < HEADER_START:
        msg = f"torn header: {len(data)} bytes of at least {HEADER_START}"
        raise JournalError(msg)
    _, version, length, slot_size, *_ = _HEADER.unpack_from(data)
    if version != VERSION:
        msg = f"journal of version {version}: must be {VERSION}"
        raise UnknownVersionError(msg)
    if slot_size != SLOT_SIZE or length % HEADER_MULTIPLE or length > LONGEST_HEADER:
        msg = f"damaged header: length {length}, slots of {slot_size} bytes"
        raise JournalError(msg)
    return int(length)


def sign_at(length: int) -> int:
    """Return where the last sign stands in a header that is *length* bytes long."""
    return length - _SIGN.size


def read_header(data: bytes) -> Header:
    """Return the header that *data* begins with.

    Raises:
        JournalError: It is not ours, of another version, torn or damaged.
    """
    length = header_length(data)
    *_, pid, started_at, boot_id, last_tick, size, check = _HEADER.unpack_from(data)
    resource = data[HEADER_START : HEADER_START + size]
    if len(resource) < size or HEADER_START + size > length:
        msg = f"torn header: {len(resource)} bytes of a resource of {size}"
        raise JournalError(msg)
    if zlib.crc32(resource, zlib.crc32(data[_COMMITTED])) != check:
        msg = "damaged header: its checksum is wrong"
        raise JournalError(msg)
    last_sign = 0
    at = sign_at(length)
    # It may be cut off, or one of an agenttrace that left no room.
    if HEADER_START + size <= at and length <= len(data):
        (last_sign,) = _SIGN.unpack_from(data, at)
    return Header(pid, boot_id, started_at, last_tick, bytes(resource), last_sign)


@lru_cache
def payload_with(texts: int) -> struct.Struct:
    """Return the part of `PAYLOAD` that has the first *texts* bytes of its texts.

    What stands behind the tag that ends them is never read, so it need not be written:
    three lines of a cache instead of seven.
    """
    return struct.Struct(f"{_FIXED}{texts}s")


def commit_code(state: State, outcome: Outcome | None, ended_by: EndedBy | None) -> int:
    """Return the commit word of a slot, without its sequence."""
    code = int(state)
    if outcome is not None:
        code |= OUTCOMES[outcome] << 8
    if ended_by is not None:
        code |= ENDED_BY[ended_by] << 16
    return code
