"""Sends frames by OTLP over grpc: the bytes of the frame as they are.

The official exporter would take the spans apart and put them together again, and tells
no more than that it failed; a batch that its collector will never take would be tried
for ever, with everything else behind it.

grpc is imported when the first frame goes: it takes tenths of a second.  A channel does
not survive a fork, so each process makes its own.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agenttrace._otel import suppress_instrumentation
from agenttrace.delivery.otlp_env import Compression, is_loopback, shown
from agenttrace.delivery.senders import Answer, Later, Refused
from agenttrace.delivery.senders.answers import delivered
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.otlp_env import OtlpSettings

_COLLECTOR: Final = "/opentelemetry.proto.collector"
_EXPORTS: Final = {
    "traces": f"{_COLLECTOR}.trace.v1.TraceService/Export",
    "logs": f"{_COLLECTOR}.logs.v1.LogsService/Export",
}
_DETAILS: Final = "grpc-status-details-bin"
_USUAL_LIMIT: Final = 4 * 2**20
"""Bytes that a grpc server takes in one message when it was told nothing else."""
# The codes that the OTLP specification calls retryable.  It wants the server's delay
# beside RESOURCE_EXHAUSTED; without one it is tried later all the same: nothing is
# dropped because a collector is short of words.  Unless the message is too large for
# a server: that is told with the same code, and no later time makes it smaller.
_LATER: Final = frozenset(
    {
        "ABORTED",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "OUT_OF_RANGE",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        # Not in the specification's list: what a proxy in between makes of anything.
        "UNKNOWN",
    }
)


class GrpcSender:
    """Sends frames to one grpc endpoint.

    Args:
        settings: Where to, and how.
        signal: What is in them, traces or logs.
    """

    def __init__(self, settings: OtlpSettings, signal: str = "traces") -> None:
        self._settings = settings
        self._method = _EXPORTS[signal]
        self._open: tuple[int, Any, Any] | None = None

    def __repr__(self) -> str:
        """Return where it sends to, without anything that could be a credential."""
        return f"GrpcSender({shown(self._settings.endpoint)!r})"

    def send(self, frame: Frame, timeout: float) -> Answer:
        """Send *frame* once within *timeout* seconds."""
        try:
            with suppress_instrumentation():
                answer: bytes = self._export()(
                    frame.payload,
                    timeout=timeout,
                    metadata=tuple(self._settings.headers.items()),
                )
        except Exception as error:  # noqa: BLE001 - grpc's own, and whatever a bad file or header makes of it
            return _answer_to(error, len(frame.payload))
        return delivered(answer)

    def close(self) -> None:
        """Close the channel, if there is one."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def _export(self) -> Any:  # noqa: ANN401 - grpc brings no types
        if self._open is None or self._open[0] != os.getpid():
            channel = _channel(self._settings)
            # No serializer: bytes go in and out.
            self._open = os.getpid(), channel, channel.unary_unary(self._method)
        return self._open[2]


def _answer_to(error: Exception, size: int) -> Answer:
    code = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""
    # Details and messages may hold what the request holds.
    reason = f"grpc status {name}" if name else type(error).__name__
    if name and name not in _LATER:
        return Refused(reason)
    asked = _retry_delay(error)
    if name == "RESOURCE_EXHAUSTED" and asked is None and size > _USUAL_LIMIT:
        return Refused(f"{reason}, to a message of {size} bytes")
    return Later(reason, asked)


def _retry_delay(error: Exception) -> float | None:
    """Return the seconds that the server asked to wait (`RetryInfo`), if it did."""
    try:
        trailing: Any = getattr(error, "trailing_metadata", tuple)() or ()
        details = next((value for key, value in trailing if key == _DETAILS), None)
        if details is None:
            return None
        with no_fork():
            # With the official exporter comes the library that reads them.
            kinds: Any = importlib.import_module("google.rpc.error_details_pb2")
            statuses: Any = importlib.import_module("google.rpc.status_pb2")
        for detail in statuses.Status.FromString(details).details:
            info = kinds.RetryInfo()
            if detail.Unpack(info):
                seconds: float = info.retry_delay.ToNanoseconds() / 1e9
                return max(seconds, 0.0)
    except Exception:  # noqa: BLE001 - what garbage does to parsers is open-ended
        return None
    return None


def _channel(settings: OtlpSettings) -> Any:  # noqa: ANN401 - grpc brings no types
    with no_fork():
        grpc: Any = importlib.import_module("grpc")
    compression = {
        Compression.NONE: grpc.Compression.NoCompression,
        Compression.GZIP: grpc.Compression.Gzip,
        Compression.DEFLATE: grpc.Compression.Deflate,
    }[settings.compression]
    endpoint = settings.endpoint
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    # A variable may say what a URL does not; never that https goes without TLS.
    insecure = parts.scheme == "http" or (
        parts.scheme != "https" and settings.insecure is True
    )
    # A proxy's loopback is not ours, whatever http_proxy says.
    options = [("grpc.enable_http_proxy", 0)] if is_loopback(parts.hostname) else []
    if insecure:
        return grpc.insecure_channel(
            parts.netloc, options=options, compression=compression
        )
    credentials = grpc.ssl_channel_credentials(
        _content(settings.certificate),
        _content(settings.client_key),
        _content(settings.client_certificate),
    )
    return grpc.secure_channel(
        parts.netloc, credentials, options=options, compression=compression
    )


def _content(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
