"""Who sends the spans: OpenTelemetry's resource, with what liveness needs.

`service.instance.id` is new for every process: dashboards and recovery key on it.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from agenttrace import attributes, semconv
from agenttrace.settings import PROGRAM_VARIABLE

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agenttrace.settings import Settings

UNKNOWN_SERVICE: Final = "unknown_service"


def resource_of(settings: Settings) -> Resource:
    """Return the resource of this process.

    `OTEL_RESOURCE_ATTRIBUTES` counts, `service_name` and `resource_attributes` of
    `configure()` go before it.
    """
    given: dict[str, AttributeValue] = {
        name: attributes.flat(value)  # type: ignore[misc]  # flat is what the SDK takes
        for name, value in settings.resource_attributes.items()
    }
    if settings.service_name is not None:
        given[semconv.SERVICE_NAME] = settings.service_name
    resource = Resource(_defaults()).merge(_detected()).merge(Resource(given))
    if not resource.attributes.get(semconv.SERVICE_NAME):
        name = f"{UNKNOWN_SERVICE}:{_program()}"
        resource = resource.merge(Resource({semconv.SERVICE_NAME: name}))
    return resource


def _program() -> str:
    """Return the name of the program, also before the interpreter has read it."""
    first = sys.argv[0]
    if first == "-m" and first in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index(first) + 1]
    if first == "-c":  # the worker of a program that was started by `agenttrace run`
        return os.environ.get(PROGRAM_VARIABLE, first)
    return Path(first or "python").stem or "python"


def of_this_process(resource: Resource) -> Resource:
    """Return *resource* for a process that was forked from the one it describes."""
    return resource.merge(Resource(_process()))


def _detected() -> Resource:
    if os.environ.get(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS):
        # Detectors are looked up by entry point: a scan of all that is installed.
        return Resource.create({})
    return OTELResourceDetector().detect()


def _defaults() -> dict[str, AttributeValue]:
    from opentelemetry.sdk.version import __version__  # noqa: PLC0415 - a constant

    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": __version__,
        # Without a host Jaeger "corrects" the clocks of processes it takes for others.
        "host.name": socket.gethostname(),
        **_process(),
    }


def _process() -> dict[str, AttributeValue]:
    return {
        semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
