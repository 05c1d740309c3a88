"""What `examples/fleet` keeps, as it stands: what failed, and a share of the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

import agenttrace
from agenttrace.testing import ManualClock
from tests.delivery.collector import Collector
from tests.e2e import servers
from tests.e2e.backends import COLLECTOR, PROMETHEUS
from tests.e2e.between import Between, sending_to, step

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.backends import Backend

FLEET: Final = Path(__file__).parents[2] / "examples/fleet"
ORDINARY: Final = 200
"""Runs that go well: of so many a tenth is neither none nor all of them."""

_COLLECTOR: Final = (COLLECTOR, "otelcol", "validate", "--config")

DIES: Final = """
import sys
import agenttrace

agenttrace.configure(service_name="sends")
with agenttrace.span("lost"):
    with agenttrace.span("first"):
        pass
    agenttrace.flush(float(sys.argv[1]))
    print("sent", flush=True)
    sys.stdin.read()
"""


@contextmanager
def dying(state: Path, flush: float = servers.PATIENCE) -> Generator[None]:
    """Have a process with an open run, killed at the block's end.

    Args:
        state: Its state directory.
        flush: Seconds for which it waits until its first step is delivered.
    """
    env = {**os.environ, "AGENTTRACE_STATE_DIR": str(state)}
    with subprocess.Popen(
        [sys.executable, "-c", DIES, str(flush)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        yield
        process.kill()


def failing(name: str, error: Exception) -> None:
    """Trace a run that does one step, and fails."""
    with suppress(type(error)), agenttrace.span(name):
        step("first")
        raise error


def told(jaeger: servers.Jaeger) -> dict[str, list[list[str]]]:
    """Return the names of the spans of every trace that has a root, by the root's."""
    found: dict[str, list[list[str]]] = {}
    for trace in jaeger.traces("sends"):
        names = sorted(span["operationName"] for span in trace["spans"])
        for span in trace["spans"]:
            if not span["references"]:
                found.setdefault(span["operationName"], []).append(names)
    return found


def test_what_failed_arrives_whole_and_a_share_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an agent on the host by two gateways into Jaeger, each trace by one."""
    expected = {
        "error": [["error", "first"]],
        "timed_out": [["first", "timed_out"]],
        "lost": [["first", "lost"]],
        "stuck": [["agenttrace.late_finish: hangs", "hangs", "stuck"]],
        "long": [["agenttrace.open: long", "long"]],
    }
    with servers.jaeger(tmp_path) as jaeger, ExitStack() as running:
        gateways = [
            Between(
                tmp_path / name,
                config=FLEET / "gateway.yaml",
                DECISION_WAIT="5s",
                STORAGE=str(tmp_path / name / "queue"),
                TRACES=jaeger.endpoint,
            )
            for name in ("one", "two")
        ]
        hosts = ",".join(each.grpc for each in gateways)
        agent = Between(
            tmp_path / "agent",
            "exporters.load_balancing.resolver.dns=null",
            f"exporters.load_balancing.resolver.static.hostnames=[{hosts}]",
            config=FLEET / "agent.yaml",
            STORAGE=str(tmp_path / "agent/queue"),
        )
        with sending_to(
            agent.endpoint, tmp_path, monkeypatch, visible_after=10
        ) as fresh:
            # Before anybody listens: each trace leaves in one piece.  The agent has
            # acknowledged them when it is killed, and no gateway is there yet.
            failing("error", ValueError("no such page"))
            failing("timed_out", TimeoutError())
            with dying(tmp_path / "state", flush=0):
                pass
            fresh.runtime.recover(timeout=0)
            for _ in range(ORDINARY):
                with agenttrace.span("ordinary"):
                    step("first")
            with ManualClock() as clock:
                with agenttrace.span("stuck"):
                    clock.advance(1)
                    with agenttrace.span("hangs", heartbeat_timeout=5):
                        clock.advance(6)
                with agenttrace.span("long"):
                    clock.advance(11)
            with agent.running(signal.SIGKILL):
                assert fresh.runtime.flush(servers.PATIENCE)
                log = tmp_path / "agent/log.txt"
                servers.until("an attempt", lambda: "refused" in log.read_text())
            for each in (*gateways, agent):
                running.enter_context(each.running(signal.SIGTERM))
            servers.until(
                "what failed",
                lambda: expected.items() <= told(jaeger).items(),
            )
        running.close()
        arrived = told(jaeger)

    ordinary = arrived.pop("ordinary")
    assert arrived == expected
    assert 0 < len(ordinary) < ORDINARY
    assert all(names == ["first", "ordinary"] for names in ordinary)


def test_a_gateway_that_is_killed_has_what_failed_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a decision is in memory, and what nobody may miss is not."""
    away = servers.free_port()
    gateway = Between(
        tmp_path / "gateway",
        config=FLEET / "gateway.yaml",
        DECISION_WAIT="600s",
        STORAGE=str(tmp_path / "queue"),
        TRACES=f"http://127.0.0.1:{away}",
    )
    with (
        sending_to(gateway.endpoint, tmp_path, monkeypatch) as fresh,
        gateway.running(signal.SIGKILL),
    ):
        failing("error", ValueError("no such page"))
        assert fresh.runtime.flush(servers.PATIENCE)
    with Collector(port=away) as backend, gateway.running(signal.SIGKILL):
        arrived = backend.wait_for(1, servers.PATIENCE)

    assert {span.name for span in arrived} == {"error"}


