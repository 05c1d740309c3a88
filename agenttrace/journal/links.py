"""The links of a slot: what the span in it is linked to, to bytes and back.

Written by themselves, after the rest, for the few spans that have any; imported with
the first of those.  The same step writes the conversation of a span that was taken for
a step (`payload.is_a_step`): who is linked has had a message, and may have learned from
that whose conversation it is.

The layout is `format`'s.  What is incomplete is not valid: bytes first, then the one
byte that makes them count, so no SIGKILL can tear them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety, semconv
from agenttrace.journal.format import LINK_COUNT, MEMORY, TEXTS_START
from agenttrace.journal.payload import UNUSUAL
from agenttrace.journal.texts import CONVERSATION, TEXTS_SIZE, pack_text, places
from agenttrace.model import LinkData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrace.registry import OpenSpan

_LINK: Final = struct.Struct("<16s8sB")
LINK_SIZE: Final = _LINK.size
_SURE: Final = 2
"""Links that there is always room for: names of what is done give way to them."""
_REMOTE: Final = 1
_RESUMED: Final = 2
_RESUMES: Final = {semconv.LINK: semconv.RESUMED}
_NO_ATTRIBUTES: Final[dict[str, object]] = {}
_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)
_KEY: Final = semconv.GEN_AI_CONVERSATION_ID


def pack_link(link: LinkData) -> bytes:
    """Return *link* as it stands in a slot."""
    flags = _REMOTE if link.is_remote else 0
    if link.attributes.get(semconv.LINK) == semconv.RESUMED:
        flags |= _RESUMED
    return _LINK.pack(link.trace_id, link.span_id, flags)


def read_links(texts: bytes, count: int) -> tuple[bytes, tuple[LinkData, ...]]:
    """Return the texts without what stands behind them, and the *count* links there."""
    end = places(texts)[-1]
    first = len(texts) - count * LINK_SIZE
    if end >= first:  # no number that we have written: it must not cost the span
        first = len(texts)
    found: list[LinkData] = []
    for at in range(len(texts) - LINK_SIZE, first - 1, -LINK_SIZE):
        trace_id, span_id, flags = _LINK.unpack_from(texts, at)
        # One that is damaged must not cost the span.
        if trace_id != _NO_TRACE and span_id != _NO_SPAN:
            attributes = _RESUMES if flags & _RESUMED else _NO_ATTRIBUTES
            is_remote = bool(flags & _REMOTE)
            found.append(LinkData(trace_id, span_id, is_remote, attributes))
    return texts[:end], tuple(found)


def write_links(span: OpenSpan, links: Sequence[LinkData]) -> None:
    """Write *links* into the slot of *span*, as many as it has room for.  Never fails.

    Of two threads that link one span at the very same time, one may write in vain.
    """
    try:
        _write(span, links)
    except UNUSUAL as error:
        safety.swallow("journal.linked", error)


def _write(span: OpenSpan, links: Sequence[LinkData]) -> None:
    words, word = span.words, span.word
    opened = span.slot  # last: whoever frees the slot takes this first
    if opened <= MEMORY:
        return
    slot = 8 * (word - 1)
    data = memoryview(words).cast("B")
    texts = data[slot + TEXTS_START : slot + TEXTS_START + TEXTS_SIZE]
    count = data[slot + LINK_COUNT]
    # Its end may be told elsewhere, and the slot be another span's by now: so it is
    # asked for before each store, with no call in between (`file` says why).
    end = _converse(span, opened, texts, TEXTS_SIZE - count * LINK_SIZE)
    for link in links:
        at = TEXTS_SIZE - (count + 1) * LINK_SIZE
        if at <= end and count < _SURE:
            end = _shorten(span, opened, texts, at)
        if at <= end:  # a zero stands between the texts and it
            break
        packed = pack_link(link)
        count += 1
        if span.slot == opened:
            texts[at : at + LINK_SIZE] = packed
        if span.slot == opened:
            data[slot + LINK_COUNT] = count


def _converse(span: OpenSpan, opened: int, texts: memoryview[int], room: int) -> int:
    """Add the conversation to *texts* that have none; return where they end."""
    *starts, end = places(texts)
    if span.operation is not None or CONVERSATION in [texts[at] for at in starts]:
        return end
    live: Any = span()
    said = (getattr(live, "_values", None) or _NO_ATTRIBUTES).get(_KEY)
    packed = pack_text(CONVERSATION, said, room - 1 - end)
    if not packed:
        return end
    after = end + len(packed)
    rest = packed[1:] + b"\0"
    if span.slot == opened:
        texts[end + 1 : after + 1] = rest
    if span.slot == opened:
        texts[end] = CONVERSATION
    return after


def _shorten(span: OpenSpan, opened: int, texts: memoryview[int], room: int) -> int:
    """Have *texts* end before *room*, if giving names up is enough; return where."""
    *starts, end = places(texts)
    while end >= room and starts and texts[starts[-1]] >= CONVERSATION:
        end = starts.pop()
        if span.slot == opened:
            texts[end] = 0
    return end
