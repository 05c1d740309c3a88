"""Reads what a collector says: OTLP's partial success, and that it takes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agenttrace.delivery.senders import Delivered, Refused
from agenttrace.lazy import no_fork_at_first

if TYPE_CHECKING:
    from agenttrace.delivery.senders import Answer

_TAKES_NONE: Final = (
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


class Place:
    """Whether a backend has a place for a signal: many take traces alone.

    Attributes:
        is_none: Whether it has said that it has none, and has never taken anything: a
            gateway that is set anew says that for a while, too.
    """

    __slots__ = ("_has_taken", "is_none")

    def __init__(self) -> None:
        self.is_none = False
        self._has_taken = False

    def hear(self, answer: Answer) -> None:
        """Take note of an answer."""
        if isinstance(answer, Delivered):
            self._has_taken = True
        elif isinstance(answer, Refused) and not self._has_taken:
            self.is_none = answer.reason.startswith(_TAKES_NONE)


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