@pytest.mark.parametrize("is_past_the_sampling", [True, False])
def test_a_run_that_is_recovered_after_the_decision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_past_the_sampling: bool,  # noqa: FBT001 - with and without it
) -> None:
    """That a trace was not kept stands, for the sampling, whatever comes later."""
    with servers.jaeger(tmp_path) as jaeger:
        gateway = Between(
            tmp_path / "gateway",
            *(
                ()
                if is_past_the_sampling
                else ('processors.filter/failed.traces.span=["true"]',)
            ),
            config=FLEET / "gateway.yaml",
            DECISION_WAIT="5s",
            KEPT_PERCENT="0",
            STORAGE=str(tmp_path / "queue"),
            TRACES=jaeger.endpoint,
        )

        def decided(name: str) -> None:
            """Wait until the sampling has decided on what came by now."""
            with agenttrace.span(name):  # comes by the sampling alone
                failing("fails", ValueError())
            assert fresh.runtime.flush(servers.PATIENCE)
            whole = [sorted([name, "fails", "first"])]
            servers.until(name, lambda: told(jaeger).get(name) == whole)

        with (
            gateway.running(signal.SIGTERM),
            sending_to(gateway.endpoint, tmp_path, monkeypatch) as fresh,
        ):
            with dying(tmp_path / "state"):
                decided("before")
            fresh.runtime.recover(servers.PATIENCE)
            decided("after")
        arrived = told(jaeger)

    assert arrived.get("lost") == ([["lost"]] if is_past_the_sampling else None)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ("agent.yaml", _COLLECTOR),
        ("gateway.yaml", _COLLECTOR),
        ("../grafana/collector.yaml", _COLLECTOR),
        # Not the rules that it names, which are written elsewhere.
        (
            "prometheus.yml",
            (PROMETHEUS, "promtool", "check", "config", "--syntax-only"),
        ),
    ],
)
def test_a_configuration_is_valid(
    config: str, command: tuple[Backend, str, *tuple[str, ...]]
) -> None:
    """By the program that is to read it, of the version that compose starts."""
    backend, program, *arguments = command
    ran = subprocess.run(
        [backend.program(program), *arguments, FLEET / config],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_compose_starts_what_was_tried_here() -> None:
    """The programs of other versions would be tried by whoever follows the example."""
    services = yaml.safe_load((FLEET / "compose.yaml").read_text())["services"]

    for backend, name in (
        (COLLECTOR, "agent"),
        (COLLECTOR, "gateway"),
        (PROMETHEUS, "prometheus"),
    ):
        assert f":{backend.version}." in services[name]["image"].replace(":v", ":")
    mounted = [
        mount.partition(":")[0]
        for service in services.values()
        for mount in service.get("volumes", ())
        if mount.startswith(".") and "/written/" not in mount
    ]
    assert mounted
    for service in services.values():
        targets = [str(each).split(":") for each in service.get("volumes", ())]
        fixed = [each[1] for each in targets if each[2:] == ["ro"]]
        places = [each[1] if each[1:] else each[0] for each in targets]
        # Docker cannot make a place for a mount within what it has mounted read-only.
        assert not [
            (place, each)
            for each in fixed
            for place in places
            if place.startswith(f"{each}/")
        ]
    assert all((FLEET / each).exists() for each in mounted), mounted
    ports = [port for each in services.values() for port in each.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
