"""Bytes come in any pieces, and what is read of them is the same."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.instrumentation.openai import wire
from tests.instrumentation.given import HTTP

if TYPE_CHECKING:
    from collections.abc import Callable

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=4)
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


def response(encoding: str = "") -> Any:  # noqa: ANN401 - of either library
    """Return a response whose body is still to come."""
    headers = {"content-encoding": encoding} if encoding else {}
    return HTTP.Response(200, headers=headers)


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    """Cut *body* at these places, wherever they are."""
    places = sorted({cut % (len(body) + 1) for cut in cuts} | {0, len(body)})
    return [body[a:b] for a, b in itertools.pairwise(places)]


@given(
    st.lists(objects, max_size=5),
    st.lists(st.integers(0, 10_000), max_size=10),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(sorted(ENCODINGS)),
)
def test_events_are_found_wherever_the_bytes_break(
    sent: list[dict[str, Any]], cuts: list[int], newline: str, encoding: str
) -> None:
    """A chunk of the network ends where it likes, in the middle of a character too."""
    text = "".join(
        f": a comment{newline}event: x{newline}"
        f"data: {json.dumps(each, ensure_ascii=False)}{newline}{newline}"
        for each in sent
    )
    body = f"{text}data: [DONE]{newline}{newline}".encode(errors="replace")
    expected = [json.loads(json.dumps(each)) for each in sent]
    events = wire.Events(response(encoding))

    found = [
        event
        for piece in pieces(ENCODINGS[encoding](body), cuts)
        for event in events.read(piece)
    ]

    if "?" not in str(found):  # lone surrogates cannot be sent
        assert found == expected


@given(objects, st.lists(st.integers(0, 10_000), max_size=10))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_is_put_together_and_decoded(
    encoding: str, sent: dict[str, Any], cuts: list[int]
) -> None:
    """The application reads it decoded; what passes us is what was sent."""
    whole = wire.Whole(response(encoding))

    for piece in pieces(ENCODINGS[encoding](json.dumps(sent).encode()), cuts):
        whole.read(piece)

    assert whole.value() == sent


def test_a_body_that_is_too_large_is_passed_over() -> None:
    """A copy of a hundred megabytes is no price for a number of tokens."""
    whole = wire.Whole(response())

    for _ in range(3):
        whole.read(b" " * (wire.MOST_BYTES // 2))

    assert whole.value() is None


def test_an_event_that_never_ends_is_dropped_and_the_next_one_read() -> None:
    """Memory stays bounded, whatever a server sends."""
    events = wire.Events(response())

    dropped = list(events.read(b"data: " + b"x" * (wire.MOST_BYTES + 1)))
    rest = list(events.read(b'\n\ndata: {"a": 1}\n\n'))

    assert dropped == []
    assert rest == [{"a": 1}]


@pytest.mark.parametrize("content", [b"", b"not JSON", b"\xff\xfe\xfd", b"[" * 100_000])
def test_what_is_no_json_is_nothing(content: bytes) -> None:
    """A proxy's error page is no error of ours."""
    assert wire.parsed(content) is None


def test_a_body_in_an_encoding_we_cannot_follow_has_no_events() -> None:
    """Its end is told all the same, by the body."""
    events = wire.Events(response("br"))

    assert list(events.read(b'data: {"a": 1}\n\n')) == []
