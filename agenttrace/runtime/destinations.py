"""Where spans go: OTLP where an endpoint is known, else the embedded store.

Read from `span_exporter=` and OTel's own variables, once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from agenttrace.delivery import otlp_env
from agenttrace.delivery.senders.exporter import ExporterSender
from agenttrace.delivery.senders.grpc import GrpcSender
from agenttrace.delivery.senders.http import HttpSender
from agenttrace.delivery.senders.store import StoreSender
from agenttrace.errors import SettingError
from agenttrace.settings import STORE_FILE

if TYPE_CHECKING:
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
        return {"exporter": ExporterSender(span_exporter)}
    return {name: _sender(name, settings) for name in _names()}


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
        return StoreSender(settings.state_dir / STORE_FILE, settings.max_store_bytes)
    if name == "console":
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - costs an import
            ConsoleSpanExporter,
        )

        return ExporterSender(ConsoleSpanExporter())
    otlp = otlp_env.otlp_settings(os.environ)
    if otlp.protocol is otlp_env.Protocol.GRPC:
        return GrpcSender(otlp)
    return HttpSender.from_settings(otlp)
