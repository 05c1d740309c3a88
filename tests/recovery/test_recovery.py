"""How a recovery goes on, is stopped and is let go of, while lanes settle beside it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from agenttrace import safety
from agenttrace.journal import take_over
from agenttrace.recovery import Recovery
from tests.recovery.given import (
    DEADLINE,
    FIRST,
    OTHER,
    Backend,
    Child,
    bury,
    frame_of_spans,
    hold_up,
    names_in,
    recover,
    slot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenttrace.delivery.frames import Frame
    from agenttrace.recovery import Recovered
    from agenttrace.recovery.search import Settle

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


def contents(directory: Path) -> dict[str, bytes]:
    # Not of locks: who closes a file of that name has it no more.
    return {
        path.name: b"" if path.suffix == ".lock" else path.read_bytes()
        for path in directory.iterdir()
    }


def test_what_is_delivered_after_the_lock_is_let_go_of_writes_nothing(
    directory: Path,
) -> None:
    """By then the files are those of another process, by the same names."""
    bury(directory, FIRST, [slot(1)], frames=[frame_of_spans(2)])
    held, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()

    recovery.close()
    before = contents(directory)
    for _, settle in held:
        settle()

    assert len(held) == 2
    assert contents(directory) == before
    assert f"{FIRST}.lock" in before


def test_what_is_let_go_of_is_delivered_by_the_next_one(
    directory: Path, backend: Backend
) -> None:
    """The same bytes, perhaps for the second time, and then the files go."""
    bury(directory, FIRST, [slot(1)], frames=[frame_of_spans(2)])
    _, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()
    recovery.close()

    found = recover(directory, backend)

    assert (found.lost, found.resent) == (0, 2)
    assert len(backend.arrived()) == 2
    assert names_in(directory) == []


def test_files_go_when_the_last_frame_is_settled_and_not_before(
    directory: Path,
) -> None:
    """Lanes settle in an order of their own."""
    frames = [frame_of_spans(number) for number in range(2, 6)]
    bury(directory, FIRST, [slot(1)], frames=frames)
    held, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()

    for _, settle in reversed(held[1:]):
        settle()
    before = names_in(directory)
    held[0][1]()

    assert f"{FIRST}.lock" in before
    assert recovery.wait(0)
    assert names_in(directory) == []


def test_what_is_on_its_way_has_a_limit(directory: Path) -> None:
    """Recovery must not fill the memory of who does it."""
    frames = [frame_of_spans(number) for number in range(1, 101)]
    bury(directory, FIRST, [], frames=frames)
    window = 5 * len(frames[0].payload)
    on_their_way = most = 0
    changed = threading.Condition()
    waiting: list[Settle] = []

    def send(frame: Frame, settle: Settle) -> bool:
        nonlocal on_their_way, most
        with changed:
            on_their_way += len(frame.payload)
            most = max(most, on_their_way)

            def settled() -> None:
                nonlocal on_their_way
                on_their_way -= len(frame.payload)
                settle()

            waiting.append(settled)
            changed.notify()
        return True

    def settle_all() -> None:
        for _ in frames:
            with changed:
                assert changed.wait_for(lambda: waiting, DEADLINE)
                settled = waiting.pop(0)
            settled()

    recovery = Recovery(directory, send, window=window)
    thread = threading.Thread(target=settle_all)
    thread.start()
    found = recovery.run()
    thread.join()

    assert found.resent == 100
    assert most <= window
    assert recovery.wait(DEADLINE)
    assert names_in(directory) == []


def test_so_many_locks_are_held_at_once_and_no_more(directory: Path) -> None:
    """Each has a descriptor, and the limit on them is the application's."""
    for number in range(200):
        bury(directory, f"{number}-0123456789ab0000", [slot(number + 1)])
    held, send = hold_up()
    recovery = Recovery(directory, send)
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - no directory of ours
    thread = threading.Thread(target=recovery.run)
    thread.start()
    _until(lambda: len(held) >= 64)

    most = len(os.listdir("/dev/fd")) - before  # noqa: PTH208 - no directory of ours
    recovery.close()
    thread.join(DEADLINE)

    assert not thread.is_alive()
    assert most < 64 * 2 + 8
    assert len(held) <= 96


