"""What the `OTEL_EXPORTER_OTLP_*` variables say, resolved once and checked.

A variable for one signal goes before the one for all, and an empty variable is an
unset one (https://opentelemetry.io/docs/specs/otel/protocol/exporter/).  A value that
cannot be meant is an error here, when something is configured: the alternative is
spans that go nowhere, and a line in a log that nobody reads.

Pure but for looking whether certificate files can be read: no sender is built here,
and no library of theirs is imported.
"""

from __future__ import annotations

import ipaddress
import math
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from agenttrace.errors import SettingError
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds that one request may take."""
_LONGEST_TIMEOUT: Final = 86_400.0
"""Whoever says more means no limit; the timers of sockets hold 24 days."""
_TRACES: Final = "traces"
# Patterns, not compiled: most starts need one of them, and each costs some of it.
# What `parse_env_headers` accepts.  It is asked only about what matches, because it
# writes what it does not accept, credentials and all, into the log.
_HEADER: Final = r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*"
# A name as resolvers take it (those of containers have underscores), or an address.
_HOST: Final = r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|[0-9a-f]*:[0-9a-f:.]+(%.+)?"
_ALLOWED_HOST: Final = "a URL whose host is a name or an address"
# What grpc takes as metadata; a name in -bin wants bytes, which no variable holds.
_METADATA: Final = r"[0-9a-z_.-]+(?<!-bin)=[ -~]*"
_CONTROL: Final = r"[\x00-\x1f\x7f]"


_NO_HEADERS: Final[Mapping[str, str]] = {}


class Protocol(StrEnum):
    """How spans travel."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


class Compression(StrEnum):
    """How a request is made smaller."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"


DEFAULT_ENDPOINTS: Final[Mapping[Protocol, str]] = {
    Protocol.HTTP: "http://localhost:4318/v1/traces",
    Protocol.GRPC: "http://localhost:4317",
}


class OtlpSettings(NamedTuple):
    """Where spans go by OTLP, and how.

    Args:
        endpoint: For http the URL that is posted to, for grpc `[scheme://]host:port`.
        protocol: How they travel.
        headers: Sent with every request.  Never shown: they carry credentials.
        timeout: The longest that one request may take, in seconds.
        compression: How requests are made smaller.
        certificate: PEM file of the authorities to trust; None means the system's.
        client_key: PEM file of the key for mutual TLS.
        client_certificate: PEM file of the certificate for mutual TLS.
        insecure: Whether grpc goes without TLS where the endpoint has no scheme.
        is_default: Whether no variable named the endpoint.
    """

    endpoint: str = DEFAULT_ENDPOINTS[Protocol.HTTP]
    protocol: Protocol = Protocol.HTTP
    headers: Mapping[str, str] = _NO_HEADERS
    timeout: float = DEFAULT_TIMEOUT
    compression: Compression = Compression.NONE
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool | None = None
    is_default: bool = True

    def __repr__(self) -> str:
        return f"<OtlpSettings {self.protocol} {self.endpoint}>"


def otlp_settings(environ: Mapping[str, str], signal: str = _TRACES) -> OtlpSettings:
    """Return what *environ* says about sending *signal* by OTLP.

    >>> otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}).endpoint
    'http://collector:4318/v1/traces'

    Raises:
        SettingError: A variable has a value that cannot be meant, or names a file
            that cannot be read.
    """
    protocol = _protocol(_Variable.of(environ, signal, "PROTOCOL"))
    endpoint = _Variable.of(environ, signal, "ENDPOINT")
    client_key = _file(_Variable.of(environ, signal, "CLIENT_KEY"))
    client_certificate = _Variable.of(environ, signal, "CLIENT_CERTIFICATE")
    if client_key is not None and not client_certificate.value:
        raise SettingError(
            client_certificate.name, "", "set where a client key is: the two are a pair"
        )
    return OtlpSettings(
        endpoint=_endpoint(endpoint, protocol, signal),
        protocol=protocol,
        headers=_headers(_Variable.of(environ, signal, "HEADERS"), protocol),
        timeout=_timeout(_Variable.of(environ, signal, "TIMEOUT")),
        compression=_compression(_Variable.of(environ, signal, "COMPRESSION")),
        certificate=_file(_Variable.of(environ, signal, "CERTIFICATE")),
        client_key=client_key,
        client_certificate=_file(client_certificate),
        insecure=_insecure(_Variable.of(environ, signal, "INSECURE")),
        is_default=not endpoint.value,
    )


def http_endpoint(setting: str, url: str) -> str:
    """Return *url* if it can be posted to.

    Raises:
        SettingError: It is not an http or https URL with a host; the error names
            *setting* and leaves out what might be a credential.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError(setting, shown(url), "a URL with http:// or https://")
    if not _is_host(parts.hostname):
        raise SettingError(setting, shown(url), _ALLOWED_HOST)
    return url


