"""Serves the page and what it shows, to browsers on this machine and nobody else.

The standard library's server: one person looks at it, on loopback, so a framework would
bring more than it does.  It polls and is not pushed to: an answer takes milliseconds,
and a server without connections that stay open ends at once.

Who may ask: the socket is bound to loopback.  A page from elsewhere in the same browser
is kept out by the `Host` header, which names its own host even where that was made to
resolve to here (DNS rebinding), and by the token, which it does not have: nobody is
told anything without one.  Other users of the machine do not have it either, unless
they look at the command line of a browser that `agenttrace view` starts with it.
The token stands in the fragment of the address, which browsers keep to themselves, and
comes in a header, which no foreign page may send without being allowed to.
"""

from __future__ import annotations

import hmac
import json
import secrets
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import parse_qs, urlsplit

from agenttrace import safety
from agenttrace.errors import AgenttraceError

if TYPE_CHECKING:
    from agenttrace.view.runs import Runs

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_API: Final = "/api/runs"
_ID_DIGITS: Final = frozenset("0123456789abcdef")


def hosts_of(port: int) -> frozenset[str]:
    """Return what browsers on this machine say in `Host`.

    >>> sorted(hosts_of(8080))
    ['127.0.0.1:8080', 'localhost:8080']
    >>> sorted(hosts_of(80))  # which they leave out
    ['127.0.0.1', '127.0.0.1:80', 'localhost', 'localhost:80']
    """
    names = ("127.0.0.1", "localhost")
    bare = names if port == HTTP_PORT else ()
    return frozenset([*(f"{name}:{port}" for name in names), *bare])


class Server(ThreadingHTTPServer):
    """Shows *runs* on loopback.  `serve_forever()` does so until `shutdown()`.

    Args:
        runs: What there is to see.
        port: The port, 0 = one that is free.

    Attributes:
        token: What who asks has to know.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, runs: Runs, port: int = 0) -> None:
        self.runs = runs
        self.token = secrets.token_urlsafe(24)
        self.page = _page()
        super().__init__(("127.0.0.1", port), _Handler)
        number = self.server_address[1]
        self.hosts = hosts_of(number)

    @property
    def address(self) -> str:
        """Where a browser finds the page, the token included."""
        return f"http://127.0.0.1:{self.server_address[1]}/#token={self.token}"

    def server_bind(self) -> None:
        """Bind, without asking anybody for the name of this machine."""
        # The standard library's asks a name server here, which may take its time.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the signature of the standard library
        """Say nothing of a browser that has gone while it was answered."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "agenttrace"
    sys_version = ""
    timeout: ClassVar[float | None] = 30
    """Seconds in which a request has to come; a thread waits for it."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.headers.get("Host", "").lower() not in self._server.hosts:
            self._fail(HTTPStatus.FORBIDDEN, "This page is for this machine alone.")
            return
        asked = urlsplit(self.path)
        if asked.path.startswith("/api/"):
            self._tell(asked.path, parse_qs(asked.query))
            return
        name = asked.path.removeprefix("/") or "index.html"
        found = self._server.page.get(name)
        if found is None:
            self._fail(HTTPStatus.NOT_FOUND, "There is nothing here.")
        else:
            self._send(HTTPStatus.OK, *found)

    def do_HEAD(self) -> None:
        """Answer a request, but for what was asked for."""
        self.do_GET()

    @property
    def _server(self) -> Server:
        return cast("Server", self.server)

    def _tell(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer what the page asks for."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._server.token.encode()):
            message = "The address is that of another `agenttrace view`."
            self._fail(HTTPStatus.UNAUTHORIZED, message)
            return
        try:
            told = self._answer(path, {key: value[0] for key, value in query.items()})
        except ValueError:
            self._fail(HTTPStatus.BAD_REQUEST, "That is not asked for in this way.")
        except AgenttraceError as error:
            self._fail(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - the page is to say that something is wrong
            safety.note("view", error)
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, type(error).__name__)
        else:
            if told is None:
                self._fail(HTTPStatus.NOT_FOUND, "This run is not here any more.")
            else:
                self._send_json(HTTPStatus.OK, told)

    def _answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """Return what *path* names; None where that is nothing.

        Raises:
            ValueError: It cannot be meant.
        """
        runs = self._server.runs
        if path == _API:
            return runs.listed(query.get("outcome"), query.get("service"))
        ids = path.removeprefix(f"{_API}/").split("/")
        if not all(each and _ID_DIGITS.issuperset(each) for each in ids):
            return None
        if len(ids) == 1:
            return runs.run(ids[0], query.get("have"))
        return runs.span(*ids) if len(ids) == 2 else None  # noqa: PLR2004 - run and span

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send_json(status, {"error": message})

    def _send_json(self, status: HTTPStatus, told: dict[str, Any]) -> None:
        text = json.dumps(told, separators=(",", ":"))
        self._send(status, "application/json", text.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of the standard library
        """Say nothing of what was asked for: the terminal is the user's."""


def _page() -> dict[str, tuple[str, bytes]]:
    """Return the files of the page, by name, with their types."""
    found: dict[str, tuple[str, bytes]] = {}
    for each in (files("agenttrace.view") / "page").iterdir():
        kind = _TYPES.get(f".{each.name.rpartition('.')[2]}")
        if kind is not None:
            found[each.name] = kind, each.read_bytes()
    return found
