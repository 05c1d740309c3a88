"""The one list of spans that are open, and the referee of how each of them ends.

A span has one final form.  Its owner, the watchdog, the sweeper of collected spans and
the exit handler may all come to end it; whoever takes it out of this registry first
may tell, and everybody else learns that it was told.  The registry holds no span:
only records of spans (`OpenSpan`), so that a dropped span can be collected.

It owns records, slots, listeners, and taps: who is shown every final form.  It reads no
clock but the coarse one, starts no thread, and does not know what a span looks like.

The records stand in `records`, the memory they keep their heartbeats in in `slots`, and
the list and its referee in `listing`.
"""

from agenttrace.registry.listing import DEFAULT_LIMIT, OpenSpans
from agenttrace.registry.records import (
    UNLIMITED,
    AtLeast,
    Claim,
    Listener,
    Live,
    OpenSpan,
    Teller,
    Usual,
)
from agenttrace.registry.slots import MemorySlots, Slots

__all__ = [
    "DEFAULT_LIMIT",
    "UNLIMITED",
    "AtLeast",
    "Claim",
    "Listener",
    "Live",
    "MemorySlots",
    "OpenSpan",
    "OpenSpans",
    "Slots",
    "Teller",
    "Usual",
]
