"""Our `NamedTuple` is what `typing`'s would be."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any
from typing import NamedTuple as Original

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.records import NamedTuple


class Point(NamedTuple):
    """Ours."""

    x: int
    y: int = 2
    label: str = ""

    @property
    def total(self) -> int:
        """A method like any other."""
        return self.x + self.y


class Typed(Original):
    """The original."""

    x: int
    y: int = 2
    label: str = ""


NAMES = st.sampled_from(["x", "y", "label", "z"])


def made(cls: type[Any], values: list[int], named: dict[str, int]) -> object:
    """Return its items, or that it could not be made."""
    try:
        one = cls(*values, **named)
    except TypeError:
        return TypeError
    return tuple(one), repr(one).removeprefix(cls.__name__), one._asdict()


@given(st.lists(st.integers(), max_size=4), st.dictionaries(NAMES, st.integers()))
def test_it_is_called_as_the_original_is(
    values: list[int], named: dict[str, int]
) -> None:
    """With names, without, with defaults, too many, too few, twice."""
    assert made(Point, values, named) == made(Typed, values, named)


def test_it_is_a_tuple_with_names() -> None:
    """Whatever a tuple does, and no attribute beside its items."""
    point = Point(1, label="a")

    x, y, label = point

    assert (x, y, label) == point == (1, 2, "a")
    assert hash(point) == hash((1, 2, "a"))
    assert point._replace(x=3) == Point(3, 2, "a")
    assert point.total == 3
    assert pickle.loads(pickle.dumps(point)) == point  # noqa: S301 - our own
    assert Point._fields == Typed._fields
    with pytest.raises(AttributeError):
        point.x = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # the point
    with pytest.raises(AttributeError):
        point.other = 4  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # the point


def test_it_is_matched_by_position_and_by_name() -> None:
    """As senders' answers are."""
    match Point(1, 5):
        case Point(x, y, label=""):
            assert (x, y) == (1, 5)
        case _:
            pytest.fail("it was not matched")


def test_the_start_of_a_process_defines_none_of_the_original() -> None:
    """Each would take longer than the span it is made for."""
    program = """
import typing
made = []
original = typing.NamedTupleMeta.__new__
def new(cls, name, bases, body):
    made.append(f"{body['__module__']}.{name}")
    return original(cls, name, bases, body)
import openai
typing.NamedTupleMeta.__new__ = staticmethod(new)
import agenttrace
with agenttrace.configure():
    agenttrace.instrument()
    print([name for name in made if name.startswith("agenttrace.")])
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == "[]"
