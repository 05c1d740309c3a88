"""Any value an application hands over becomes one that can be encoded, and no error."""

from __future__ import annotations

import json
from collections import UserDict
from enum import Enum, IntEnum, StrEnum
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from agenttrace import attributes
from agenttrace.delivery import otlp
from agenttrace.model import ScopeData, SpanData

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()))
    | st.binary()
)
hostile = st.recursive(
    scalars | st.complex_numbers() | st.dates() | st.sets(st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
    ),
    max_leaves=20,
)


def is_clean(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(is_clean, cast("tuple[object, ...]", value)))
    if isinstance(value, dict):
        items = cast("dict[object, object]", value)
        return {type(key) for key in items} <= {str} and all(
            map(is_clean, items.values())
        )
    return type(value) in attributes.SCALARS


@given(hostile)
def test_every_value_becomes_one_that_otlp_can_carry(value: object) -> None:
    """Lossless where OTLP has a word for it, text elsewhere, never an exception."""
    cleaned = attributes.clean(value)

    assert is_clean(cleaned)


@given(hostile)
def test_a_clean_value_survives_the_wire(value: object) -> None:
    """What is cleaned needs no further fallback in the encoder."""
    cleaned = attributes.clean(value)

    [back] = otlp.decode(otlp.encode([span_with({"key": cleaned})]))

    assert repr(back.attributes["key"]) == repr(cleaned)


@given(hostile)
def test_a_flat_value_is_one_that_every_sdk_takes(value: object) -> None:
    """SDKs before 1.41 know no nested values: those travel as JSON text."""
    flat = attributes.flat(value)

    items = cast("tuple[object, ...]", flat if isinstance(flat, tuple) else (flat,))
    assert all(type(item) in {str, bool, int, float, bytes} for item in items)
    assert len({type(item) for item in items}) <= 1


class Hostile:
    """An object whose every way of being looked at fails."""

    def __str__(self) -> str:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class BrokenMapping(UserDict[str, str]):
    """A mapping that cannot be read."""

    def items(self) -> object:  # type: ignore[override]  # that it is wrong is the point
        raise OSError


def test_an_object_that_cannot_be_read_says_so_instead_of_raising() -> None:
    """A tool's argument with a broken `__str__` must not break the tool."""
    assert attributes.clean(Hostile()) == "<Hostile: RuntimeError when read>"
    assert (
        attributes.clean(BrokenMapping(a="b")) == "<BrokenMapping: OSError when read>"
    )


def test_a_cycle_is_cut_and_said() -> None:
    """A list that holds itself has no end; the span's attribute has one."""
    cycle: list[object] = [1]
    cycle.append(cycle)

    cleaned = attributes.clean(cycle)

    assert "<nested too deeply>" in json.dumps(cleaned)


def test_what_the_caller_changes_later_does_not_change_the_attribute() -> None:
    """A span tells what was, not what became of the list afterwards."""
    items = ["a"]

    cleaned = attributes.clean(items)
    items.append("b")

    assert cleaned == ("a",)


def test_ten_megabytes_of_text_are_cut() -> None:
    """A tool's output must not fill memory, journal and wire."""
    cleaned = attributes.clean("x" * 10_000_000)

    assert cleaned == "x" * attributes.MAX_TEXT


def test_enumerations_become_their_plain_values() -> None:
    """A StrEnum is a str to Python, and must be one to whoever asks for types."""

    class Word(StrEnum):
        YES = "yes"

    class Number(IntEnum):
        ONE = 1

    class Other(Enum):
        THING = object()

    assert type(attributes.clean(Word.YES)) is str
    assert attributes.clean(Word.YES) == "yes"
    assert type(attributes.clean(Number.ONE)) is int
    assert attributes.clean(Other.THING) == "Other.THING"


def span_with(values: dict[str, object]) -> SpanData:
    return SpanData(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        name="step",
        start_time=1,
        end_time=2,
        attributes=values,
        scope=ScopeData("test"),
    )
