"""What of `configure()`'s arguments and OpenTelemetry's variables cannot be meant.

Looked at before there are threads or files.  What our own settings may be is for
`settings` to say.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
from typing import TYPE_CHECKING, Final

from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.sdk import environment_variables as variables
from opentelemetry.sdk.resources import SERVICE_NAME

from agenttrace import safety
from agenttrace.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk import trace as sdk
    from opentelemetry.sdk.trace import sampling
    from opentelemetry.sdk.trace.export import SpanExporter

    from agenttrace.registry import OpenSpans
    from agenttrace.runtime.heartbeats import HeartbeatLogs
    from agenttrace.settings import Settings

_LIMITS: Final = (
    variables.OTEL_ATTRIBUTE_COUNT_LIMIT,
    variables.OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    variables.OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT,
    variables.OTEL_LINK_ATTRIBUTE_COUNT_LIMIT,
    variables.OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,
    variables.OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT,
    variables.OTEL_SPAN_EVENT_COUNT_LIMIT,
    variables.OTEL_SPAN_LINK_COUNT_LIMIT,
)
METRICS_EXPORTER: Final = "OTEL_METRICS_EXPORTER"
_METRICS: Final = (
    METRICS_EXPORTER,
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


def wants_metrics() -> bool:
    """Return whether a variable says anything of where metrics are to go."""
    return any(os.environ.get(name, "").strip() for name in _METRICS)


def metric_exporters(settings: Settings, provider: object) -> Sequence[str]:
    """Return the exporters of metrics that we are asked to make.

    Raises:
        SettingError: A variable cannot be meant.
    """
    if settings.disabled or provider is not None or not wants_metrics():
        return ()
    from agenttrace.runtime.meters import (  # noqa: PLC0415 - most processes have no meters
        asked_for,
    )

    return asked_for()


def heartbeat_logs(settings: Settings, registry: OpenSpans) -> HeartbeatLogs | None:
    """Return what logs the open spans of *registry*, where that is asked for.

    Raises:
        SettingError: A variable of OTLP's cannot be meant.
    """
    if settings.disabled or math.isinf(settings.heartbeat_logs_every):
        return None
    from agenttrace.runtime.heartbeats import (  # noqa: PLC0415 - few ask for it
        HeartbeatLogs,
    )

    return HeartbeatLogs(settings.heartbeat_logs_every, registry)


def check_propagators() -> None:
    """Raise where `OTEL_PROPAGATORS` names one that cannot be loaded."""
    named = os.environ.get(OTEL_PROPAGATORS)
    if named is None:
        return  # the defaults need not be loaded to know that they can be
    try:
        importlib.import_module("opentelemetry.propagate")
    except Exception as error:  # a ValueError, or whatever loading one raises
        allowed = "names of propagators that are installed, with commas, or none"
        raise SettingError(OTEL_PROPAGATORS, named, allowed) from error


def check_limits() -> None:
    """Raise where one of the limits of spans is no number.

    The SDK reads them, and says so with an error of its own.
    """
    for name in _LIMITS:
        said = os.environ.get(name, "").strip()
        try:
            is_number = not said or int(said) >= 0
        except ValueError:
            is_number = False
        if not is_number:
            raise SettingError(name, said, "a whole number, not negative")


def need(setting: str, value: object, kind: str, *methods: str) -> None:
    """Raise unless *value* is None or an object that has *methods*.

    By its methods: wrappers of other libraries inherit from nothing.
    """
    has = all(callable(getattr(value, name, None)) for name in methods)
    if value is not None and (isinstance(value, type) or not has):
        allowed = f"a {kind} of OpenTelemetry's: the object, not its class or name"
        raise SettingError(setting, value, allowed)


def warn_of_ignored(
    provider: sdk.TracerProvider,
    settings: Settings,
    span_exporter: SpanExporter | None,
    sampler: sampling.Sampler | None,
) -> None:
    """Say which settings the application's own provider has the last word on."""
    has = provider.resource.attributes
    ignored = {
        "span_exporter": span_exporter is not None,
        "sampler": sampler is not None,
        "service_name": settings.service_name not in (None, has.get(SERVICE_NAME)),
        "resource_attributes": not settings.resource_attributes.items() <= has.items(),
    }
    names = [name for name, is_ignored in ignored.items() if is_ignored]
    if names:
        safety.log_once(
            f"configure: {names}",
            logging.WARNING,
            "%s: without effect, because the application has a tracer provider of its "
            "own and agenttrace is attached to it. Say it to that provider, or call "
            "agenttrace.configure() before there is one.",
            ", ".join(names),
        )
