"""OpenTelemetry's own command starts agenttrace, by its entry points."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from tests.coexistence.given import run

if TYPE_CHECKING:
    from pathlib import Path

TRACES: Final = "/v1/traces"
STARTED: Final = """
import os, sys
if len(sys.argv) == 1:  # once more, by the command that is to be tried
    os.environ["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "*"
    os.environ.update(VARIABLES)
    import opentelemetry.instrumentation.auto_instrumentation as command
    sys.argv[1:] = [sys.executable, __file__, "again"]
    command.run()

from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("theirs"):
    with agenttrace.span("ours"):
        pass
print(agenttrace.runtime.current().status().mode)
"""
OTHER: Final = """
from opentelemetry.distro import OpenTelemetryDistro

loaded = set()

class Other(OpenTelemetryDistro):
    def load_instrumentor(self, entry_point, **options):
        if entry_point.name == "httpx":
            loaded.add(entry_point.name)
"""


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR"])
def test_opentelemetrys_command_starts_agenttrace_by_name(
    tmp_path: Path, variable: str
) -> None:
    """Where that command is in every image already, a variable is all it takes."""
    variables = {variable: "agenttrace"}

    ran = run(tmp_path, f"VARIABLES = {variables}\n{STARTED}", own=True)

    assert (ran.code, ran.out) == (0, "own\n"), ran.err
    assert "Traceback" not in ran.err
    assert ran.tree(TRACES) == {"theirs": ("", "ok"), "ours": ("theirs", "ok")}


def test_where_nobody_names_it_the_others_configuration_stands(tmp_path: Path) -> None:
    """To be installed is not to be asked; agenttrace attaches to what is set up."""
    ran = run(
        tmp_path,
        """
        import os
        for signal in ("TRACES", "METRICS", "LOGS"):
            os.environ[f"OTEL_{signal}_EXPORTER"] = "none"
        from agenttrace.launch.distro import Configurator
        Configurator().configure(auto_instrumentation_version="1")
        from opentelemetry import trace
        with trace.get_tracer("app").start_as_current_span("theirs"):
            pass
        print(type(trace.get_tracer_provider()).__module__)
        print(agenttrace.runtime.current().status().mode)
        """,
        own=False,
    )

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "opentelemetry.sdk.trace\nattached\n"


def test_where_nobody_names_it_the_others_distro_stands(tmp_path: Path) -> None:
    """It says that spans are sent at all, and how instrumentations are loaded."""
    packages = tmp_path / "packages"
    (packages / "first-1.dist-info").mkdir(parents=True)
    (packages / "first-1.dist-info/METADATA").write_text("Name: first\nVersion: 1\n")
    (packages / "first-1.dist-info/entry_points.txt").write_text(
        "[opentelemetry_distro]\n"
        "agenttrace = agenttrace.launch.distro:Distro\n"
        "other = other:Other\n"
        "[opentelemetry_configurator]\n"
        "agenttrace = agenttrace.launch.distro:Configurator\n"
    )
    (packages / "other.py").write_text(OTHER)
    path = filter(None, [str(packages), os.environ.get("PYTHONPATH")])
    variables = {
        "PYTHONPATH": os.pathsep.join(path),
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "",
    }
    shown = "import os, other\nprint(other.loaded, os.environ['OTEL_TRACES_EXPORTER'])"

    ran = run(tmp_path, f"VARIABLES = {variables}\n{STARTED}\n{shown}", own=True)

    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    assert ran.out.endswith("\n{'httpx'} otlp\n")
    assert ran.tree(TRACES) == {"theirs": ("", "ok"), "ours": ("theirs", "ok")}
