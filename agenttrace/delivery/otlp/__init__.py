"""Spans as OTLP bytes and back: the one encoding that spool, wire and store share.

`encode` and `frame_of` write protobuf by hand, because building message objects costs
seven times as much as the bytes they end in, and the time is taken from the
application's interpreter.  Neither imports protobuf; `decode` does, when first called.
Each is imported by whichever thread first has a span for it, which at the start of a
process, and in many a process at all, is none.

Nothing here decides when or where to send.  Cleaning values is `attributes`' business;
what comes here unclean all the same is repaired, counted, and sent.
"""

# ruff: noqa: PLC0415 - that each imports what it calls is what this module is for

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agenttrace.delivery.frames import Frame
    from agenttrace.model import SpanData

__all__ = ["decode", "encode", "frame_of", "prepare"]


def encode(spans: Sequence[SpanData]) -> bytes:
    """Return *spans* as one `ExportTraceServiceRequest`.

    They are grouped by resource and scope, both in the order they first occur in.
    Never raises: a value that OTLP cannot carry is sent as text and its span counted
    in `Count.ENCODER_FALLBACKS`.
    """
    with no_fork_at_first("encoder"):
        from agenttrace.delivery.otlp import encoder
    return encoder.encode(spans)


def frame_of(spans: Iterable[SpanData]) -> Frame:
    """Return *spans* as a frame: `encode`'s bytes, and the ids as they stand there.

    They are taken one by one, and each is encoded before the next is taken.
    """
    with no_fork_at_first("encoder"):
        from agenttrace.delivery.otlp import encoder
    return encoder.frame_of(spans)


def prepare() -> None:
    """Import what encodes.  Whoever cannot has no spans to lose yet.

    Raises:
        Exception: What an import raises: no descriptor is left, or the files are gone.
    """
    with no_fork_at_first("encoder"):
        from agenttrace.delivery.otlp import (
            encoder,  # noqa: F401  # pyright: ignore[reportUnusedImport] - that it is loaded is what this is for
        )


def decode(payload: bytes) -> list[SpanData]:
    """Return the spans of an `ExportTraceServiceRequest`, in the order they stand in.

    Spans of one resource or scope share one object, those of the next payload too.

    Raises:
        ValueError: *payload* is no such request.
    """
    with no_fork_at_first("decoder"):
        from agenttrace.delivery.otlp import decoder
    return decoder.decode(payload)
