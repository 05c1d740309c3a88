"""TLS: whom to trust, and who we are, is what was configured."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from agenttrace.delivery.otlp_env import otlp_settings
from agenttrace.delivery.senders import Delivered, Later
from agenttrace.delivery.senders.http import HttpSender
from tests.delivery.collector import Collector, Reply
from tests.delivery.given import frame

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrace.delivery.senders import Answer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Write the authority's certificate to a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def server_side(authority: trustme.CA, *, asks_clients: bool = False) -> ssl.SSLContext:
    """Return what a server speaks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Of types that its stubs do not name, because they may be pyOpenSSL's.
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - see above
    if asks_clients:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType] - see above
    return context


def send(sender: HttpSender, timeout: float = 5) -> Answer:
    try:
        return sender.send(frame("plan"), timeout)
    finally:
        sender.close()


def test_a_server_of_the_configured_authority_is_trusted(
    authority: trustme.CA, certificate: Path
) -> None:
    """Collectors inside a company have certificates of its own."""
    with Collector(tls=server_side(authority)) as collector:
        answer = send(HttpSender(collector.endpoint, certificate=str(certificate)))

        assert answer == Delivered()
        assert [span.name for span in collector.spans()] == ["plan"]


def test_a_server_of_another_authority_is_not_trusted(
    authority: trustme.CA,
) -> None:
    """Spans hold what users said; the answer says what is wrong, and may be cured."""
    with Collector(tls=server_side(authority)) as collector:
        answer = send(HttpSender(collector.endpoint))

        assert isinstance(answer, Later)
        assert "certificate verify failed" in answer.reason.lower()
        assert collector.requests == []


def test_a_variable_of_requests_does_not_overrule_the_configured_authority(
    authority: trustme.CA,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`REQUESTS_CA_BUNDLE` is meant for what has no setting of its own."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))

    with Collector(tls=server_side(authority)) as collector:
        answer = send(HttpSender(collector.endpoint, certificate=str(certificate)))

    assert answer == Delivered()


@pytest.mark.parametrize("is_one_file", [False, True])
def test_a_server_that_asks_is_shown_the_client_certificate(
    authority: trustme.CA, certificate: Path, tmp_path: Path, *, is_one_file: bool
) -> None:
    """Mutual TLS is how many gateways know whose spans they get."""
    client = authority.issue_cert("client@agenttrace.invalid")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    client.private_key_pem.write_to_path(key)
    client.cert_chain_pems[0].write_to_path(chain)
    variables = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(chain),
    }
    if is_one_file:
        chain.write_bytes(key.read_bytes() + chain.read_bytes())
    else:
        variables["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(key)

    with Collector(tls=server_side(authority, asks_clients=True)) as collector:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.base
        answer = send(HttpSender.from_settings(otlp_settings(variables)))
        without = send(HttpSender(collector.endpoint, certificate=str(certificate)))

    assert answer == Delivered()
    assert isinstance(without, Later)


def test_the_time_limit_holds_over_tls(
    authority: trustme.CA, certificate: Path
) -> None:
    """Its reads go through another kind of socket."""
    with Collector(tls=server_side(authority)) as collector:
        collector.answer(Reply(drip=0.05))

        answer = send(
            HttpSender(collector.endpoint, certificate=str(certificate)), timeout=0.5
        )

    assert isinstance(answer, Later)
