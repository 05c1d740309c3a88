"""What is made of a slot: the final form of a span whose process died.

Pure functions of what stands in slot and header, with nothing in them of who recovers
it or when: two recoveries that were cut half way write the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.trace import StatusCode

from agenttrace import clock, semconv
from agenttrace.journal import State, as_span
from agenttrace.model import (
    EndedBy,
    Ending,
    Outcome,
    error_type_of,
    status_of,
)

if TYPE_CHECKING:
    from agenttrace.journal import Slot
    from agenttrace.model import ResourceData, SpanData

_LATEST: Final = 2**64 - 1
"""The last instant that OTLP has a number for."""
_LOST: Final = "its process died while it was open"


def span_of(slot: Slot, last_sign: int, resource: ResourceData) -> SpanData:
    """Return the final form of the span in *slot*.

    An open one is `lost` and ends when its process last made a sign; one that had ended
    keeps its own ending.  Nothing else goes into it, so it is the same whoever recovers
    it and whenever.

    Args:
        slot: The slot.
        last_sign: When its process last made a sign (`signs`), as its journal keeps it.
        resource: What its process said that it is.
    """
    attributes: dict[str, object] = {}
    outcome, ended_by = slot.outcome, slot.ended_by
    message = _LOST
    if slot.state is State.OPEN or outcome is None or ended_by is None:
        outcome, ended_by = Outcome.LOST, EndedBy.RECOVERY
        # It took some time, whatever the clocks say: without, Jaeger warns of it.
        end_time = max(last_sign, min(slot.started_at + 1, _LATEST))
        attributes[semconv.LAST_HEARTBEAT] = clock.iso(slot.last_beat)
    else:
        end_time = slot.end_time
        attributes[semconv.ATTRIBUTES_LOST] = True
        message = slot.error_type or outcome.value
    ending = Ending(outcome, ended_by, message=message)
    error_type = slot.error_type or error_type_of(ending)
    if error_type is not None:
        attributes[semconv.ERROR_TYPE] = error_type
    attributes[semconv.OUTCOME] = outcome.value
    attributes[semconv.ENDED_BY] = ended_by.value
    code, message = status_of(ending)
    return as_span(
        slot,
        resource=resource,
        end_time=end_time,
        attributes=attributes,
        status=code,
        status_message=message if code is StatusCode.ERROR else "",
    )
