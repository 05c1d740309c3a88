"""Spans become the very bytes that the SDK would send, and come back unchanged."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.trace import SpanKind, StatusCode

from agenttrace.delivery.otlp import decode, encode, encoder, frame_of
from agenttrace.delivery.otlp.caches import MAX_TEXT
from agenttrace.delivery.otlp.fallback import by_protobuf
from agenttrace.delivery.otlp.values import MAX_KEYS, MAX_TEXTS, KeyValueWriter
from agenttrace.delivery.readable import from_readable, to_readable
from agenttrace.model import EventData, LinkData, ResourceData, ScopeData, SpanData

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESOURCES = [
    ResourceData({}),
    ResourceData({"service.name": "support"}),
    ResourceData({"service.name": "support"}),  # equal, and another object
    ResourceData({"service.name": "sales", "shards": (1, 2)}, "https://example/1"),
]
SCOPES = [
    ScopeData(""),
    ScopeData("agenttrace", "1.0"),
    ScopeData("agenttrace", "1.0"),
    ScopeData("ünïcode", "", "https://example/2", {"beta": True, "ratio": 0.5}),
]

# Around the lengths where a varint, or a cache, does something else.
LENGTHS = (0, 1, MAX_TEXT, MAX_TEXT + 1, 120, 127, 128, 2047, 2048, 16_384, 20_000)
texts = st.text(max_size=20) | st.builds(
    "".__class__.__mul__, st.sampled_from("aß€😀"), st.sampled_from(LENGTHS)
)
keys = texts.filter(bool)  # clean attributes have no empty ones
integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 70_000)
scalars = st.booleans() | integers | st.floats() | texts | st.binary(max_size=20)


def attributes_of(
    leaves: st.SearchStrategy[object],
) -> st.SearchStrategy[dict[str, object]]:
    values = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=4,
    )
    return st.dictionaries(keys, values, max_size=4)


trace_ids = st.binary(min_size=16, max_size=16)
span_ids = st.binary(min_size=8, max_size=8)
times = st.integers(0, 2**64 - 1)
counts = st.sampled_from((0, 1, 127, 128, 2**32 - 1))
trace_states = st.sampled_from(("", "vendor=1", "a=b,tenant@vendor=x/y:z,c=*"))


@st.composite
def spans(draw: st.DrawFn, leaves: st.SearchStrategy[object]) -> SpanData:
    attributes = attributes_of(leaves)
    parent_id = draw(st.just(b"") | span_ids)
    status = draw(st.sampled_from(StatusCode))
    events = st.builds(EventData, times, texts, attributes, counts)
    links = st.builds(LinkData, trace_ids, span_ids, st.booleans(), attributes, counts)
    return SpanData(
        trace_id=draw(trace_ids),
        span_id=draw(span_ids),
        parent_id=parent_id,
        parent_is_remote=bool(parent_id) and draw(st.booleans()),
        trace_state=draw(trace_states),
        name=draw(texts),
        kind=draw(st.sampled_from(SpanKind)),
        start_time=draw(times),
        end_time=draw(times),
        attributes=draw(attributes),
        events=tuple(draw(st.lists(events, max_size=1))),
        links=tuple(draw(st.lists(links, max_size=1))),
        status=status,
        # The SDK has no message but that of an error.
        status_message=draw(texts) if status is StatusCode.ERROR else "",
        dropped_attributes=draw(counts),
        dropped_events=draw(counts),
        dropped_links=draw(counts),
        resource=draw(st.sampled_from(RESOURCES)),
        scope=draw(st.sampled_from(SCOPES)),
    )


# The SDK's encoder cannot carry None in its versions before 1.40.
known_to_the_sdk = st.lists(spans(scalars), max_size=3)
batches = st.lists(spans(scalars | st.none()), max_size=3)


def a_span(number: int = 1, attributes: Mapping[str, object] | None = None) -> SpanData:
    return SpanData(
        trace_id=bytes(range(16)),
        span_id=number.to_bytes(8, "big"),
        name="invoke_agent triage",
        start_time=1_800_000_000_000_000_000,
        end_time=1_800_000_001_000_000_000,
        attributes=attributes or {},
        resource=RESOURCES[1],
        scope=SCOPES[1],
    )


def as_written(spans: Sequence[SpanData]) -> Counter[str]:
    # By their text: 1 and True are equal, NaN and NaN are not.
    return Counter(map(repr, spans))


@given(known_to_the_sdk)
def test_the_bytes_are_those_of_the_sdks_encoder(batch: list[SpanData]) -> None:
    """Whatever understands OpenTelemetry understands us, without a second opinion."""
    expected = encode_spans([to_readable(span) for span in batch])

    payload = encode(batch)

    assert payload == expected.SerializeToString()


@given(batches)
def test_what_was_encoded_is_decoded_unchanged(batch: list[SpanData]) -> None:
    """The spool keeps bytes; an exporter that wants spans must get these spans."""
    decoded = decode(encode(batch))

    assert as_written(decoded) == as_written(batch)


@given(batches)
def test_a_frame_names_its_spans_as_they_stand_in_the_payload(
    batch: list[SpanData],
) -> None:
    """Grouping changes the order; recovery looks for ids, senders acknowledge them."""
    frame = frame_of(batch)

    assert frame.payload == encode(batch)
    assert list(frame.ids) == [
        (span.trace_id, span.span_id) for span in decode(frame.payload)
    ]


@given(batches)
def test_a_span_comes_back_unchanged_from_the_sdks_form(
    batch: list[SpanData],
) -> None:
    """Processors of the application may look at a span; looking must not change it."""
    seen = [from_readable(to_readable(span)) for span in batch]

    assert as_written(seen) == as_written(batch)


@given(spans(scalars | st.none()))
def test_protobuf_writes_the_same_where_ours_would_fail(span: SpanData) -> None:
    """The encoder of last resort is never seen at work; so it is compared here."""
    alone = ExportTraceServiceRequest.FromString(encode([span]))

    body = by_protobuf(span)

    assert body == alone.resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def test_spans_are_grouped_in_the_order_in_which_resources_and_scopes_occur() -> None:
    """Two batches of the same spans are the same bytes, on every run."""
    one, other = (
        ResourceData({"service.name": "1"}),
        ResourceData({"service.name": "2"}),
    )
    batch = [
        a_span(1)._replace(resource=one, scope=ScopeData("b")),
        a_span(2)._replace(resource=other, scope=ScopeData("a")),
        a_span(3)._replace(resource=one, scope=ScopeData("a")),
        a_span(4)._replace(resource=one, scope=ScopeData("b")),
    ]

    order = [int.from_bytes(span_id, "big") for _, span_id in frame_of(batch).ids]

    assert order == [1, 4, 3, 2]


def test_two_payloads_one_behind_the_other_are_one_request() -> None:
    """The spool joins frames by appending them, without reading what they hold."""
    first, second = encode([a_span(1)]), encode([a_span(2), a_span(3)])

    assert decode(first + second) == [a_span(1), a_span(2), a_span(3)]


def test_no_span_is_no_byte() -> None:
    """An empty request is valid, and nothing needs to be sent."""
    assert encode([]) == b""
    assert frame_of([]).ids == ()
    assert decode(b"") == []


def test_spans_of_one_resource_share_it_over_all_payloads() -> None:
    """What is computed once per resource is found by the resource's identity."""
    first, second = decode(encode([a_span(1), a_span(2)]))
    (third,) = decode(encode([a_span(3)]))

    assert first.resource is second.resource is third.resource
    assert first.scope is second.scope is third.scope


