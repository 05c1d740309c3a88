"""A span that cannot be encoded as it is arrives all the same, and alone differs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from agenttrace import safety
from agenttrace.delivery.otlp import decode, encode, frame_of
from agenttrace.delivery.otlp.fallback import rescue
from agenttrace.model import EventData, LinkData, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOURCE = ResourceData({"service.name": "support"})
SCOPE = ScopeData("agenttrace", "1.0")
SPAN = SpanData(
    trace_id=bytes(range(16)),
    span_id=bytes(range(8)),
    name="execute_tool search",
    kind=SpanKind.CLIENT,
    start_time=1_800_000_000_000_000_000,
    end_time=1_800_000_001_000_000_000,
    attributes={"agenttrace.outcome": "ok", "tokens": 17},
    events=(EventData(5, "exception", {"exception.type": "ValueError"}),),
    links=(LinkData(bytes(16), bytes(8), is_remote=True, attributes={"n": 1}),),
    resource=RESOURCE,
    scope=SCOPE,
)


class Hostile:
    """A value that fails when it is asked what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError

    def __repr__(self) -> str:
        """Do not fail: Hypothesis asks as well."""
        return "Hostile()"


class HostileDict(dict[str, object]):
    """Attributes that fail when they are read."""

    def __iter__(self) -> Iterator[str]:
        """Fail."""
        raise RuntimeError

    def items(self) -> NoReturn:
        """Fail."""
        raise RuntimeError

    keys = items


def endless() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items


def deep(levels: int) -> object:
    value: object = "bottom"
    for _ in range(levels):
        value = (value,)
    return value


JUNK = (
    None,
    "lone \ud800",
    "text",
    b"bytes",
    2**70,
    -1,
    float("nan"),
    1.5,
    1 + 2j,
    {"nested": Hostile()},
    {1: 2, "": 3},
    {"\udfff": "\udfff"},
    {1, 2},
    endless(),
    deep(200),
    Hostile(),
    HostileDict(a=1),
    [None, Hostile(), SPAN],
    memoryview(b"view"),
    lambda: None,
)
junk = st.sampled_from(JUNK)
FIELDS = SpanData._fields


@pytest.fixture(autouse=True)
def _counted_from_zero() -> None:
    safety.reset_for_tests()


def fallbacks() -> int:
    return safety.counts()[safety.Count.ENCODER_FALLBACKS]


def with_junk(span: SpanData, **changes: object) -> SpanData:
    """Return *span* with values that its types forbid."""
    return span._replace(**cast("dict[str, Any]", changes))


@given(st.dictionaries(st.sampled_from(FIELDS), junk, max_size=4))
@example({"resource": None, "scope": None})
def test_no_span_is_lost_whatever_its_fields_hold(changes: dict[str, object]) -> None:
    """One that cannot be sent would be missed exactly when something went wrong."""
    span = with_junk(SPAN, **changes)

    decoded = decode(encode([span]))

    assert len(decoded) == 1


@given(st.dictionaries(st.text(max_size=3) | junk.filter(callable), junk))
def test_no_span_is_lost_whatever_its_attributes_hold(
    attributes: dict[str, object],
) -> None:
    """Attributes are the part that applications fill, with anything at all."""
    span = with_junk(
        SPAN,
        attributes=attributes,
        events=[EventData(1, "e", attributes), None, "event"],
        links=[LinkData(bytes(16), bytes(8), is_remote=False, attributes=attributes)],
        resource=ResourceData(attributes),
        scope=ScopeData("s", attributes=attributes),
    )

    (decoded,) = decode(encode([span]))

    assert decoded.span_id == SPAN.span_id
    assert decoded.dropped_events == 2


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("lone \ud800", "lone \\ud800"),
        (2**70, str(2**70)),
        (Hostile(), "<Hostile: RuntimeError when read>"),
        (("kept", {1}), ("kept", "{1}")),
    ],
)
def test_only_what_is_broken_is_replaced(value: object, sent: object) -> None:
    """The rest of a span is the truth, and what is broken still says what it was."""
    span = SPAN._replace(attributes={"before": 1, "broken": value, "after": "x" * 99})

    (decoded,) = decode(encode([span]))

    expected = {"before": 1, "broken": sent, "after": "x" * 99}
    assert decoded == SPAN._replace(attributes=expected)
    assert fallbacks() == 1


