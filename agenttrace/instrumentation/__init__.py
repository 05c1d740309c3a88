"""Makes libraries traceable, by the names of their distributions.

Each library has a module of its own here: a table of patches and colourless recorders,
which nothing else imports, and which is imported with the library.  This package owns
the two verbs and the list of what is supported; how a patch is put in and taken out is
`_patching`'s.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

import wrapt

from agenttrace import safety, tracing
from agenttrace.errors import UnknownInstrumentationError
from agenttrace.lazy import no_fork
from agenttrace.settings import is_disabled

if TYPE_CHECKING:
    from agenttrace.instrumentation._patching import Instrumentor


class _Supported:
    """A library that can be traced, be it there or not.

    Args:
        module: The module here that has its `INSTRUMENTOR`.
        package: The library's own package.
    """

    def __init__(self, module: str, package: str) -> None:
        self._module = f"{__name__}.{module}"
        self._package = package
        self._is_wanted = False
        self._is_awaited = False

    def install(self) -> None:
        """Trace it, now or as soon as it is imported."""
        self._is_wanted = True
        if self._module in sys.modules:
            self._instrumentor.install()
        elif not self._is_awaited:
            self._is_awaited = True
            wrapt.register_post_import_hook(self._arrives, self._package)

    def remove(self) -> None:
        """Trace it no more."""
        self._is_wanted = False
        if self._module in sys.modules:
            self._instrumentor.remove()

    @property
    def _instrumentor(self) -> Instrumentor:
        with no_fork():
            instrumentor: Instrumentor = import_module(self._module).INSTRUMENTOR
        return instrumentor

    def _arrives(self, _: object) -> None:
        """Trace what is there now.  Runs inside the application's import statement."""
        self._is_awaited = False
        if self._is_wanted:
            safety.guarded(f"instrument {self._package}", self._install_now)

    def _install_now(self) -> None:
        self._instrumentor.install()
        if not self._is_wanted:  # any more: that was said during the import
            self._instrumentor.remove()


_SUPPORTED: Final = {
    "agency-swarm": _Supported("agency_swarm", "agency_swarm"),
    "agent-framework": _Supported("agent_framework", "agent_framework"),
    "django": _Supported("django", "django"),
    "openai": _Supported("openai", "openai"),
    "openai-agents": _Supported("openai_agents", "agents"),
    "threading": _Supported("threading", "threading"),
}
"""By the name of the distribution."""


def instrument(*names: str) -> None:
    """Trace the libraries of these distributions; with no name, all that are supported.

    Legal before `configure()`, and twice.  Nothing is imported: a library that is not
    loaded yet is patched when it is, one that is not installed is never missed.  Where
    tracing is disabled nothing is patched.

    Args:
        names: Names of distributions, such as `"openai"`; `"threading"` carries spans
            into threads, processes and pools of either.

    Raises:
        UnknownInstrumentationError: There is no support for one of them; then nothing
            is patched.
    """
    libraries = _libraries(names)
    if tracing.installed is tracing.DISABLED or is_disabled():
        return
    for library in libraries:
        library.install()


def uninstrument(*names: str) -> None:
    """Put these libraries back as they were; with no name, all of them.

    What another tool has patched on top since stays in place and does nothing.  Spans
    that are open end as they would have.

    Args:
        names: Names of distributions, as for `instrument`.

    Raises:
        UnknownInstrumentationError: There is no support for one of them.
    """
    for library in _libraries(names):
        library.remove()


def _libraries(names: tuple[str, ...]) -> list[_Supported]:
    # Index and interpreter agree that these are one name.
    wanted = [name.lower().replace("_", "-") for name in names] or list(_SUPPORTED)
    unknown = [name for name in wanted if name not in _SUPPORTED]
    if unknown:
        message = (
            f"there is no instrumentation for {', '.join(map(repr, unknown))}; "
            f"there is for {', '.join(map(repr, sorted(_SUPPORTED)))}"
        )
        raise UnknownInstrumentationError(message)
    return [_SUPPORTED[name] for name in wanted]
