"""A frame is posted once, as it is, in time, and the answer is understood."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from email.utils import formatdate
from typing import TYPE_CHECKING

import opentelemetry.context as otel
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.delivery.otlp_env import Compression, otlp_settings
from agenttrace.delivery.senders import Answer, Delivered, Later, Refused
from agenttrace.delivery.senders.http import HttpSender, retry_after
from tests.delivery.collector import Collector, Reply, partial_success
from tests.delivery.given import frame

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from agenttrace.delivery.frames import Frame

HIDDEN = "s3cr3t"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@contextlib.contextmanager
def listener() -> Generator[int]:
    """Yield a port where connections are made and nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def send(sender: HttpSender, what: Frame | None = None, timeout: float = 10) -> Answer:
    """Send one frame and close."""
    try:
        return sender.send(what or frame(), timeout)
    finally:
        sender.close()


def test_the_bytes_of_a_frame_are_what_is_posted(collector: Collector) -> None:
    """What is sent again must be the same, byte for byte."""
    sent = frame("plan", "chat gpt-5")

    answer = send(HttpSender(collector.endpoint, {"X-Tenant": "gold"}), sent)

    (request,) = collector.requests
    assert answer == Delivered()
    assert request.body == sent.payload
    assert request.path == "/v1/traces"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-tenant"] == "gold"
    assert [span.name for span in collector.spans()] == ["plan", "chat gpt-5"]


@pytest.mark.parametrize(
    ("compression", "uncompress"),
    [(Compression.GZIP, gzip.decompress), (Compression.DEFLATE, zlib.decompress)],
)
def test_a_body_is_compressed_as_configured(
    collector: Collector, compression: Compression, uncompress: object
) -> None:
    """And the same frame always to the same bytes: gzip would add the time."""
    sent = frame(attribute="a long text " * 1_000)
    sender = HttpSender(collector.endpoint, compression=compression)

    sender.send(sent, 10)
    send(sender, sent)

    first, second = collector.requests
    assert callable(uncompress)
    assert uncompress(first.body) == sent.payload
    assert len(first.body) < len(sent.payload) / 10
    assert first.headers["content-encoding"] == compression.value
    assert second.body == first.body


def test_frames_share_one_connection(collector: Collector) -> None:
    """A TLS handshake for each batch would cost more than the batch."""
    sender = HttpSender(collector.endpoint)

    for _ in range(3):
        sender.send(frame(), 10)
    sender.close()

    assert len({request.client for request in collector.requests}) == 1


def test_a_partial_success_tells_how_many_spans_were_rejected(
    collector: Collector,
) -> None:
    """They are lost, and have to be counted."""
    collector.answer(partial_success(2, "attribute too long"))

    answer = send(HttpSender(collector.endpoint), frame("a", "b", "c"))

    assert answer == Delivered(rejected=2, reason="attribute too long")


@pytest.mark.parametrize(
    "reply",
    [
        partial_success(0, ""),
        Reply(body=b"\n\x00", headers={"content-type": "application/x-protobuf"}),
        Reply(body=b"\xff" * 40, headers={"content-type": "application/x-protobuf"}),
        Reply(body=b'{"partialSuccess":{}}', headers={"content-type": "text/json"}),
        Reply(body=bytes(300_000)),
        Reply(status=202),
        Reply(status=204),
        # Breaks off: it says more than it sends.
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n\n"),
    ],
)
def test_the_status_alone_says_that_spans_were_taken(
    collector: Collector, reply: Reply
) -> None:
    """Sent again because of an odd body, they would be there twice."""
    collector.answer(reply)

    assert send(HttpSender(collector.endpoint), timeout=20) == Delivered()


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_an_overloaded_destination_is_tried_later(
    collector: Collector, status: int
) -> None:
    """The specification's list of what passes."""
    collector.answer(Reply(status, {"retry-after": "7"}))

    answer = send(HttpSender(collector.endpoint))

    assert isinstance(answer, Later)
    assert str(status) in answer.reason
    assert answer.after == 7


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 413, 500, 501, 599])
def test_what_will_never_be_taken_is_not_tried_again(
    collector: Collector, status: int
) -> None:
    """One poisoned batch must not block all that comes after it.

    A redirection is among them: followed, a POST becomes a GET.
    """
    collector.answer(Reply(status, {"location": collector.endpoint}))

    answer = send(HttpSender(collector.endpoint))

    assert isinstance(answer, Refused)
    assert str(status) in answer.reason
    assert len(collector.requests) == 1


