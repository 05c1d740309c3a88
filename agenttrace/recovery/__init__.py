"""Takes over what dead processes have left: their open spans, and their spool.

Of every instance whose lock is free, and so whose process is dead, the frames that no
backend has acknowledged are sent as they are.  What stands in its journal and in no
frame is made into frames, appended to the dead process's own spool, and sent.  When all
of it is settled the files go, the lock last.

Whoever recovers may be killed at any instant, and the next one begins again: a frame is
on disk before its slots are freed, and what is made of a slot is a function of slot and
header alone, so that the same bytes come of it.

The bytes are the journal's and the spool's; when this runs, and where frames are sent
to, is the runtime's or a command's business.

`search` finds the dead and minds how much is on its way, `orphan` is one of them,
`forms` is what is made of its spans, and `survey` only looks.
"""

from agenttrace.recovery.forms import span_of
from agenttrace.recovery.orphan import Orphan, Recovered
from agenttrace.recovery.search import Recovery, locks_in
from agenttrace.recovery.survey import Instance, pid_of, survey

__all__ = [
    "Instance",
    "Orphan",
    "Recovered",
    "Recovery",
    "locks_in",
    "pid_of",
    "span_of",
    "survey",
]