def test_a_value_too_deep_for_protobufs_decoders_does_not_take_the_batch_along() -> (
    None
):
    """A backend refuses the whole request; our own depth limit is far below that."""
    span = SPAN._replace(attributes={"deep": deep(200), "kept": 1})

    decoded = decode(encode([SPAN, span, SPAN]))

    assert [each.attributes.get("kept") for each in decoded] == [None, 1, None]
    assert fallbacks() == 1


def test_ids_of_a_wrong_length_become_what_a_backend_accepts() -> None:
    """One bad id, too, makes a backend refuse everything beside it."""
    span = SPAN._replace(trace_id=b"\1", span_id=b"\2" * 9, parent_id=b"\3")

    frame = frame_of([span])

    (decoded,) = decode(frame.payload)
    assert decoded.trace_id == b"\1".rjust(16, b"\0")
    assert decoded.span_id == b"\2" * 8
    assert decoded.parent_id == b"\3".rjust(8, b"\0")
    assert frame.ids == ((decoded.trace_id, decoded.span_id),)


def test_numbers_out_of_range_are_moved_into_it() -> None:
    """A clock before 1970 is a bad clock, not a reason to lose the step."""
    span = with_junk(SPAN, start_time=-5, end_time=2**65, dropped_links=2**33)

    (decoded,) = decode(encode([span]))

    assert (decoded.start_time, decoded.end_time) == (0, 2**64 - 1)
    assert decoded.dropped_links == 2**32 - 1


def test_a_resource_that_cannot_be_encoded_is_repaired_once() -> None:
    """It is on every span; counting it for each would look like a catastrophe."""
    resource = ResourceData({"service.name": "support", "broken": {1}}, "\ud800")
    spans = [SPAN._replace(resource=resource)] * 3

    decoded = decode(encode(spans) + encode(spans))

    assert len(decoded) == 6
    assert decoded[0].resource.attributes == {
        "service.name": "support",
        "broken": "{1}",
    }
    assert fallbacks() == 1


def test_a_fallback_is_logged_once_and_tells_no_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What breaks an encoder is often a prompt, and a log is read by others."""
    span = SPAN._replace(attributes={"prompt": "secret \ud800"})

    with caplog.at_level(logging.WARNING):
        encode([span, span])

    assert len(caplog.records) == 1
    assert "UnicodeEncodeError" in caplog.text
    assert "secret" not in caplog.text
    assert fallbacks() == 2


class TestABugInTheEncoder:
    """Nothing in the span is wrong, and still it cannot be written."""

    @pytest.fixture(autouse=True)
    def _as_in_an_application(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the guard swallow what it raises in tests."""
        monkeypatch.delenv(safety.STRICT_VARIABLE)

    def test_is_made_up_for_by_protobuf(self) -> None:
        """Nothing of the span is lost; the guard has told of the bug."""

        def broken(_: SpanData) -> bytes:
            raise ZeroDivisionError

        rescued = rescue(SPAN, broken, ZeroDivisionError())

        assert rescued is not None
        assert rescued[0] == (SPAN.trace_id, SPAN.span_id)
        assert rescued[1] in encode([SPAN])
        assert safety.guard_hits() == {"delivery.otlp": 1}

    def test_costs_no_more_than_what_hangs_on_the_span(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where protobuf is of no help, that the step ended is still told."""
        monkeypatch.setattr(
            "agenttrace.delivery.otlp.fallback._any_value_message", None
        )

        def broken(span: SpanData) -> bytes:
            if span.attributes:
                raise ZeroDivisionError
            return encode([span])

        rescued = rescue(SPAN, broken, ZeroDivisionError())

        assert rescued is not None
        (decoded,) = decode(rescued[1])
        assert decoded.name == SPAN.name
        assert decoded.attributes == {}
        assert (
            decoded.dropped_attributes,
            decoded.dropped_events,
            decoded.dropped_links,
        ) == (2, 1, 1)

    def test_that_nothing_can_make_up_for_is_counted_as_a_loss(self) -> None:
        """No span goes missing without a number that says so."""
        nothing = cast("SpanData", object())

        rescued = rescue(nothing, lambda _: b"", ZeroDivisionError())

        assert rescued is None
        assert safety.counts()[safety.Count.SPANS_DROPPED] == 1
