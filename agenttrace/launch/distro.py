"""OpenTelemetry's own way to start: its entry points `distro` and `configurator`.

`opentelemetry-instrument` loads one of each, by name (`OTEL_PYTHON_DISTRO=agenttrace`,
`OTEL_PYTHON_CONFIGURATOR=agenttrace`), else the first it comes across.  That may be
ours where nobody has named it: then another distro and another configurator that are
installed set up what they would have, and agenttrace attaches to that.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from agenttrace.launch import begin

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "agenttrace"
_DISTRO, _CONFIGURATOR = "OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR"


class Configurator:
    """Configures and instruments, as `agenttrace run` does."""

    def configure(self, **options: Any) -> None:  # noqa: ANN401 - OTel's, for its own
        """Start tracing, after another configurator where ours was not asked for.

        Args:
            options: What OpenTelemetry has for a configurator; passed on.
        """
        if os.environ.get(_CONFIGURATOR) != NAME:
            other = next(_others("opentelemetry_configurator"), None)
            if other is not None:
                other.configure(**options)
        begin()


def _configure(distro: Any, **options: Any) -> None:  # noqa: ANN401 - the same
    """Have our configurator chosen, where this distro was asked for by its name.

    Where it was not, the first other one does all that OpenTelemetry asks of a distro.
    """
    if os.environ.get(_DISTRO) == NAME:
        os.environ.setdefault(_CONFIGURATOR, NAME)
        return
    for other in _others("opentelemetry_distro"):
        if isinstance(other, _base()):  # OpenTelemetry skips what is none, too
            distro.load_instrumentor = other.load_instrumentor
            other.configure(**options)
            return


def _others(group: str) -> Iterator[Any]:
    """Yield one of each class that others have in *group*, made when asked for."""
    found = entry_points(group=group)
    return (each.load()() for each in found if each.name != NAME)


def _base() -> Any:  # noqa: ANN401 - a class of a package that is no dependency
    """Return what OpenTelemetry takes for a distro; any class where it is missing."""
    try:
        return import_module("opentelemetry.instrumentation.distro").BaseDistro
    except ImportError:
        return object


Distro: Any = type("Distro", (_base(),), {"_configure": _configure})
"""OpenTelemetry's defaults, and our configurator."""
