"""Posts frames to an OTLP/HTTP endpoint as they are: `http/protobuf`.

Owns what a request is made of and what an answer means, by the OTLP specification
(https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).  When to try again is the
spooler's business.

The HTTP library is `requests`, which the official exporter brings, for its proxies,
TLS and environment variables.  It is imported when the first frame is sent.  What is
told of an answer or an error are status codes and the words of the system: bodies and
messages repeat what was sent, headers and URLs with credentials among it.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from agenttrace._otel import suppress_instrumentation
from agenttrace.delivery.otlp_env import (
    Compression,
    OtlpSettings,
    is_loopback,
    shown,
)
from agenttrace.delivery.senders import Answer, Delivered, Later, Refused
from agenttrace.delivery.senders.answers import delivered
from agenttrace.lazy import no_fork

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from agenttrace.delivery.frames import Frame
    from agenttrace.delivery.senders.deadline import Deadline

# 408 is not on the specification's list, but says of itself that it may be repeated.
_LATER: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_MAX_ANSWER: Final = 64 * 1024
# OTLP's response with an empty partial success, as the Collector writes it.
# Level 1 makes spans a tenth of their size; the higher ones take more of the
# application's processor than they save of its network.
_LEVEL: Final = 1


class HttpSender:
    """Sends frames to one URL.

    Args:
        endpoint: The URL to post to, path included.
        headers: Sent with every request; they go before our own.
        compression: How the body is made smaller.
        certificate: PEM file of the authorities to trust; None means the system's.
        client_key: PEM file of the key for mutual TLS.
        client_certificate: PEM file of the certificate for mutual TLS.
    """

    def __init__(  # noqa: PLR0913 - what a connection is made of
        self,
        endpoint: str,
        headers: Mapping[str, str] | None = None,
        *,
        compression: Compression = Compression.NONE,
        certificate: str | None = None,
        client_key: str | None = None,
        client_certificate: str | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._headers = _headers(headers or {}, compression)
        self._compression = compression
        self._verify = certificate or True
        self._client = (
            (client_certificate, client_key)
            if client_certificate and client_key
            else client_certificate
        )
        self._proxies = _proxies(endpoint)
        self._session: tuple[int, requests.Session, Deadline] | None = None

    @classmethod
    def from_settings(cls, settings: OtlpSettings) -> HttpSender:
        """Return the sender that *settings* ask for."""
        return cls(
            settings.endpoint,
            settings.headers,
            compression=settings.compression,
            certificate=settings.certificate,
            client_key=settings.client_key,
            client_certificate=settings.client_certificate,
        )

    def __repr__(self) -> str:
        """Return where it sends to, without anything that could be a credential."""
        return f"HttpSender({shown(self._endpoint)!r})"

    def send(self, frame: Frame, timeout: float) -> Answer:
        """Post *frame* once, all in all within *timeout* seconds."""
        session, deadline = self._connected()
        deadline.start(timeout)
        try:
            with (
                suppress_instrumentation(),
                session.post(
                    self._endpoint,
                    data=_compressed(frame.payload, self._compression),
                    headers=self._headers,
                    timeout=timeout,
                    verify=self._verify,
                    cert=self._client,
                    proxies=self._proxies,
                    # A redirected POST becomes a GET, and its headers go elsewhere.
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                return _answer(response)
        except OSError as error:  # requests' own errors are OSErrors
            if isinstance(error, ValueError):  # no valid URL, header, scheme, ...
                return Refused(type(error).__name__)
            return Later(_why(error))
        except Exception as error:  # noqa: BLE001 - what garbage does to parsers is open-ended
            return Later(type(error).__name__)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._session is not None:
            self._session[1].close()
            self._session = None

    def _connected(self) -> tuple[requests.Session, Deadline]:
        # A fork shares the parent's connection: two processes would write into one.
        if self._session is None or self._session[0] != os.getpid():
            with no_fork():
                from agenttrace.delivery.senders.deadline import (  # noqa: PLC0415 - it imports requests
                    Deadline,
                    bounded_session,
                )

            deadline = Deadline()
            session = bounded_session(deadline)
            # Without one, requests looks for the host in ~/.netrc and puts what it
            # finds there in place of the configured authorization.
            session.auth = _credentials(self._endpoint) or _keep
            self._session = os.getpid(), session, deadline
        return self._session[1:]


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None if it does not.

    Args:
        value: Seconds, or an HTTP date.
        now: Seconds since the epoch.

    >>> retry_after("120", now=0)
    120.0
    >>> retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=20)
    40.0
    >>> retry_after("soon", now=0)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            # An HTTP date is GMT; one that does not say so is taken for it.
            seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _headers(extra: Mapping[str, str], compression: Compression) -> dict[str, str]:
    headers = {
        "user-agent": "OTel-OTLP-Exporter-Python-agenttrace",
        # The answer is a few bytes; a compressed one would only have to be limited.
        "accept-encoding": "identity",
    }
    # On the wire a value is UTF-8; http.client writes text as Latin-1.
    for name, value in extra.items():
        headers[name.lower()] = value.encode().decode("latin-1")
    headers["content-type"] = "application/x-protobuf"
    if compression is not Compression.NONE:
        headers["content-encoding"] = compression.value
    return headers


def _proxies(endpoint: str) -> dict[str, str] | None:
    host = urlsplit(endpoint).hostname
    # A proxy's loopback is not ours, whatever HTTP_PROXY says; requests knows only
    # what NO_PROXY says.
    return {"no_proxy": host} if host and is_loopback(host) else None


def _credentials(endpoint: str) -> tuple[str, str] | None:
    parts = urlsplit(endpoint)
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")


def _keep(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _compressed(payload: bytes, compression: Compression) -> bytes:
    match compression:
        case Compression.NONE:
            return payload
        case Compression.GZIP:
            with no_fork():
                import gzip  # noqa: PLC0415 - most collectors are asked for nothing

            return gzip.compress(payload, _LEVEL, mtime=0)
        case Compression.DEFLATE:
            return zlib.compress(payload, _LEVEL)


def _answer(response: requests.Response) -> Answer:
    status = response.status_code
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _delivered(response)
    reason = _status_text(status)
    if status in _LATER:
        asked = retry_after(response.headers.get("retry-after"), time.time())
        return Later(reason, asked)
    return Refused(reason)


def _delivered(response: requests.Response) -> Delivered:
    try:
        body = response.raw.read(_MAX_ANSWER + 1, decode_content=False)
    except Exception:  # noqa: BLE001 - a body that drips or breaks off takes no delivery back
        return Delivered()
    is_ours = "protobuf" in response.headers.get("content-type", "protobuf")
    if len(body) > _MAX_ANSWER or not is_ours:
        return Delivered()
    return delivered(body)


def _status_text(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _why(error: BaseException) -> str:
    """Return what the system said, from the bottom of the libraries' errors."""
    name = type(error).__name__
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.strerror:
            return f"{name}: {cause.strerror}"
        cause = _beneath(cause)
    return name


def _beneath(error: BaseException) -> BaseException | None:
    inner: list[object] = [
        error.__cause__,
        getattr(error, "reason", None),
        *error.args,
        error.__context__,
    ]
    return next((one for one in inner if isinstance(one, BaseException)), None)
