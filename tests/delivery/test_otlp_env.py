"""What the standard variables say is understood, or refused with a reason."""

from __future__ import annotations

import contextlib
import logging
import re
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrace.delivery.otlp_env import (
    Compression,
    OtlpSettings,
    Protocol,
    otlp_settings,
    shown,
)
from agenttrace.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "s3cr3t"


def settings(**variables: str) -> OtlpSettings:
    """Resolve *variables*, named by what follows `OTEL_EXPORTER_OTLP_`."""
    return otlp_settings(
        {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()}
    )


def test_without_any_variable_spans_would_go_to_the_local_collector() -> None:
    """`OTEL_TRACES_EXPORTER=otlp` alone means this; nobody named it, though."""
    found = otlp_settings({})

    assert found == OtlpSettings()
    assert found.endpoint == "http://localhost:4318/v1/traces"
    assert found.is_default


@pytest.mark.parametrize(
    ("base", "endpoint"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://host/otlp", "https://host/otlp/v1/traces"),
        ("https://host/otlp/?key=1", "https://host/otlp/v1/traces?key=1"),
        (" https://host ", "https://host/v1/traces"),
    ],
)
def test_the_endpoint_for_every_signal_gets_the_path_of_traces(
    base: str, endpoint: str
) -> None:
    """It names a collector, and each signal has a path of its own there."""
    found = settings(ENDPOINT=base)

    assert found.endpoint == endpoint
    assert not found.is_default


def test_the_endpoint_for_traces_is_used_as_it_is() -> None:
    """Vendors have paths of their own; a path added to one is a 404."""
    found = settings(ENDPOINT="http://other", TRACES_ENDPOINT="http://vendor/in")

    assert found.endpoint == "http://vendor/in"


@pytest.mark.parametrize(
    ("name", "for_all", "for_traces", "attribute", "expected"),
    [
        ("PROTOCOL", "grpc", "http/protobuf", "protocol", Protocol.HTTP),
        ("HEADERS", "a=1", "b=2", "headers", {"b": "2"}),
        ("TIMEOUT", "3", "0.5", "timeout", 0.5),
        ("COMPRESSION", "gzip", "deflate", "compression", Compression.DEFLATE),
        ("INSECURE", "true", "FALSE", "insecure", False),
    ],
)
def test_what_is_set_for_traces_goes_before_what_is_set_for_all(
    name: str, for_all: str, for_traces: str, attribute: str, expected: object
) -> None:
    """An application may send its metrics elsewhere."""
    found = settings(**{name: for_all, f"TRACES_{name}": for_traces})

    assert getattr(found, attribute) == expected


def test_an_empty_variable_is_an_unset_one() -> None:
    """Deployments blank out a variable in order to take it back."""
    found = settings(
        ENDPOINT="", TRACES_TIMEOUT=" ", TIMEOUT="3", COMPRESSION="", INSECURE=""
    )

    assert found == OtlpSettings(timeout=3.0)


