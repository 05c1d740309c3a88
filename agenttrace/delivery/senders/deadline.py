"""A `requests` session whose requests end within a total time.

The time-out of `requests` is for one read: a server that sends a byte of its headers
now and then is waited for without end.  Here every step of a request, and every read,
gets what is left of one deadline.

Resolving a name is the exception: the resolver of the C library takes the time it is
set up to take.  So is a name with several addresses: each gets what was left when the
first was tried.

Importing this module imports `requests`, which takes tens of milliseconds: the sender
does so on its own thread, when it first has something to send.
"""

from __future__ import annotations

import http.client
import io
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    import socket

    from urllib3.connectionpool import HTTPConnectionPool


class Deadline:
    """The instant by which the request that is under way must be done."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = 0.0

    def start(self, seconds: float) -> None:
        """Let the next request take *seconds* from now."""
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, always more than none.

        Raises:
            TimeoutError: There are none; `urllib3` takes it for its socket's own.
        """
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


def bounded_session(deadline: Deadline) -> requests.Session:
    """Return a session whose requests end when *deadline* says."""
    session = requests.Session()
    adapter = _Adapter(deadline)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Reader(io.RawIOBase):
    """What a response is read from: every read gets the time that is left."""

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline
    ) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - the type of buffers came with 3.12
        self._sock.settimeout(self._deadline.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        deadline: Deadline,
        sock: socket.socket,
        *args: Any,  # noqa: ANN401 - passed on as they come
        **kwargs: Any,  # noqa: ANN401 - passed on as they come
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, deadline))


class _Connection(HTTPConnection):
    """Goes before the class of connection that a pool would use."""

    deadline: Deadline  # of the subclass made for one adapter

    def connect(self) -> None:
        self.timeout = self.deadline.left()
        # http.client makes the response itself, and what it calls is this attribute.
        self.response_class = cast(
            "type[http.client.HTTPResponse]", partial(_Response, self.deadline)
        )
        super().connect()

    def _new_conn(self) -> socket.socket:
        # urllib3's own seam between connecting and the TLS handshake, which would
        # otherwise begin with the whole time again.
        sock = super()._new_conn()
        sock.settimeout(self.deadline.left())
        return sock

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock is not None:
            self.sock.settimeout(self.deadline.left())
        super().send(data)


class _Adapter(HTTPAdapter):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(
        self,
        *args: Any,  # noqa: ANN401 - passed on as they come
        **kwargs: Any,  # noqa: ANN401 - passed on as they come
    ) -> HTTPConnectionPool:
        # Every way to a pool ends here, proxies included, and this is the only place
        # where its class of connection can be changed for one session alone.
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        usual: Any = pool.ConnectionCls
        if not issubclass(usual, _Connection):
            bounded = type(
                usual.__name__, (_Connection, usual), {"deadline": self._deadline}
            )
            pool.ConnectionCls = bounded
        return pool
