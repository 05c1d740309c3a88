"""How spans that have ended are counted, and what is remembered of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agenttrace.metrics.bounded import MOST, Bounded
from agenttrace.metrics.ends import Ends
from tests.delivery.given import span_data


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_what_is_above_is_known_of_the_latest_and_of_a_bounded_number(
    batches: list[int],
) -> None:
    """An agent may end long after its parent; a process may go on for months."""
    ends, last = Ends(Bounded()), 0
    form = span_data("execute_tool t")._replace(parent_id=b"above")
    for size in batches:
        ids = [_id(number) for number in range(last, last + size)]
        assert ends.count([form._replace(span_id=each) for each in ids]) == []
        last += size

    known = [number for number in range(last) if ends.above(_id(number)) == b"above"]

    assert sum(value for value, _ in ends.told()) == last
    assert known == list(range(last - len(known), last))
    assert min(last, MOST // 2) <= len(known) <= MOST + 2 * max(batches)


def _id(number: int) -> bytes:
    return number.to_bytes(8, "big")