@pytest.mark.parametrize("endpoint", ["collector:4317", "http://collector:4317"])
def test_grpc_takes_a_url_and_a_host_with_a_port(endpoint: str) -> None:
    """Both are what people write, and neither has a path."""
    found = settings(PROTOCOL="grpc", ENDPOINT=endpoint)

    assert found.endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PROTOCOL", "http/json", "'http/protobuf' or 'grpc'"),
        ("TRACES_PROTOCOL", "carrier pigeon", "'http/protobuf' or 'grpc'"),
        ("ENDPOINT", "collector:4318", "http:// or https://"),
        ("ENDPOINT", "ftp://collector", "http:// or https://"),
        ("TRACES_ENDPOINT", "http://", "http:// or https://"),
        ("TRACES_ENDPOINT", "http://host:port", "http:// or https://"),
        ("TRACES_ENDPOINT", "http://[::1", "http:// or https://"),
        ("TRACES_ENDPOINT", "http://ho\tst", "http:// or https://"),
        ("ENDPOINT", "http://ho st/", "a name or an address"),
        ("ENDPOINT", "http://*.collector/", "a name or an address"),
        ("ENDPOINT", "http://a..b/", "a name or an address"),
        ("ENDPOINT", "http://ex%20ample/", "a name or an address"),
        ("TRACES_ENDPOINT", f"http://{'x' * 64}.example/", "a name or an address"),
        ("TRACES_ENDPOINT", f"http://{'ö' * 64}.example/", "a name or an address"),
        ("TIMEOUT", "10s", "a positive number of seconds"),
        ("TIMEOUT", "0", "a positive number of seconds"),
        ("TIMEOUT", "-1", "a positive number of seconds"),
        ("TIMEOUT", "nan", "a positive number of seconds"),
        ("TIMEOUT", "inf", "a positive number of seconds"),
        ("COMPRESSION", "brotli", "'none', 'gzip' or 'deflate'"),
        ("INSECURE", "maybe", "'true' or 'false'"),
        ("HEADERS", "no-equals-sign", "'name=value'"),
        ("HEADERS", "a=1,=2", "'name=value'"),
        ("HEADERS", "a=1%0D%0Ab:2", "'name=value'"),
        ("CERTIFICATE", "no/such.pem", "can be read"),
        ("CLIENT_CERTIFICATE", "no/such.pem", "can be read"),
        ("TRACES_CLIENT_KEY", "no/such.pem", "can be read"),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error_that_says_what_can(
    name: str, value: str, allowed: str
) -> None:
    """Otherwise spans go nowhere, and nobody learns why."""
    with pytest.raises(SettingError) as caught:
        settings(**{name: value})

    assert caught.value.setting == f"OTEL_EXPORTER_OTLP_{name}"
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ENDPOINT", "http://ho st:4317", "a name or an address"),
        ("ENDPOINT", "ho st:4317", "a name or an address"),
        ("ENDPOINT", f"http://user:{HIDDEN}@collector:4317", "without user"),
        ("HEADERS", "x-user=%C3%A9", "values in ASCII"),
        ("HEADERS", "a|b=1", "names with letters"),
        ("HEADERS", "trace-bin=abc", "'-bin'"),
    ],
)
def test_what_grpc_cannot_send_is_an_error_that_says_so(
    name: str, value: str, allowed: str
) -> None:
    """It would refuse every span, or come back for ever."""
    with pytest.raises(SettingError, match=re.escape(allowed)) as caught:
        settings(PROTOCOL="grpc", **{name: value})

    assert caught.value.setting == f"OTEL_EXPORTER_OTLP_{name}"
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "collector",
        "my_collector.observability.svc.cluster.local.",
        "xn--mnchen-3ya.example",
        "münchen.example",
        "10.0.0.1",
        "[::1]",
        "[fe80::1%25eth0]",
    ],
)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_host_that_can_be_meant_is_taken(protocol: str, host: str) -> None:
    """A check that is too strict keeps an application from starting."""
    endpoint = f"http://{host}:4318"

    found = settings(PROTOCOL=protocol, TRACES_ENDPOINT=endpoint)

    assert found.endpoint == endpoint


def test_a_time_without_end_is_one_that_sockets_know() -> None:
    """A larger number would make every attempt fail."""
    assert settings(TIMEOUT="1e300").timeout == 86_400


def test_a_client_key_without_its_certificate_is_an_error(tmp_path: Path) -> None:
    """TLS would silently go on without either."""
    key = tmp_path / "key.pem"
    key.touch()

    with pytest.raises(SettingError, match="CLIENT_CERTIFICATE"):
        settings(CLIENT_KEY=str(key))


@pytest.mark.parametrize(
    "variables",
    [
        {"HEADERS": f"authorization {HIDDEN}"},
        {"HEADERS": f"authorization=ok%00{HIDDEN}"},
        {"ENDPOINT": f"ftp://user:{HIDDEN}@collector?key={HIDDEN}"},
        {"ENDPOINT": f"http://user:{HIDDEN}@collector:nan"},
    ],
)
def test_a_credential_is_in_no_error_and_in_no_log(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of configuration are the first thing that is pasted into an issue."""
    caplog.set_level(logging.DEBUG)

    with pytest.raises(SettingError) as caught:
        settings(**variables)

    assert HIDDEN not in str(caught.value)
    assert HIDDEN not in caplog.text


def test_the_settings_do_not_show_their_headers() -> None:
    """They are what `doctor` and debuggers print."""
    found = settings(HEADERS=f"authorization=Bearer {HIDDEN}")

    assert found.headers == {"authorization": f"Bearer {HIDDEN}"}
    assert HIDDEN not in repr(found)


@given(st.text() | st.text("ab= \t\r,%;"))
def test_headers_are_taken_or_refused_but_never_logged(text: str) -> None:
    """OpenTelemetry's parser logs what it does not understand."""
    spoken: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(spoken)
    parser = logging.getLogger("opentelemetry.util.re")
    parser.addHandler(handler)

    try:
        with contextlib.suppress(SettingError):
            settings(HEADERS=text)
    finally:
        parser.removeHandler(handler)

    assert spoken.empty()


@given(st.text())
def test_any_text_can_be_shown_as_a_url(text: str) -> None:
    """It stands in an error about that very text."""
    assert isinstance(shown(text), str)
