"""Where spans go: OTLP where an endpoint is known, else the embedded store.

Read from `span_exporter=` and OTel's own variables, once.  Only what is used is
imported: all of them together take as long as the rest of `configure()`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agenttrace.delivery import otlp_env
from agenttrace.errors import SettingError
from agenttrace.settings import STORE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace.export import SpanExporter

    from agenttrace.delivery.senders import Sender
    from agenttrace.settings import Settings

_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


def senders_of(
    settings: Settings, span_exporter: SpanExporter | None = None
) -> dict[str, Sender]:
    """Return the senders by name: `otlp`, `console`, `store`, `exporter`.

    Raises:
        SettingError: `OTEL_TRACES_EXPORTER` or an OTLP variable cannot be meant.
    """
    if span_exporter is not None:
        return {"exporter": _exporter_sender(span_exporter)}
    return {name: _sender(name, settings) for name in _names()}


def timeout_of(senders: Iterable[str]) -> float:
    """Return the seconds that one attempt to send may take.

    Args:
        senders: The names of the senders in use.
    """
    if "otlp" in senders:
        return otlp_env.otlp_settings(os.environ).timeout
    return otlp_env.DEFAULT_TIMEOUT


def _names() -> list[str]:
    said = os.environ.get(_EXPORTER, "").strip()
    if not said:
        endpoint = any(os.environ.get(each, "").strip() for each in _ENDPOINTS)
        return ["otlp"] if endpoint else ["store"]
    names = list(dict.fromkeys(name.strip().lower() for name in said.split(",")))
    if names == ["none"]:
        return []
    allowed = {"otlp", "console", "store"}
    if not set(names) <= allowed:
        message = "otlp, console, store (any of them, with commas) or none"
        raise SettingError(_EXPORTER, said, message)
    return names


def _sender(name: str, settings: Settings) -> Sender:
    if name == "store":
        from agenttrace.delivery.senders.store import (  # noqa: PLC0415 - see the header
            StoreSender,
        )

        return StoreSender(settings.state_dir / STORE_FILE, settings.max_store_bytes)
    if name == "console":
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - see the header
            ConsoleSpanExporter,
        )

        return _exporter_sender(ConsoleSpanExporter())
    return otlp_sender(otlp_env.otlp_settings(os.environ))


def otlp_sender(otlp: otlp_env.OtlpSettings, signal: str = "traces") -> Sender:
    """Return what sends *signal*, traces or logs, as *otlp* says."""
    if otlp.protocol is otlp_env.Protocol.GRPC:
        from agenttrace.delivery.senders.grpc import (  # noqa: PLC0415 - see the header
            GrpcSender,
        )

        return GrpcSender(otlp, signal)
    from agenttrace.delivery.senders.http import (  # noqa: PLC0415 - see the header
        HttpSender,
    )

    return HttpSender.from_settings(otlp)


def _exporter_sender(exporter: SpanExporter) -> Sender:
    from agenttrace.delivery.senders.exporter import (  # noqa: PLC0415 - see the header
        ExporterSender,
    )

    return ExporterSender(exporter)
