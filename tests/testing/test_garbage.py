"""A test that drops something and collects must find it collected."""

from __future__ import annotations

import gc
import threading
import weakref

from agenttrace.testing.garbage import collect_garbage


class Knot:
    """In a cycle with itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


class Slow(Knot):
    """Its finalizer takes until it is told to end."""

    begun = threading.Event()
    may_end = threading.Event()

    def __del__(self) -> None:
        self.begun.set()
        self.may_end.wait(10)


def drop_and_collect() -> None:
    Slow()
    gc.collect()


def test_another_threads_collection_is_waited_for() -> None:
    """`gc.collect` does nothing then: servers and clients of a test have threads."""
    other = threading.Thread(target=drop_and_collect)
    other.start()
    assert Slow.begun.wait(10)
    dropped = weakref.ref(Knot())
    found_by_gc = gc.collect()
    release = threading.Timer(0.05, Slow.may_end.set)
    release.start()

    collect_garbage()

    assert found_by_gc == 0
    assert dropped() is None
    other.join()
    release.join()


def test_nothing_is_left_behind() -> None:
    """Each callback would be called at every collection from then on."""
    before = list(gc.callbacks)

    collect_garbage()

    assert gc.callbacks == before
