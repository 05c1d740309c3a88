"""What a journal's header says of the process: its OpenTelemetry resource, as JSON.

Pure.  The header takes any bytes; these are what the runtime writes and recovery reads.
"""

from __future__ import annotations

import json
from typing import Any, cast

from agenttrace.model import ResourceData


def resource_bytes(resource: ResourceData) -> bytes:
    """Return *resource* as a journal's header keeps it: JSON.

    >>> resource_from(resource_bytes(ResourceData({"service.name": "support"})))
    ResourceData(attributes={'service.name': 'support'}, schema_url='')
    """
    said = {"attributes": dict(resource.attributes), "schema_url": resource.schema_url}
    return json.dumps(said, default=str).encode()


def resource_from(data: bytes) -> ResourceData:
    """Return the resource that `resource_bytes` has written; an empty one if none."""
    try:
        said: Any = json.loads(data)
        attributes: dict[str, object] = {
            str(key): _tupled(value) for key, value in said["attributes"].items()
        }
        return ResourceData(attributes, str(said["schema_url"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ResourceData({})


def _tupled(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