def test_a_destination_may_say_when_to_come_back_as_a_date() -> None:
    """Proxies do."""
    assert retry_after(formatdate(1_000, usegmt=True), now=940) == 60
    assert retry_after(formatdate(1_000, usegmt=True), now=2_000) == 0


@given(st.text() | st.floats().map(str))
def test_any_retry_after_is_a_number_of_seconds_or_none(text: str) -> None:
    """It comes from the network."""
    seconds = retry_after(text, now=0)

    assert seconds is None or 0 <= seconds < float("inf")


def test_a_refused_connection_is_tried_later() -> None:
    """The collector restarts; the reason is the system's and names no URL."""
    sender = HttpSender(f"http://127.0.0.1:{free_port()}/v1/traces?key={HIDDEN}")

    answer = send(sender)

    assert answer == Later("ConnectionError: Connection refused")


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-OpenSSH\r\n", b"\x00" * 100, b"HTTP/1"])
def test_an_answer_that_is_none_is_tried_later(
    collector: Collector, raw: bytes
) -> None:
    """Something else listens there for now, or the server went away."""
    collector.answer(Reply(raw=raw))

    assert isinstance(send(HttpSender(collector.endpoint)), Later)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(hangs=True), id="hangs"),
        pytest.param(Reply(drip=0.05, body=b"x" * 1_000), id="drips its headers"),
    ],
)
def test_the_time_limit_is_for_the_whole_request(
    collector: Collector, reply: Reply
) -> None:
    """A byte now and then keeps a limit per read from ever being reached."""
    collector.answer(reply)
    begun = time.monotonic()

    answer = send(HttpSender(collector.endpoint), timeout=0.4)

    assert isinstance(answer, Later)
    assert time.monotonic() - begun < 15


