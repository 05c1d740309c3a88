"""OpenTelemetry's own way to start: its entry points `distro` and `configurator`.

`opentelemetry-instrument` loads one of each, by name (`OTEL_PYTHON_DISTRO=agenttrace`,
`OTEL_PYTHON_CONFIGURATOR=agenttrace`), else the first it comes across.  That may be
ours where nobody has named it: then another configurator that is installed sets up what
it would have, and agenttrace attaches to that.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from agenttrace.launch import begin

NAME: Final = "agenttrace"
_GROUP: Final = "opentelemetry_configurator"
_DISTRO, _CONFIGURATOR = "OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR"


class Configurator:
    """Configures and instruments, as `agenttrace run` does."""

    def configure(self, **options: Any) -> None:  # noqa: ANN401 - OTel's, for its own
        """Start tracing, after another configurator where ours was not asked for.

        Args:
            options: What OpenTelemetry has for a configurator; passed on.
        """
        if os.environ.get(_CONFIGURATOR) != NAME:
            others = (each for each in entry_points(group=_GROUP) if each.name != NAME)
            other = next(others, None)
            if other is not None:
                other.load()().configure(**options)
        begin()


def _configure(_distro: object, **_options: Any) -> None:  # noqa: ANN401 - the same
    """Have our configurator chosen, where this distro was asked for by its name."""
    if os.environ.get(_DISTRO) == NAME:
        os.environ.setdefault(_CONFIGURATOR, NAME)


def _base() -> Any:  # noqa: ANN401 - a class of a package that is no dependency
    """Return what OpenTelemetry takes for a distro; any class where it is missing."""
    try:
        return import_module("opentelemetry.instrumentation.distro").BaseDistro
    except ImportError:
        return object


Distro: Any = type("Distro", (_base(),), {"_configure": _configure})
"""OpenTelemetry's defaults, and our configurator."""