@pytest.mark.parametrize(
    ("parent_id", "is_remote", "flags"),
    [(b"", False, 0x100), (b"\1" * 8, False, 0x100), (b"\1" * 8, True, 0x300)],
)
def test_flags_say_whether_the_parent_is_in_another_process(
    *, parent_id: bytes, is_remote: bool, flags: int
) -> None:
    """Backends tell a service's entry from a step inside it by these bits alone."""
    span = a_span()._replace(parent_id=parent_id, parent_is_remote=is_remote)

    request = ExportTraceServiceRequest.FromString(encode([span]))

    assert request.resource_spans[0].scope_spans[0].spans[0].flags == flags


@pytest.mark.parametrize("order", list(itertools.permutations((1, True, 1.0, "1"), 3)))
def test_equal_values_of_different_types_never_answer_for_each_other(
    order: tuple[object, ...],
) -> None:
    """1, 1.0 and True are one key of a dict; a cache would send the first of them."""
    key = f"key.{order!r}"

    for value in order * 2:
        (decoded,) = decode(encode([a_span(attributes={key: value})]))

        assert repr(decoded.attributes[key]) == repr(value)


def test_values_at_the_edges_of_their_types_survive() -> None:
    """These are the ones that hand-written encoders get wrong."""
    edges = (-(2**63), -1, 0, 127, 128, 2047, 2048, 16_383, 16_384, 2**63 - 1)
    floats = (-0.0, 5e-324, -math.inf, math.nan)
    numbers = {str(number): number for number in (*edges, *floats)}

    (decoded,) = decode(encode([a_span(attributes=numbers)]))

    assert repr(decoded.attributes) == repr(numbers)