def test_stopping_ends_a_recovery_that_waits(directory: Path) -> None:
    """The collector is down, and the process is to end."""
    frames = [frame_of_spans(number) for number in range(1, 50)]
    bury(directory, FIRST, [slot(99)], frames=frames)
    held, send = hold_up()
    recovery = Recovery(directory, send, window=1)
    thread = threading.Thread(target=recovery.run)
    thread.start()
    _until(lambda: bool(held))

    recovery.close()
    thread.join(DEADLINE)
    lock = take_over(directory / f"{FIRST}.lock")

    assert not thread.is_alive()
    assert len(held) == 1
    assert lock is not None
    lock.release(remove=False)


def test_who_waits_for_a_recovery_hears_that_it_is_closed(directory: Path) -> None:
    """`recover()` on one thread, `shutdown()` on another."""
    bury(directory, FIRST, [slot(1)])
    held, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()
    done = threading.Event()

    def wait() -> None:
        recovery.wait(DEADLINE)
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    recovery.close()

    assert done.wait(DEADLINE / 4)
    assert len(held) == 1


def test_who_takes_no_more_leaves_it_to_the_next_one(
    directory: Path, backend: Backend
) -> None:
    """A spooler that is shut down says so."""
    bury(directory, FIRST, [slot(1)])
    recovery = Recovery(directory, lambda _frame, _settle: False)

    recovery.run()
    recovery.close()
    recover(directory, backend)

    assert len(backend.arrived()) == 1
    assert names_in(directory) == []


def test_progress_is_told_while_it_goes_on(directory: Path, backend: Backend) -> None:
    """A hundred thousand spans take seconds."""
    bury(directory, FIRST, [slot(number) for number in range(1, 1001)])
    seen: list[int] = []

    def tell(found: Recovered) -> None:
        seen.append(found.lost)

    Recovery(directory, backend.send).run(tell)

    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1] == 1000


def test_a_forked_child_does_nothing_to_what_its_parent_recovers(
    directory: Path, backend: Backend
) -> None:
    """It has the same objects, and the parent's files."""
    bury(directory, FIRST, [slot(1)], frames=[frame_of_spans(2)])
    bury(directory, OTHER, [slot(3)])
    held, send = hold_up()
    recovery = Recovery(directory, send)
    recovery.run()
    before = contents(directory)

    def body() -> None:
        recovery.forget()
        for _, settle in held:
            settle()
        recovery.close()
        assert Recovery(directory, backend.send).run().processes == 0

    code = Child(body).wait()

    assert code == 0
    assert contents(directory) == before
    for frame, settle in held:
        backend.send(frame, settle)
    assert recovery.wait(DEADLINE)
    assert names_in(directory) == []


def _until(is_so: Callable[[], bool]) -> None:
    condition = threading.Condition()
    with condition:
        while not is_so():
            condition.wait(0.01)


def test_what_is_refused_is_not_counted_as_recovered(tmp_path: Path) -> None:
    """It is found again every ten minutes, and by the next process."""

    def refuse(frame: Frame, settle: Settle) -> bool:
        del frame, settle
        return False

    def take(frame: Frame, settle: Settle) -> bool:
        del frame
        settle()
        return True

    def counted() -> int:
        counts = safety.counts()
        return counts["spans_recovered"] + counts["spans_redelivered"]

    bury(tmp_path, FIRST, [slot(1), slot(2)])
    before = counted()

    refusing = Recovery(tmp_path, refuse)
    refusing.run()
    refusing.close()
    refused = counted() - before
    Recovery(tmp_path, take).run()

    assert refused == 0
    assert counted() == before + 2
