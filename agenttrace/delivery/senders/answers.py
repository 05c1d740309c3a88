"""Reads what a collector says of a request: OTLP's partial success."""

from __future__ import annotations

from typing import Final

from agenttrace.delivery.senders import Delivered
from agenttrace.lazy import no_fork_at_first

TAKES_NONE: Final = (
    "HTTP 404",
    "HTTP 405",
    "HTTP 415",
    "HTTP 501",
    "grpc status UNIMPLEMENTED",
)
"""What refusals begin with where there is no place for a signal; others may pass."""
_MAX_REASON: Final = 200
# Nothing at all, and an empty `partial_success`: what nearly every answer is.
_NOTHING_REJECTED: Final = frozenset({b"", b"\x0a\x00"})


def delivered(body: bytes) -> Delivered:
    """Return what *body*, an `ExportTraceServiceResponse`, says.

    A status that is good has said already that the collector has the spans; a body
    that means nothing takes none of that back.
    """
    if body in _NOTHING_REJECTED:
        return Delivered()
    with no_fork_at_first("answers"):
        from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415 - protobuf takes 10 ms, and hardly any server makes us read
            trace_service_pb2,
        )

    try:
        partial = trace_service_pb2.ExportTraceServiceResponse.FromString(
            body
        ).partial_success
    except Exception:  # noqa: BLE001 - the parsers' errors have no common base
        return Delivered()
    return Delivered(
        rejected=max(partial.rejected_spans, 0),
        reason=partial.error_message[:_MAX_REASON],
    )
