"""What somebody means who names a process, a span or a trace.

A process by its id, a span or a whole trace by the beginning of its own id.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agenttrace.journal import JournalError, State, read_journal
from agenttrace.journal.file import SUFFIX
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agenttrace.journal import Slot
    from agenttrace.live.processes import Dead, Picture, Process, Unreadable


class Wanted(NamedTuple):
    """A process, or some spans of it.

    Args:
        process: The process.
        spans: Which spans of it, None for all.
    """

    process: Process | Dead | Unreadable
    spans: tuple[Slot, ...] | None = None


class AmbiguousError(ValueError):
    """More than one span or trace begins like this.

    Attributes:
        found: Some of them, each with what it is.
    """

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__(f"{len(found)} ids begin like this")
        self.found = found


def find(picture: Picture, directory: Path, name: str) -> list[Wanted]:
    """Return what *name* stands for; nothing where nothing is called so.

    What lives goes before what is dead, and processes before spans: a number may be
    both.

    Args:
        picture: What there is to see.
        directory: Where processes have their files.
        name: A process id, or the beginning of a span id or of a trace id.

    Raises:
        AmbiguousError: Several ids begin so.
    """
    dead: list[Dead | Unreadable] = [*picture.dead, *picture.unreadable]
    named = [Wanted(each) for each in picture.processes if str(each.pid) == name]
    named = named or [Wanted(each) for each in dead if str(each.pid) == name]
    if named:
        return named
    living = [
        (process, [step.slot for step in process.forest.steps])
        for process in picture.processes
    ]
    found = _begin_so(living, name.lower())
    return found or _begin_so(
        [(each, _slots_of(directory, each)) for each in picture.dead], name.lower()
    )


def _begin_so(
    processes: Iterable[tuple[Process | Dead, list[Slot]]], beginning: str
) -> list[Wanted]:
    spans: dict[bytes, list[Wanted]] = {}
    traces: dict[bytes, list[Wanted]] = {}
    names: dict[bytes, str] = {}
    for process, slots in processes:
        of_trace: dict[bytes, list[Slot]] = {}
        for slot in slots:
            if slot.span_id.hex().startswith(beginning):
                spans.setdefault(slot.span_id, []).append(Wanted(process, (slot,)))
                names[slot.span_id] = slot.name
            if slot.trace_id.hex().startswith(beginning):
                of_trace.setdefault(slot.trace_id, []).append(slot)
        for trace, found in of_trace.items():
            traces.setdefault(trace, []).append(Wanted(process, tuple(found)))
    if len(spans) + len(traces) > 1:
        raise AmbiguousError(
            [f"span {span.hex()} ({names[span]})" for span in sorted(spans)]
            + [f"trace {trace.hex()}" for trace in sorted(traces)]
        )
    return [each for found in (*spans.values(), *traces.values()) for each in found]


def _slots_of(directory: Path, dead: Dead) -> list[Slot]:
    """Return what was open when a process died."""
    with (
        contextlib.suppress(OSError, JournalError),  # recovered by now, or damaged
        read_journal(directory / (dead.instance + SUFFIX)) as reading,
    ):
        return [slot for slot in reading if slot.state is State.OPEN]
    return []
