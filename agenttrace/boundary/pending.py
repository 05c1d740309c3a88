"""Operations that go on when the call that asked for them is over.

A model may be asked to answer in the background: the request is answered at once, and
the answer is polled for.  The call's span stays open meanwhile, and further calls go on
in it.  A poll is no progress; what it brings may be.

Nobody has to poll: another process may, or a webhook bring the answer.  So silence
counts from the first poll on, and while a stream of it is open; an operation that is
never polled is not stuck, nor is one whose stream was left.  It is kept here, up to a
bound; beyond that the oldest is let go, and its span ends as that of anything dropped
does.

A forked child waits for nothing: what its parent has asked for is the parent's.

What an operation is known by, and what its polls bring, is an instrumentation's
business.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from agenttrace.model import EndedBy
from agenttrace.registry import AtLeast

if TYPE_CHECKING:
    from collections.abc import Hashable

    from agenttrace.boundary.call import Call

MOST: Final = 10_000
"""Operations that are waited for at once."""
SILENCE: Final = 1800.0
"""Seconds that nothing may change, from the first poll on."""

_waiting: OrderedDict[Hashable, Pending] = OrderedDict()


def pending(identity: Hashable) -> Pending | None:
    """Return the operation that is waited for under *identity*, if there is one."""
    return _waiting.get(identity) if _waiting else None


class Pending:
    """One operation: its call, and whether it is waited for.

    Args:
        call: The call that asked for it.

    Attributes:
        call: The same.
        identity: What it is waited for by; None while it is not.
        is_open: Whether it is waited for still.
        polls: How often it was asked for.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.identity: Hashable | None = None
        self.is_open = False
        self.polls = 0
        self._held = False

    def polled(self) -> None:
        """Note that it is asked for: from the first time on, silence counts."""
        self.polls += 1
        record = self.call.record
        if record is not None:
            # Nobody has its span in his context: whoever asks for it waits for it.
            record.attend()
        if record is not None and self._held:
            self._held = False
            record.unpause()

    def hold(self) -> None:
        """Let silence not count: nobody listens, and perhaps nobody here will."""
        record = self.call.record
        if record is not None and not self._held:
            record.pause()
            self._held = True

    def keep(self, identity: Hashable) -> None:
        """Wait for it, for as long as it takes, under *identity* from now on."""
        self._forget()
        displaced = _waiting.pop(identity, None)
        self.identity = identity
        self.is_open = True
        _waiting[identity] = self
        if displaced is not None:
            displaced.let_go()
        while len(_waiting) > MOST:
            _, oldest = _waiting.popitem(last=False)
            oldest.let_go()
        record = self.call.record
        if record is not None:
            patience = record.heartbeat_timeout
            declared = patience if isinstance(patience, AtLeast) else 0.0
            record.heartbeat_timeout = AtLeast(max(SILENCE, declared))

    def over(self) -> None:
        """Wait for it no longer: it has come to its end."""
        self.is_open = False
        self._forget()

    def let_go(self) -> None:
        """Wait for it no longer: it ends as what is dropped does, at its last word."""
        self.is_open = False
        self.call.abandon(EndedBy.GC)

    def _forget(self) -> None:
        # Under its identity there may be another one by now.
        if self.identity is not None and _waiting.get(self.identity) is self:
            del _waiting[self.identity]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)
