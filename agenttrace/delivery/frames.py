"""A frame: the encoded spans that travel, are kept, and are acknowledged together."""

from __future__ import annotations

from typing import NamedTuple


class Frame(NamedTuple):
    """Some spans as OTLP bytes, and the ids that stand in them.

    Args:
        ids: Trace id and span id of every span, in the order of the payload.
        payload: One `ExportTraceServiceRequest`.  Two payloads one behind the other
            are a valid request too: protobuf appends repeated fields.
    """

    ids: tuple[tuple[bytes, bytes], ...]
    payload: bytes
