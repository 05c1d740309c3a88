"""A destination that is down is asked again, ever less often, and never in step."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agenttrace.delivery.retry import Retry

failures = st.integers(min_value=1) | st.integers(1, 10)
shares = st.floats(0, 1)


@given(failures, shares)
def test_a_wait_lies_between_half_the_first_and_the_longest(
    failures: int, share: float
) -> None:
    """No hot loop after a second, and no silence of hours after a day."""
    retry = Retry(first=1.0, longest=30.0)

    assert 0.5 <= retry.wait(failures, share=share) <= 30.0


@given(failures, shares)
def test_without_jitter_no_wait_is_shorter_than_the_one_before(
    failures: int, share: float
) -> None:
    """Patience grows."""
    retry = Retry()

    assert retry.wait(failures, share=share) <= retry.wait(failures + 1, share=share)


@given(failures, st.floats(min_value=0, allow_infinity=True))
def test_what_the_destination_asks_for_is_kept_within_reason(
    failures: int, asked: float
) -> None:
    """`Retry-After: 0` is no invitation to a hot loop, and garbage no farewell."""
    retry = Retry(first=1.0, longest_asked=300.0)

    wait = retry.wait(failures, asked)

    assert 0.5 <= wait <= 300.0
    assert math.isclose(wait, asked) or not 0.5 <= asked <= 300.0


def test_two_senders_that_fail_together_do_not_come_back_together() -> None:
    """A collector that restarts would be brought down by its whole fleet."""
    assert len({Retry().wait(4) for _ in range(20)}) > 1
