"""Takes spans down in the journal's slots (`registry.Slots`), on the hot path.

A span is written by the thread that starts it: one `pack_into` of what is known, then
one store that commits.  No lock is taken and no system call made: signal handlers and
finalizers start spans in the middle of this.  What may take its time, more slots,
is made by a thread that lives as long as that takes; until it is there, spans that find
no slot are kept in memory.

What makes it safe without locks is the GIL, which changes hands at calls and at
backward jumps: between looking at a record's slot and storing into it there is none.

This module owns who has which slot.  The bytes are `format`'s, the file is
`segments`', and when a span ends is not decided here.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from agenttrace import safety
from agenttrace.clock import COARSE
from agenttrace.journal import payload, process
from agenttrace.journal.format import LAST_TICK, MEMORY, Header, State, commit_code
from agenttrace.journal.growth import Growth
from agenttrace.journal.lock import hold
from agenttrace.journal.payload import NOTHING, UNUSUAL
from agenttrace.journal.segments import MULTIPLE, WORDS, SlotFile
from agenttrace.journal.texts import KEY_ATTRIBUTES
from agenttrace.lazy import no_fork_at_first
from agenttrace.model import EndedBy, Ending, LinkData, Outcome
from agenttrace.registry import MemorySlots
from agenttrace.registry.records import SINK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agenttrace.registry import OpenSpan, Slots

SUFFIX: Final = ".journal"
MOST_SLOTS: Final = 1 << 18
"""Where a journal stops growing, at 128 MiB; spans beyond it are kept in memory."""
_PATIENCE: Final = 1.0
"""Seconds that closing waits for a growth that is under way."""
_CHUNK: Final = 256
"""Slots that are made ready at a time: each is a number in a list."""
_LAST: Final = 0xFFFF_FFFF << 32
"""The commit word of a free slot whose sequence cannot rise any more."""
_STATE: Final = 0xFF
_OPEN: Final = int(State.OPEN)
_TAKEN: Final = (1 << 32) + _OPEN
"""What makes of the commit word of a free slot that of its next span."""
_UNTOLD: Final = (int(State.OPEN), int(State.ENDED))
_ENDED: Final = State.ENDED
_JUDGED: Final = State.JUDGED
_OK: Final = commit_code(State.ENDED, Outcome.OK, EndedBy.RETURN) - _OPEN
_WELL: Final = Outcome.OK
_RETURN: Final = EndedBy.RETURN
_NAN: Final = math.nan
_CONVERSATION, _MODEL, _AGENT, _TOOL, _PROVIDER = KEY_ATTRIBUTES
_journals: Final[weakref.WeakSet[Journal]] = weakref.WeakSet()


class Journal:
    """The slots of this process, in a file that survives it (`registry.Slots`).

    Args:
        directory: Where the file and its lock are made; created if it is not there.
        resource: Bytes for whoever recovers the spans, as they are.
        first_slots: How many slots there are before it grows; it doubles then.
        on_low: Called once, on an application's thread, when less than a quarter of
            the slots is free; it has `grow` called elsewhere.  None: a thread of the
            journal's own does it.
        previous: Whose slots the records have that were open before this journal.

    Attributes:
        instance: `<pid>-<16 hexadecimal digits>`, the name of this journal.  All but
            the last four digits are the same for every journal of a process.
        path: The file.
        lock: Its lock, held.

    Raises:
        OSError: The directory is read-only or full, or cannot lock files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        resource: bytes = b"",
        first_slots: int = 4096,
        on_low: Callable[[], object] | None = None,
        previous: Slots | None = None,
    ) -> None:
        self.instance = process.next_instance()
        self.path = directory / (self.instance + SUFFIX)
        self.is_closed = False
        self._growth = Growth(self._double, on_low)
        self._previous = previous
        self._memory = MemorySlots()
        self._texts: dict[object, payload.Packed] = {}
        # Free slots by the number of their heartbeat word, and nothing more of them:
        # with thousands of spans at once, each object is a miss of the cache.
        self._free: list[int] = []
        self._chunks: deque[range] = deque()
        self._pop = self._free.pop
        header = Header(
            os.getpid(),
            process.boot_id(),
            process.started_at(),
            COARSE.renew(),
            resource,
        )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = hold(directory, self.instance)
        try:
            self._file = SlotFile(self.path, header)
            self._words = self._file.words
            # By identity: memory that changes has no hash.
            self._mappings: dict[int, memoryview[int]] = {}
            try:
                self._add(-(-max(first_slots, 1) // MULTIPLE) * MULTIPLE)
            except BaseException:
                self._file.close(remove=True)
                raise
        except BaseException:
            self.lock.release(remove=True)
            raise
        self._head = self._file.head
        _journals.add(self)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    @property
    def slots(self) -> int:
        """How many slots the file has."""
        return self._file.slots

    @property
    def is_needed(self) -> bool:
        """Whether a span stands in it that is told nowhere else."""
        return any(word & _STATE in _UNTOLD for word in self._words[::WORDS].tolist())

    # The hot path.

    def take(self, span: OpenSpan) -> None:
        """Write *span* into a free slot; keep it in memory where there is none."""
        try:
            word = self._pop()
        except IndexError:
            self._take_more(span)
            return
        words = self._words
        try:
            # By attribute, not by type: other live objects have less, or nothing.
            live: Any = span()
            tracer = live._tracer  # noqa: SLF001 - see `Described`
            operation = span.operation
            values = live._values  # noqa: SLF001 - see `Described`
            if operation is None and (
                values is None
                or _CONVERSATION not in values
                or payload.is_a_step(span, live)
            ):
                pack, texts = self._texts[span.name, tracer]
            else:
                get = (values or NOTHING).get
                pack, texts = self._texts[
                    span.name,
                    tracer,
                    operation,
                    get(_CONVERSATION),
                    get(_MODEL),
                    get(_AGENT),
                    get(_TOOL),
                    get(_PROVIDER),
                ]
            started_at = span.started_at
            silence = span.heartbeat_timeout
            longest = span.max_duration
            pack(
                words,
                8 * word,
                started_at,
                0,
                started_at,
                span.trace_id,
                span.span_id,
                span.parent_id,
                span.thread_id,
                _NAN if silence is None else silence,
                _NAN if longest is None else longest,
                live.flags,
                live._kind._value_,  # noqa: SLF001 - see `Described`; the fast way to `value`
                live.remote_parent,
                texts,
            )
        except UNUSUAL:  # texts that come for the first time, for one
            if self.is_closed or not payload.write(span, words, 8 * word, self._texts):
                self._free.append(word)
                self._take_memory(span)
                return
        span.slot = opened = words[word - 1] + _TAKEN
        span.words = words
        span.word = word
        # Last: until here a signal handler that raises leaves a free slot behind.
        words[word - 1] = opened

    def ended(self, span: OpenSpan, end_time: int, ending: Ending) -> None:
        """Write down that *span* has ended, and how.

        Into the slot it has, be it this journal's or that of the one before.
        """
        opened = span.slot
        if opened > MEMORY:
            words, word = span.words, span.word
            if ending.outcome is _WELL and ending.ended_by is _RETURN:
                code = _OK
            else:
                code = payload.write_error(words, word, _ENDED, ending) - _OPEN
                if span.slot != opened:  # told by another, and freed, meanwhile
                    return
            try:
                words[word + 1] = end_time
            except (TypeError, ValueError):  # before 1970, or after 2554
                words[word + 1] = 0
            words[word - 1] = opened + code

    # Off the hot path.

    def judged(self, span: OpenSpan, ending: Ending | None = None) -> None:
        """Write down that the end of *span* is told, though its owner has it still.

        *ending* is what was told, if that is to stand there, too.
        """
        opened = span.slot
        if opened > MEMORY:
            words, word = span.words, span.word
            code = payload.write_error(words, word, _JUDGED, ending) - _OPEN
            # Its owner may have ended it meanwhile, and the slot be another span's.
            if span.slot == opened:
                words[word - 1] = opened + code

    def linked(self, span: OpenSpan, links: Sequence[LinkData]) -> None:
        """Write down what *span* is linked to, as far as there is room."""
        if span.slot > MEMORY:
            with no_fork_at_first("journal.links"):
                from agenttrace.journal.links import write_links  # noqa: PLC0415 - rare
            write_links(span, links)

    def free(self, span: OpenSpan) -> None:
        """Let the slot go and send later heartbeats of *span* nowhere."""
        words, word = span.words, span.word
        is_ours = id(words) in self._mappings
        # No call until the slot is free: who comes second frees nothing, and a signal
        # handler that raises leaves no span in the file that nobody will free.
        opened, span.slot = span.slot, -1
        if is_ours and opened > MEMORY:
            span.words, span.word = SINK, 0
            free = opened - _OPEN
            words[word - 1] = free if free < _LAST else 0
            if not self.is_closed:
                self._free.append(word)
        elif 0 <= opened <= MEMORY:
            span.slot = opened
            self._memory.free(span)
        elif opened > MEMORY and self._previous is not None:
            span.slot = opened
            self._previous.free(span)
        else:
            # The parent process's, or free already.
            span.words, span.word = SINK, 0

    def tick(self) -> None:
        """Write down that the process is alive.  Called by the ticker."""
        self._head[LAST_TICK // 8] = COARSE.now

    def grow(self) -> bool:
        """Double the slots; False where that cannot be done now.

        Waits for the disk.  What fails is logged once, and tried again seconds later.
        """
        return self._growth.run()

    def close(self, *, remove: bool) -> None:
        """Write nothing more; spans that start are kept in memory from now on.

        What is mapped stays so while records have it.  In a forked child nothing of
        its parent's is touched.

        Args:
            remove: Delete the file and the lock: there is nothing left to recover.

        Raises:
            OSError: They could not be deleted.
        """
        # A disk that hangs must not hang whoever closes.
        is_mine = self._growth.lock.acquire(timeout=_PATIENCE)
        try:
            if not is_mine or self.is_closed:
                self._stop()
                return
            self._stop()
            if remove:
                # Unmapped with the last record that has words of it.
                self._unmap()
            try:
                self._file.close(remove=remove)
            finally:
                self.lock.release(remove=remove)
        finally:
            if is_mine:
                self._growth.lock.release()

    def _stop(self) -> None:
        self.is_closed = True
        self._growth.stop()
        self._head = memoryview(bytearray(LAST_TICK + 8)).cast("Q")
        self._chunks.clear()
        self._free.clear()
        self._texts.clear()

    def _unmap(self) -> None:
        self._mappings = {}
        self._words = memoryview(b"").cast("Q")

    def pass_over(self, gone: Journal) -> None:
        """Forget *gone*, of those before this one: no record needs it any more."""
        before = self._previous
        if before is gone:
            self._previous = gone._previous
        elif isinstance(before, Journal):
            before.pass_over(gone)

    def forget(self) -> None:
        """Let go, in a forked child, of what is its parent's.  Nothing is written."""
        self._growth.lock = threading.Lock()
        self._unmap()
        self._previous = None
        self._stop()
        with contextlib.suppress(OSError):
            self._file.close(remove=False)

    def _double(self) -> bool:
        if self.is_closed or self._file.slots * 2 > MOST_SLOTS:
            return False
        self._add(self._file.slots)
        return True

    def _add(self, slots: int) -> None:
        first = self._file.slots
        self._file.add(slots)
        words = self._file.words
        # First: a slot of it may be taken, and freed, as soon as it is there.
        self._mappings[id(words)] = words
        self._words = words
        size = max(1, min(_CHUNK, slots // 8))
        end = first + slots
        # Last: what is taken from here is in the new mapping only.
        self._chunks.extend(
            range(at, min(at + size, end)) for at in range(first, end, size)
        )

    def _take_more(self, span: OpenSpan) -> None:
        """Make more slots ready for *span*, or keep it in memory."""
        try:
            slots = self._chunks.popleft()
        except IndexError:
            self._growth.ask()
            self._take_memory(span)
            return
        # Of a list: in one step, whoever takes and frees meanwhile.
        self._free.extend([WORDS * at + 1 for at in slots])
        # As many are in use as were made ready, or nobody would come here.
        if len(self._chunks) * len(slots) * 4 < self._file.slots:
            self._growth.ask()
        self.take(span)

    def _take_memory(self, span: OpenSpan) -> None:
        safety.count(safety.Count.SPANS_NOT_JOURNALED)
        self._memory.take(span)


def _after_fork() -> None:
    for journal in tuple(_journals):
        journal.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
