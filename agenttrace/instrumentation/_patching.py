"""Puts wrappers into libraries, and takes them out again exactly as they were.

What is to be wrapped is a table of `Patch`es, and of `Swap`s for what is no function;
an `Instrumentor` is the table of one distribution and its state.  Nothing is imported
here: a module that is not loaded yet is patched when the application imports it, and
one that another thread is importing when that is done.

Taking out restores the very object that was there.  Where another tool has since put
its own wrapper on top, restoring would take that one out too: then ours stays where it
is and lets everything pass, and is switched on again by the next `install`.  So does
a stand-in that the library still has something of.

A library that looks different from what was expected is left alone, with one warning.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import wrapt

from agenttrace import safety
from agenttrace.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

Wrapper = Callable[
    [Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]],
    Any,
]
"""Called in place of a function with it, its `self`, its arguments; as wrapt has it."""


class Patch(NamedTuple):
    """One function of a library and what is to be called in its place.

    Args:
        module: The module it is in, by its full name.
        attribute: Where in the module, as in `Class.method`.
        wrapper: What is called in its place.
    """

    module: str
    attribute: str
    wrapper: Wrapper

    def made(self, original: Any, is_on: Callable[[], bool]) -> Any:  # noqa: ANN401 - any function
        """Return what takes the place of *original*."""
        return wrapt.FunctionWrapper(original, self.wrapper, is_on)

    def may_go(self, _: object) -> bool:
        """Return whether what took its place can be taken out now."""
        return True


class Swap(NamedTuple):
    """One object of a library that is no function, and what makes its stand-in.

    Args:
        module: The module it is in, by its full name.
        attribute: Where in the module.
        make: Given the object, and what tells whether the instrumentation is on;
            returns the stand-in, whose `in_use` tells whether it cannot go yet.
    """

    module: str
    attribute: str
    make: Callable[[Any, Callable[[], bool]], Any]

    def made(self, original: Any, is_on: Callable[[], bool]) -> Any:  # noqa: ANN401 - any object
        """Return what takes the place of *original*."""
        return self.make(original, is_on)

    def may_go(self, standin: Any) -> bool:  # noqa: ANN401 - what `make` returned
        """Return whether the stand-in can be taken out now."""
        return not standin.in_use


class _Applied(NamedTuple):
    """A patch that is in place: enough to undo it."""

    parent: Any
    name: str
    wrapper: Any
    original: Any
    inherited: bool


class Instrumentor:
    """Makes one distribution traceable, and undoes it.

    Args:
        distribution: Its name on the package index.
        patches: What to wrap, and what to exchange.
        majors: The major versions that the patches are written for; None = any.
        landmark: A file in the package by which it is told from an application's own
            package of the same name, which is left alone; None where no one has such.
    """

    def __init__(
        self,
        distribution: str,
        patches: tuple[Patch | Swap, ...],
        majors: range | None = None,
        landmark: str | None = None,
    ) -> None:
        self.distribution = distribution
        self.patches = patches
        self._majors = majors
        self._landmark = landmark
        self._on = False
        self._hooked: set[str] = set()
        self._applied: dict[Patch | Swap, _Applied] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Instrumentor {self.distribution}: {'on' if self._on else 'off'}>"

    def install(self) -> None:
        """Patch what is loaded, now, and what is not, when it is.  Twice is once."""
        with self._lock:
            self._on = True
            modules = {patch.module for patch in self.patches}
            new = modules - self._hooked
            self._hooked |= new
        _wait_for(modules)
        for name in modules - new:
            if name in sys.modules:
                self._loaded(sys.modules[name])
        # Outside the lock: the import machinery calls us back holding its own.
        for name in new:
            wrapt.register_post_import_hook(self._loaded, name)

    def remove(self) -> None:
        """Put everything back as it was, or let it pass where that cannot be."""
        with self._lock:
            self._on = False
            for patch, applied in list(self._applied.items()):
                if _is_in_place(applied) and patch.may_go(applied.wrapper):
                    _restore(applied)
                    del self._applied[patch]

    def is_on(self) -> bool:
        """Return whether the wrappers do anything.  They ask this at every call."""
        return self._on

    def _loaded(self, module: ModuleType) -> None:
        """Patch *module*.  Runs inside the application's import statement."""
        if self._on:
            safety.guarded(f"instrument {self.distribution}", self._patch, module)

    def _patch(self, module: ModuleType) -> None:
        if not self._is_meant(module) or not self._is_supported():
            return
        with self._lock:
            for patch in self.patches:
                if patch.module == module.__name__:
                    self._apply(patch, module)

    def _apply(self, patch: Patch | Swap, module: ModuleType) -> None:
        applied = self._applied.get(patch)
        if applied is not None and _is_reached(applied):
            return
        path, _, name = patch.attribute.rpartition(".")
        parent: Any = module
        for step in filter(None, path.split(".")):
            parent = getattr(parent, step, None)
        original = getattr(parent, name, None)
        if original is None:
            safety.log_once(
                f"instrument {patch.module}.{patch.attribute}",
                logging.WARNING,
                "%s has no %s.%s in this version; what goes through it is not traced",
                self.distribution,
                patch.module,
                patch.attribute,
            )
            return
        own = _own(parent)
        inherited = name not in own
        if not inherited:
            # Not what `getattr` makes of it: a static method must stay one.
            original = own[name]
        wrapper = patch.made(original, self.is_on)
        setattr(parent, name, wrapper)
        self._applied[patch] = _Applied(parent, name, wrapper, original, inherited)

    def _is_meant(self, module: ModuleType) -> bool:
        if self._landmark is None:
            return True
        package = sys.modules.get(module.__name__.partition(".")[0])
        folder = os.path.dirname(str(getattr(package, "__file__", None)))  # noqa: PTH120 - `pathlib` is slow
        return os.path.exists(os.path.join(folder, self._landmark))  # noqa: PTH110, PTH118 - the same

    def _is_supported(self) -> bool:
        if self._majors is None:
            return True
        version = self._version()
        major = version.partition(".")[0]
        if major.isdigit() and int(major) in self._majors:
            return True
        safety.log_once(
            f"instrument {self.distribution}: version",
            logging.WARNING,
            "%s %s is not traced: agenttrace supports versions %d to %d",
            self.distribution,
            version,
            self._majors.start,
            self._majors.stop - 1,
        )
        return False

    def _version(self) -> str:
        # Of the package itself where it says: to read metadata takes milliseconds.
        package = sys.modules.get(self.patches[0].module.partition(".")[0])
        version = getattr(package, "__version__", None)
        if isinstance(version, str):
            return version
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"


