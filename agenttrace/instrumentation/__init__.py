"""Makes libraries traceable, by the names of their distributions.

Each library has a module of its own here: a table of patches and colourless recorders,
which nothing else imports.  This package owns the two verbs and the list of what is
supported; how a patch is put in and taken out is `_patching`'s.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from agenttrace import tracing
from agenttrace.errors import UnknownInstrumentationError
from agenttrace.settings import is_disabled

if TYPE_CHECKING:
    from agenttrace.instrumentation._patching import Instrumentor

_HOMES: Final = {
    "agency-swarm": "agency_swarm",
    "agent-framework": "agent_framework",
    "django": "django",
    "openai": "openai",
    "openai-agents": "openai_agents",
    "threading": "threading",
}
"""The module of each distribution, which has its `INSTRUMENTOR`."""


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
    instrumentors = _instrumentors(names)
    if tracing.tracer() is tracing.DISABLED or is_disabled():
        return
    for instrumentor in instrumentors:
        instrumentor.install()


def uninstrument(*names: str) -> None:
    """Put these libraries back as they were; with no name, all of them.

    What another tool has patched on top since stays in place and does nothing.  Spans
    that are open end as they would have.

    Args:
        names: Names of distributions, as for `instrument`.

    Raises:
        UnknownInstrumentationError: There is no support for one of them.
    """
    for instrumentor in _instrumentors(names):
        instrumentor.remove()


def _instrumentors(names: tuple[str, ...]) -> list[Instrumentor]:
    # Index and interpreter agree that these are one name.
    wanted = [name.lower().replace("_", "-") for name in names] or list(_HOMES)
    unknown = [name for name in wanted if name not in _HOMES]
    if unknown:
        message = (
            f"there is no instrumentation for {', '.join(map(repr, unknown))}; "
            f"there is for {', '.join(map(repr, sorted(_HOMES)))}"
        )
        raise UnknownInstrumentationError(message)
    return [import_module(f"{__name__}.{_HOMES[name]}").INSTRUMENTOR for name in wanted]
