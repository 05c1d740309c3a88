"""Imports that are put off, and forks that are kept from coming in their middle.

A package that is imported for one of its names need not import what has the others
(`exports`).

What a destination needs is imported on a thread of ours when it is first used, and the
public verbs on whichever thread asks for one first.  A process forked meanwhile would
inherit the lock of a module that nobody is going to release, and hang when it imports
the same module, be it the application that does.  So the one waits for the other.
"""

from __future__ import annotations

# Hooks that come before a fork run in the reverse order of their registration.  That
# of logging takes its lock, which an import needs as soon as it makes a logger: ours
# has to wait for the import first, so it is registered second.
import logging  # noqa: F401  # pyright: ignore[reportUnusedImport] - see above
import os
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_PATIENCE: Final = 5.0
"""Seconds after which either goes ahead: nothing must hang in order not to hang."""

FIRST_PROCESS: Final = os.getpid()
"""The process that agenttrace was first imported in: no forked child is that."""

# Re-entrant: what is imported may ask for a verb itself, and may even fork.
_importing = threading.RLock()
_is_held_by_fork = False
_imported: Final[set[str]] = set()


@contextmanager
def no_fork() -> Generator[None]:
    """Let no fork of this process begin inside.  For imports only."""
    lock: Any = _importing  # a fork inside exchanges it, in the child
    try:
        lock.acquire(timeout=_PATIENCE)
        yield
    finally:
        # Asked of the lock, not remembered: a signal handler may raise before that.
        if lock._is_owned():  # noqa: SLF001 - what `threading.Condition` asks, too
            lock.release()


@contextmanager
def no_fork_at_first(imports: str) -> Generator[None]:
    """Do the same until it has been left once: then the modules are there.

    Args:
        imports: What is imported inside, for each place a name of its own.
    """
    if imports in _imported:
        yield
        return
    with no_fork():
        yield
    _imported.add(imports)


def exports(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a `__getattr__` for *package* that imports a name when it is asked for.

    It is asked once for each: what was imported stands in the package then (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: The module of each name, beneath the package.
    """

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        module = sys.modules.get(f"{package}.{home}")
        # A fork may come while what is there already is read.
        if module is None or _is_half_imported(module):
            with no_fork():
                module = import_module(f"{package}.{home}")
        value: object = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get


def _before() -> None:
    global _is_held_by_fork  # noqa: PLW0603 - told from one hook to the next
    _is_held_by_fork = _importing.acquire(timeout=_PATIENCE)


def _after_in_parent() -> None:
    if _is_held_by_fork:
        _importing.release()


def _after_in_child() -> None:
    global _importing  # noqa: PLW0603 - whoever held it is not in this process
    _importing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )


def _is_half_imported(module: object) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is None or bool(getattr(spec, "_initializing", False))
