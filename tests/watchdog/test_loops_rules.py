"""When a callback is said to block its loop: pure, from numbers alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agenttrace.watchdog.backstop import Dump
from agenttrace.watchdog.blocks import (
    SLACK,
    Gap,
    Rate,
    Suspicion,
    culprit,
    is_application,
    text_of,
)
from agenttrace.watchdog.turns import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

seconds = st.floats(0, 1e6)
places = st.lists(
    st.builds(
        Place,
        st.text(st.characters(exclude_characters='\n"', codec="utf-8"), min_size=1),
        st.integers(0, 10**6),
        st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1),
    )
)


@given(seconds, seconds, seconds, seconds, st.booleans())
def test_what_is_excused_is_never_more_than_there_was(
    length: float,
    planned: float,
    cpu: float,
    collecting: float,
    is_alive: bool,  # noqa: FBT001 - drawn
) -> None:
    """Else one pause would excuse a block that has nothing to do with it."""
    gap = Gap(length, planned, cpu=cpu, collecting=collecting, is_alive=is_alive)

    assert 0 <= gap.excused <= length
    assert 0 <= gap.held <= max(0.0, length - planned)


@given(st.floats(1, 1e4), st.floats(0, 0.1))
def test_a_process_that_stood_still_is_excused_all_of_it(
    late: float, cpu: float
) -> None:
    """SIGSTOP, a suspended host: nobody's callback took that time."""
    gap = Gap(0.2 + late, 0.2, cpu=cpu, collecting=0)

    assert gap.excused >= late - cpu - 1e-9
    assert gap.held <= cpu + 1e-9


@given(st.floats(1, 1e4))
def test_whoever_computes_while_nobody_can_look_is_not_excused(late: float) -> None:
    """That is C code that keeps the GIL."""
    gap = Gap(0.2 + late, 0.2, cpu=late, collecting=0)

    assert gap.excused < 1e-6
    assert abs(gap.held - late) < 1e-6


@given(st.floats(1, 1e4))
def test_one_that_was_seen_alive_did_not_stand_still(late: float) -> None:
    """C code may keep the GIL and wait; a dump that was written then proves it."""
    gap = Gap(0.2 + late, 0.2, cpu=0, collecting=0, is_alive=True)

    assert gap.excused == 0


def test_a_look_that_is_a_little_late_excuses_nothing() -> None:
    """Every machine has its moments, and they add up over a long block."""
    assert Gap(0.2 + SLACK / 2, 0.2, cpu=0, collecting=0).excused == 0


@given(seconds, seconds, seconds, st.floats(0.001, 1e6))
def test_one_look_proves_nothing_where_the_beginning_is_not_known(
    began: float, now: float, excused: float, limit: float
) -> None:
    """A loop with thousands of short callbacks is always found in one of them."""
    once = Suspicion("callback", began, is_sure=False, excused=0)

    assert not once.is_block(now, excused, limit)


@given(seconds, seconds, seconds, seconds)
def test_what_is_excused_does_not_count_as_blocked(
    began: float, lasted: float, before: float, excused: float
) -> None:
    """A block is told with the time that the callback itself has taken."""
    seen = Suspicion("callback", began, is_sure=True, excused=before)
    counted = seen.lasted(began + lasted, before + excused)

    assert counted >= 0
    assert abs(counted - max(0.0, lasted - excused)) < 1e-6


@given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 20))
def test_no_more_than_so_many_pass_in_so_many_seconds(
    waits: Sequence[float], most: int
) -> None:
    """A loop that is blocked all the time must not flood the backend."""
    rate = Rate(most, 60)
    now, passed = 0.0, list[float]()
    for wait in waits:
        now += wait
        if rate.allows(now):
            passed.append(now)

    assert len(passed) + rate.refused == len(waits)
    assert all(
        later - earlier >= 60
        for earlier, later in zip(passed, passed[most:], strict=False)
    )


@given(places, st.integers(0, 500))
def test_the_text_of_a_stack_is_bounded_and_keeps_the_innermost_lines(
    stack: list[Place], most: int
) -> None:
    """The line that blocks is the last one: it may not be cut off."""
    text = text_of(stack, most)

    assert len(text) <= most
    whole = text_of(stack, 10**9)
    assert whole.endswith(text)


def test_the_application_is_blamed_before_the_library_that_it_calls() -> None:
    """`time.sleep` has no frame, but `requests.get` has twenty."""
    mine = Place("/srv/app/tools.py", 12, "search")
    stack = [
        Place(os.__file__, 1, "read"),
        Place("/venv/lib/python3.12/site-packages/httpx/_client.py", 2, "get"),
        mine,
        Place("/srv/app/main.py", 3, "main"),
    ]

    assert culprit(stack) is mine
    assert culprit(stack[:2]) is stack[0]
    assert culprit([]) is None


def test_agenttrace_is_not_the_application_but_its_demo_is() -> None:
    """Our frames are on many stacks, and to blame on none."""
    from agenttrace import demo, safety  # noqa: PLC0415 - their files alone

    assert not is_application(safety.__file__)
    assert not is_application("<frozen importlib._bootstrap>")
    assert is_application(demo.__file__)


def test_the_stack_of_one_thread_is_found_in_a_dump() -> None:
    """`faulthandler` writes those of all threads, and marks none of them."""
    dump = Dump(
        0.0,
        "Timeout (0:00:01)!\n"
        "Thread 0x00007f0000000001 (most recent call first):\n"
        '  File "/usr/lib/threading.py", line 324 in wait\n'
        "\n"
        "Thread 0x00007f0000000002 (most recent call first):\n"
        '  File "/srv/a b/re.py", line 166 in match\n'
        '  File "/srv/app.py", line 5 in <module>\n',
    )

    first, second = dump.stack_of(0x7F0000000001), dump.stack_of(0x7F0000000002)

    assert first is not None
    assert first.strip() == Place("/usr/lib/threading.py", 324, "C.wait").as_dumped()
    assert second is not None
    innermost = Place("/srv/a b/re.py", 166, "match").as_dumped()
    assert second.splitlines()[0].strip() == innermost
    assert dump.stack_of(3) is None