def test_a_taken_frame_whose_answer_drips_is_delivered_in_time() -> None:
    """The status came; what it has to say beyond that is not worth the wait."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    done = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(head)
            while not done.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        begun = time.monotonic()
        answer = send(
            HttpSender(f"http://127.0.0.1:{server.getsockname()[1]}/"), timeout=5
        )
        took = time.monotonic() - begun
        done.set()
        thread.join()

    assert answer == Delivered()
    assert took < 15


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_reads_costs_no_more_than_the_limit(scheme: str) -> None:
    """Sending blocks as well, and so does a handshake."""
    large = frame(attribute="x" * 20_000_000)
    with listener() as port:
        begun = time.monotonic()

        answer = send(HttpSender(f"{scheme}://127.0.0.1:{port}/"), large, timeout=0.4)

        assert isinstance(answer, Later)
        assert time.monotonic() - begun < 15


def test_the_next_request_has_its_whole_time_again(collector: Collector) -> None:
    """The deadline is a request's, not the connection's."""
    sender = HttpSender(collector.endpoint)
    collector.answer(*[Reply(delay=2.0)] * 4)

    answers = [sender.send(frame(), timeout=7.5) for _ in range(4)]
    sender.close()

    assert answers == [Delivered()] * 4


def test_a_proxy_of_the_environment_is_used(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In many companies there is no other way out; it is no way around the limit."""
    monkeypatch.setenv("http_proxy", collector.base)
    monkeypatch.setenv("no_proxy", "")
    collector.answer(Reply(), Reply(drip=0.05))
    sender = HttpSender("http://collector.invalid:4318/v1/traces")

    first = sender.send(frame(), 10)
    begun = time.monotonic()
    second = send(sender, timeout=0.4)

    assert first == Delivered()
    assert collector.requests[0].path == "http://collector.invalid:4318/v1/traces"
    assert isinstance(second, Later)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_the_loopback(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A proxy's loopback is not ours."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")

    answer = send(HttpSender(f"http://{host}:{collector.port}/v1/traces"))

    assert answer == Delivered()


def test_the_configured_authorization_is_what_is_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`requests` would put what stands in ~/.netrc in its place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    send(HttpSender(collector.endpoint, {"Authorization": f"Bearer {HIDDEN}"}))

    assert collector.requests[0].headers["authorization"] == f"Bearer {HIDDEN}"


def test_a_user_in_the_url_is_who_authenticates(collector: Collector) -> None:
    """Small collectors stand behind nothing else."""
    endpoint = collector.endpoint.replace("//", "//user:p%40ss@")

    send(HttpSender(endpoint))

    assert (
        collector.requests[0].headers["authorization"]
        == requests.Request("POST", collector.endpoint, auth=("user", "p@ss"))
        .prepare()
        .headers["authorization"]
    )


@pytest.mark.parametrize(
    ("endpoint", "headers"),
    [
        ("http://127.0.0.1:9/", {"authorization": f"line\nbreak {HIDDEN}"}),
        (f"http://user:{HIDDEN}@127.0.0.1:9/?key={HIDDEN}", {}),
        (f"nonsense://host/?key={HIDDEN}", {}),
        ("http://127.0.0.1:9/", {"x-name": f"☃ {HIDDEN}"}),
    ],
)
def test_no_credential_shows_in_an_answer_or_a_repr(
    endpoint: str, headers: dict[str, str]
) -> None:
    """Both are logged."""
    sender = HttpSender(endpoint, headers)

    answer = send(sender)

    assert isinstance(answer, Later | Refused)
    assert HIDDEN not in repr(answer)
    assert HIDDEN not in repr(sender)


def test_a_header_travels_as_utf_8(collector: Collector) -> None:
    """The specification says so; http.client would write Latin-1, or fail."""
    send(HttpSender(collector.endpoint, {"x-name": "☃"}))

    header = collector.requests[0].headers["x-name"]
    assert header.encode("latin-1").decode() == "☃"


def test_what_it_does_is_not_traced(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traced export makes a span, which is exported, which makes a span."""
    seen: list[object] = []
    original = requests.Session.send

    def instrumented(*args: object, **kwargs: object) -> requests.Response:
        seen.append(otel.get_value("suppress_instrumentation"))
        seen.append(otel.get_value(vars(otel)["_SUPPRESS_HTTP_INSTRUMENTATION_KEY"]))
        return original(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(requests.Session, "send", instrumented)

    send(HttpSender(collector.endpoint))

    assert seen == [True, True]
    assert otel.get_value("suppress_instrumentation") is None


def test_nothing_slow_is_imported_before_the_first_frame() -> None:
    """`configure()` has a budget that `requests` alone would use up."""
    program = (
        "import sys\n"
        "from agenttrace.delivery.senders.grpc import GrpcSender\n"
        "from agenttrace.delivery.senders.http import HttpSender\n"
        "from agenttrace.delivery.otlp_env import OtlpSettings\n"
        "HttpSender('http://127.0.0.1:9/').close()\n"
        "GrpcSender(OtlpSettings()).close()\n"
        "print(sorted({'requests', 'urllib3', 'grpc', 'google.protobuf'}"
        " & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
    )

    assert done.stdout == "[]\n"


def test_the_settings_of_the_environment_make_a_sender(collector: Collector) -> None:
    """What is resolved has to arrive."""
    settings = otlp_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.base,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=gold",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
    )

    send(HttpSender.from_settings(settings), frame("plan"))

    (request,) = collector.requests
    assert [span.name for span in request.spans] == ["plan"]
    assert request.headers["x-tenant"] == "gold"
    assert request.headers["content-encoding"] == "gzip"