def _wait_for(names: Iterable[str]) -> None:
    """Wait for those of *names* that other threads import: there is half of each yet.

    Not for long: where this process was forked meanwhile, nobody goes on with them.
    """
    deadline = time.monotonic() + _PATIENCE
    for name in names:
        while _is_underway(sys.modules.get(name)) and time.monotonic() < deadline:
            time.sleep(_MOMENT)


def _is_underway(module: ModuleType | None) -> bool:
    """Return whether *module* is being imported, and not by who asks."""
    spec = getattr(module, "__spec__", None)
    return getattr(spec, "_initializing", False) and not any(
        frame.f_code.co_name == _LOADS and frame.f_locals.get("spec") is spec
        for frame, _ in traceback.walk_stack(None)
    )


def _is_in_place(applied: _Applied) -> bool:
    return _own(applied.parent).get(applied.name) is applied.wrapper


def _is_reached(applied: _Applied) -> bool:
    """Return whether calls still pass our wrapper, be it below others."""
    found = _own(applied.parent).get(applied.name)
    for _ in range(_MOST_WRAPPERS):
        if found is None or found is applied.wrapper:
            break
        found = getattr(found, "__wrapped__", None)
    return found is applied.wrapper


def _own(parent: object) -> Mapping[str, Any]:
    return vars(parent)


def _restore(applied: _Applied) -> None:
    if applied.inherited:
        delattr(applied.parent, applied.name)
    else:
        setattr(applied.parent, applied.name, applied.original)


_PATIENCE: Final = 5.0
"""Seconds that a library is given to be imported elsewhere."""
_MOMENT: Final = 0.005
_LOADS: Final = "_load_unlocked"
"""The function of `importlib` that has a `spec` and runs what it is of."""
_MOST_WRAPPERS: Final = 100
"""A chain longer than this goes round in circles."""
