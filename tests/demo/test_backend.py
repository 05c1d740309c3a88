"""Where the traces of the demo can be looked at: what counts as a Jaeger there."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from agenttrace.demo import backend
from agenttrace.demo.account import Account, Act, Entry, Sent
from agenttrace.demo.scenarios import SCENARIOS
from agenttrace.demo.tally import Started
from agenttrace.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

SENT = Sent("http://127.0.0.1:4318/v1/traces", 2, None)
FIRST, SECOND = "a" * 32, "b" * 32
ACTS = [
    Act(SCENARIOS[0], (Started(trace_id, "1" * 16, "chat"),))
    for trace_id in (FIRST, SECOND)
]
PATIENCE = 30.0
"""Seconds for what answers at once, on a machine that is busy."""
WHOLE = json.dumps({"data": [{"spans": [{"spanID": "1" * 16}]}]}).encode()
UNKNOWN = json.dumps(
    {"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}
).encode()


def look(template: str) -> backend.Backend | None:
    return backend.look(SENT, ACTS, template, answer=PATIENCE)


@contextmanager
def answering(answer: Callable[[str], tuple[int, bytes]]) -> Generator[str]:
    """Serve HTTP; return the template of a trace there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the standard library
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/trace/{{trace_id}}"
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def talking(talk: Callable[[socket.socket, threading.Event], None]) -> Generator[int]:
    """Have *talk* said to whoever connects, until it is over; return the port."""
    is_over = threading.Event()
    talks: list[threading.Thread] = []

    def answer(found: socket.socket) -> None:
        with found:
            try:
                found.recv(65536)
                talk(found, is_over)
            except OSError:
                pass  # who has asked has left

    def serve() -> None:
        while True:
            found, _ = listener.accept()
            if is_over.is_set():
                found.close()
                return
            talks.append(threading.Thread(target=answer, args=(found,)))
            talks[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listener.getsockname()[1]
        finally:
            is_over.set()
            socket.create_connection(listener.getsockname()).close()
            serving.join()
            for each in talks:
                each.join()


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x01 no HTTP\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"",
    ],
)
def test_what_answers_something_else_than_http_is_no_jaeger(said: bytes) -> None:
    """The demo has its account to tell, whoever listens on a port."""
    with talking(lambda found, _: found.sendall(said)) as port:
        found = backend.look(SENT, ACTS, None, jaeger_port=port, answer=PATIENCE)

    assert found is None


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"]
)
def test_an_answer_that_comes_drop_by_drop_is_given_up(start: bytes) -> None:
    """Each drop is in time; together they would keep the demo for hours."""

    def drip(found: socket.socket, is_over: threading.Event) -> None:
        found.sendall(start)
        while not is_over.wait(0.2):
            found.sendall(b" ")

    with talking(drip) as port:
        began = time.monotonic()
        found = backend.look(SENT, ACTS, None, jaeger_port=port)
        took = time.monotonic() - began

    assert found is None
    assert took < 30


def test_an_answer_is_read_to_a_limit() -> None:
    """What is larger than any trace of the demo fills the memory of its host."""
    with answering(lambda _: (200, b" " * backend.LONGEST + WHOLE)) as template:
        found = look(template)

    assert found == backend.Backend(template, {})


def test_a_page_that_is_not_found_is_no_word_of_a_jaeger() -> None:
    """Any web server says so, and has no trace whatever."""
    for body in (b"404 page not found", b"{}", b'{"errors": []}', b'{"errors": 1}'):
        with answering(lambda _, body=body: (404, body)) as template:  # type: ignore[misc] # mypy: a default makes no such callable
            assert look(template) == backend.Backend(template, {})


def test_a_jaeger_without_a_trace_has_nothing_of_it() -> None:
    """Where a Collector leaves a run out, the column must say so."""
    with answering(
        lambda path: (200, WHOLE) if FIRST in path else (404, UNKNOWN)
    ) as template:
        found = look(template)

    assert found == backend.Backend(template, {FIRST: 1, SECOND: 0})


def test_what_is_known_is_kept_where_one_answer_does_not_come(tmp_path: Path) -> None:
    """One run that cannot be asked for says nothing of the others."""
    with answering(
        lambda path: (200, WHOLE) if FIRST in path else (500, b"{}")
    ) as template:
        found = look(template)

    assert found == backend.Backend(template, {FIRST: 1})
    entries = [
        Entry(act=act, run=None, forest=(), missing=(), scripted=True) for act in ACTS
    ]
    account = Account(
        store=tmp_path,
        entries=entries,
        latest=len(entries),
        sent=SENT,
        store_error=None,
        swallowed={},
        backend=found,
    )
    assert [account.in_jaeger(each) for each in entries] == [1, None]


@pytest.mark.parametrize(
    "template",
    [
        "http://h/a b/trace/{trace_id}",
        "http://h:{port}/trace/{trace_id}",
        "http://h:99999/trace/{trace_id}",
        "http://h:0/trace/{trace_id}",
        "http:///trace/{trace_id}",
        "http://[::1/trace/{trace_id}",
        "h/trace/{trace_id}",
        "http://h/trace/",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(template: str) -> None:
    """It is refused before the demo has played for half a minute, not after."""
    with pytest.raises(SettingError):
        backend.check(template)


@pytest.mark.parametrize(
    "template",
    [
        "http://h/{trace_id}?theme=dark",
        "https://h:8443/jaeger/trace/{trace_id}",
        "http://[::1]:16686/trace/{trace_id}",
        "https://h/explore?left=%7B%22{trace_id}%22%7D",
    ],
)
def test_an_address_of_a_trace_is_taken(template: str) -> None:
    """What is too strict keeps somebody from the link that they know."""
    backend.check(template)
