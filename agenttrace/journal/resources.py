"""What a journal's header says of the process: its resource and its limits, as JSON.

Pure.  The header takes any bytes; these are what the runtime writes, and recovery and
the live view read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agenttrace.model import ResourceData

if TYPE_CHECKING:
    from agenttrace.settings import Limit


def resource_bytes(
    resource: ResourceData, limits: tuple[Limit, Limit] = (None, None)
) -> bytes:
    """Return *resource* as a journal's header keeps it: JSON.

    Args:
        resource: Who the process is.
        limits: Its settings `heartbeat_timeout` and `max_duration`, for whoever shows
            what is open in it.

    >>> resource_from(resource_bytes(ResourceData({"service.name": "support"})))
    ResourceData(attributes={'service.name': 'support'}, schema_url='')
    """
    said = {
        "attributes": dict(resource.attributes),
        "schema_url": resource.schema_url,
        "limits": [
            dict(each) if isinstance(each, Mapping) else each for each in limits
        ],
    }
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


def limits_from(data: bytes) -> tuple[Limit, Limit]:
    """Return the limits that `resource_bytes` has written.

    None for what it has not, and for all of them where one cannot be a limit.
    """
    try:
        silence, longest = json.loads(data)["limits"]
        return _limit(silence), _limit(longest)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None, None


def _limit(said: object) -> Limit:
    if isinstance(said, dict):
        each = cast("dict[str, float]", said).items()
        return {key: _seconds(seconds) for key, seconds in each}
    return None if said is None else _seconds(cast("float", said))


def _seconds(said: float) -> float:
    seconds = float(said)
    if not seconds > 0:  # nor is what is no number
        raise ValueError(said)
    return seconds


def _tupled(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