def test_keys_and_texts_without_end_are_not_all_remembered() -> None:
    """A request id in a key or a value must not become a leak."""
    writer = KeyValueWriter(b"\x4a")

    for number in range(2 * MAX_KEYS):
        writer.extend([], {f"key.{number}": number, "id": f"request {number}"})
        writer.extend([], {"long " * MAX_TEXT + str(number): number})

    keys, remembered = writer.remembered()
    assert 0 < keys <= MAX_KEYS
    assert remembered <= MAX_KEYS * MAX_TEXTS


def test_names_resources_and_scopes_without_end_are_not_all_remembered() -> None:
    """Decoding what others spooled makes a new resource of every dead process."""
    for number in range(2000):
        resource, scope = ResourceData({"n": number}), ScopeData(str(number))
        span = a_span()._replace(name=str(number), resource=resource, scope=scope)
        assert decode(encode([span])) == [span]

    assert len(encoder._names) <= 1024  # noqa: SLF001 - a bound is not seen from outside  # pyright: ignore[reportPrivateUsage] - the same
    assert len(encoder._resources) <= 64  # noqa: SLF001 - as above, of resources  # pyright: ignore[reportPrivateUsage] - the same
    assert len(encoder._scopes) <= 64  # noqa: SLF001 - as above, of scopes  # pyright: ignore[reportPrivateUsage] - the same


@pytest.mark.parametrize("payload", [b"\xff", b"\x0a\x05ab", b"{}", b"\x00" * 9])
def test_bytes_that_are_no_request_are_refused_with_a_plain_error(
    payload: bytes,
) -> None:
    """Who reads a damaged file must not have to know protobuf's exceptions."""
    with pytest.raises(ValueError, match=f"{len(payload)} bytes are no Export"):
        decode(payload)


def test_foreign_values_that_we_never_write_are_read_as_what_means_least() -> None:
    """A request of a newer producer is no reason to lose its spans."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.status.code = 7  # type: ignore[assignment]  # a value of the future
    span.attributes.add(key="nothing")

    (decoded,) = decode(request.SerializeToString())

    assert decoded.kind is SpanKind.INTERNAL
    assert decoded.status is StatusCode.UNSET
    assert decoded.attributes == {"nothing": None}


def test_encoding_does_not_import_protobuf() -> None:
    """It takes 10 ms, half the budget of a start, and only exporters need it."""
    program = (
        "import sys\n"
        "from agenttrace.delivery.otlp import frame_of\n"
        "frame_of([])\n"
        "print([name for name in sys.modules if 'proto' in name.split('.')])"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )

    assert result.stdout.strip() == "[]"
