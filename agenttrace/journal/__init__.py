"""The journal: open spans written down where a crash of the process leaves them.

One file per process, `<directory>/<instance>.journal`, of fixed slots, one for each
open span, mapped into memory so that writing costs no system call.  Beside it stands
`<instance>.lock`: whoever may lock it knows that the process is dead.

`format`, `slot`, `texts` and `resources` are the bytes, `lock` who is alive.  `file`
takes spans down, with `payload` for what is unusual and `links` for what few have, in
the `segments` of the file, which `growth` adds to.  `reader` reads, and `process` says
which process this is.  What is made of the slots of a dead process is recovery's
business, and what becomes of ended spans the spool's.
"""

from typing import TYPE_CHECKING, Final

from agenttrace.journal.file import Journal
from agenttrace.journal.format import Header, JournalError, State, UnknownVersionError
from agenttrace.journal.lock import InstanceLock, hold, is_alive, take_over
from agenttrace.lazy import exports

if TYPE_CHECKING:
    from agenttrace.journal.reader import Reading, read_journal
    from agenttrace.journal.slot import Slot, as_span

# Whoever writes reads nothing: imported by those who do.
_READING: Final = {
    "Reading": "reader",
    "Slot": "slot",
    "as_span": "slot",
    "read_journal": "reader",
}

__all__ = [
    "Header",
    "InstanceLock",
    "Journal",
    "JournalError",
    "Reading",
    "Slot",
    "State",
    "UnknownVersionError",
    "as_span",
    "hold",
    "is_alive",
    "read_journal",
    "take_over",
]

__getattr__ = exports(__name__, _READING)