def shown(url: str) -> str:
    """Return *url* as it may be shown: without user, password, query and fragment.

    >>> shown("https://user:secret@collector:4318/v1/traces?key=secret")
    'https://collector:4318/v1/traces'
    """
    parts = _split(url)
    if parts is None:
        return "<not a URL>"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def is_loopback(host: str | None) -> bool:
    """Return whether *host*, a name or an address, is this machine's loopback.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("collector")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost" or (host or "").endswith(".localhost")


class _Variable(NamedTuple):
    """A setting of the environment: the name that it was found under, and its value."""

    name: str
    value: str
    for_signal: bool

    @classmethod
    def of(cls, environ: Mapping[str, str], signal: str, what: str) -> _Variable:
        for_signal = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}"
        for_all = f"OTEL_EXPORTER_OTLP_{what}"
        if value := environ.get(for_signal, "").strip():
            return cls(for_signal, value, for_signal=True)
        return cls(for_all, environ.get(for_all, "").strip(), for_signal=False)


def _protocol(variable: _Variable) -> Protocol:
    if not variable.value:
        return Protocol.HTTP
    try:
        return Protocol(variable.value.lower())
    except ValueError:
        raise SettingError(
            variable.name, variable.value, "'http/protobuf' or 'grpc'"
        ) from None


def _endpoint(variable: _Variable, protocol: Protocol, signal: str) -> str:
    url = variable.value
    if not url:
        return DEFAULT_ENDPOINTS[protocol].replace(_TRACES, signal)
    if protocol is Protocol.GRPC:
        parts = _split(url if "://" in url else f"//{url}")
        if parts is None or not parts.hostname:
            raise SettingError(variable.name, shown(url), "a URL or a host:port")
        if not _is_host(parts.hostname):
            raise SettingError(variable.name, shown(url), _ALLOWED_HOST)
        if parts.username is not None:
            allowed = "a URL without user and password for grpc, which has only headers"
            raise SettingError(variable.name, shown(url), allowed)
        return url
    http_endpoint(variable.name, url)
    if variable.for_signal:
        return url
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}").geturl()


def _split(url: str) -> SplitResult | None:
    if re.search(_CONTROL, url):  # urlsplit takes some of them out, others do not
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # read to be checked: it is parsed when it is asked for
    except ValueError:
        return None
    return parts


def _is_host(host: str) -> bool:
    try:
        # The codec is imported for those alone who need it: it takes milliseconds.
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:  # a part of it is empty, or too long
        return False
    return re.fullmatch(_HOST, name) is not None


def _headers(variable: _Variable, protocol: Protocol) -> Mapping[str, str]:
    if not variable.value:
        return _NO_HEADERS
    from opentelemetry.util.re import (  # noqa: PLC0415 - its patterns take their time
        parse_env_headers,
    )

    entries = [entry for part in variable.value.split(",") if (entry := part.strip())]
    headers: Mapping[str, str] = {}
    well_formed = all(re.fullmatch(_HEADER, entry) for entry in entries)
    if well_formed:
        headers = parse_env_headers(",".join(entries), liberal=True)
    if not well_formed or any(
        not name or re.search(_CONTROL, name + value) for name, value in headers.items()
    ):
        raise SettingError(
            variable.name,
            "<not shown>",
            "'name=value' pairs with commas between them, their values URL-encoded",
        )
    if protocol is Protocol.GRPC and not all(
        re.fullmatch(_METADATA, f"{name}={value}") for name, value in headers.items()
    ):
        raise SettingError(
            variable.name,
            "<not shown>",
            "for grpc of names with letters, digits, '-', '_' and '.' that do not end "
            "in '-bin', and of values in ASCII",
        )
    return headers


def _timeout(variable: _Variable) -> float:
    if not variable.value:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(variable.value)
    except ValueError:
        seconds = math.nan
    # Written so that NaN fails as well.
    if not 0 < seconds < math.inf:
        raise SettingError(
            variable.name, variable.value, "a positive number of seconds"
        )
    return min(seconds, _LONGEST_TIMEOUT)


def _compression(variable: _Variable) -> Compression:
    if not variable.value:
        return Compression.NONE
    try:
        return Compression(variable.value.lower())
    except ValueError:
        raise SettingError(
            variable.name, variable.value, "'none', 'gzip' or 'deflate'"
        ) from None


def _insecure(variable: _Variable) -> bool | None:
    match variable.value.lower():
        case "":
            return None
        case "true":
            return True
        case "false":
            return False
        case _:
            raise SettingError(variable.name, variable.value, "'true' or 'false'")


def _file(variable: _Variable) -> str | None:
    if not variable.value:
        return None
    try:
        with Path(variable.value).open("rb"):
            return variable.value
    except (OSError, ValueError):
        raise SettingError(
            variable.name, variable.value, "the path of a PEM file that can be read"
        ) from None
