"""Takes over what dead processes have left: their open spans, and their spool.

Of every instance whose lock is free, and so whose process is dead, the frames that no
backend has acknowledged are sent as they are.  What stands in its journal and in no
frame is made into frames, appended to the dead process's own spool, and sent.  When all
of it is settled the files go, the lock last.

Whoever recovers may be killed at any instant, and the next one begins again.  Three
things make that safe:

1.  A slot whose span stands in a frame, settled or not, is freed before any frame is
    sent or removed.  A process that was configured again has several journals, and a
    span of one of them may stand in a frame of another: so they are looked through
    together, while all their locks are held.
2.  A frame is on disk before its slots are freed.
3.  What is made of a slot is a function of slot and header alone, so that the same
    bytes come of it.  What the header does not say by itself, when the process last
    made a sign, is written there before all the rest.

What cannot be read: a torn or damaged end of a file is left out; a file that is no
journal or no segment any more is removed like the others, since what it says may be
private and nobody will ever read it; what a newer agenttrace has written, or another
user, is left alone with its lock, for those who can read it.  All of it is counted.

The bytes are the journal's and the spool's; when this runs, and where frames are sent
to, is the runtime's or a command's business.

`search` finds the dead and minds how much is on its way, `orphan` is one of them,
`signs` tells until when it lived, `forms` is what is made of its spans, and `survey`
only looks.
"""

from agenttrace.recovery.forms import span_of
from agenttrace.recovery.found import Recovered
from agenttrace.recovery.orphan import Orphan
from agenttrace.recovery.search import Recovery, list_locks, locks_in
from agenttrace.recovery.signs import last_sign
from agenttrace.recovery.survey import Instance, pid_of, survey

__all__ = [
    "Instance",
    "Orphan",
    "Recovered",
    "Recovery",
    "last_sign",
    "list_locks",
    "locks_in",
    "pid_of",
    "span_of",
    "survey",
]
