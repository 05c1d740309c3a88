"""Patches go in when a library is there, and come out without a trace."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import wrapt
from openai._base_client import AsyncAPIClient, SyncAPIClient
from openai._streaming import AsyncStream, Stream

import agenttrace
from agenttrace import UnknownInstrumentationError, safety
from agenttrace.instrumentation import _patching
from agenttrace.instrumentation._patching import Instrumentor, Patch
from agenttrace.instrumentation.openai import INSTRUMENTOR
from agenttrace.testing import fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLACES = (
    (SyncAPIClient, "request"),
    (AsyncAPIClient, "request"),
    (Stream, "__init__"),
    (AsyncStream, "__init__"),
)


def found() -> list[object]:
    """Return the very objects that stand in the library now."""
    return [vars(cls)[name] for cls, name in PLACES]


def passed_on(
    wrapped: Any,  # noqa: ANN401 - any function
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - what it returns
    """Be a wrapper that does nothing."""
    return wrapped(*args, **kwargs)


@pytest.fixture(autouse=True)
def _out_again() -> Iterator[None]:
    """Leave the libraries as they were."""
    yield
    agenttrace.uninstrument()


def test_uninstrument_puts_the_very_objects_back() -> None:
    """Something like them would not do: others compare and patch them too."""
    before = found()
    agenttrace.instrument("openai")
    between = found()
    agenttrace.uninstrument("openai")

    assert all(one is not other for one, other in zip(before, between, strict=True))
    assert all(one is other for one, other in zip(before, found(), strict=True))


def test_instrument_twice_is_once() -> None:
    """An application and its test suite both do it."""
    agenttrace.instrument("openai")
    first = found()
    agenttrace.instrument()

    assert all(one is other for one, other in zip(first, found(), strict=True))


def test_a_patch_below_anothers_stays_and_does_nothing() -> None:
    """Restoring what was there would take the other tool's patch out too."""
    calls: list[str] = []
    instrumentor, library = instrumented(calls)

    def outer(
        wrapped: Callable[..., Any],
        _: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - a wrapper of wrapt's
        calls.append("theirs")
        return wrapped(*args, **kwargs)

    theirs = wrapt.FunctionWrapper(library.work, outer)
    library.work = theirs
    instrumentor.remove()
    library.work()
    after_removal = calls.copy()
    instrumentor.install()
    library.work()

    assert after_removal == ["theirs"]
    assert calls == ["theirs", "theirs", "ours"]
    assert library.work is theirs


def test_a_patch_that_another_tool_threw_out_is_made_again() -> None:
    """It restored what it had found, which was before us."""
    calls: list[str] = []
    instrumentor, library = instrumented(calls)
    library.work = lambda: None

    library.work()
    instrumentor.install()
    library.work()

    assert calls == ["ours"]


def test_what_is_inherited_is_not_left_in_the_subclass() -> None:
    """Putting the inherited function there would hide a later change of the base."""

    class Base:
        def work(self) -> str:
            return "done"

    class Derived(Base):
        pass

    library: Any = type(sys)("a_library")
    library.Derived = Derived
    sys.modules["a_library"] = library
    instrumentor = Instrumentor(
        "a-library",
        (Patch("a_library", "Derived.work", passed_on),),
    )
    instrumentor.install()
    patched = "work" in vars(Derived)
    instrumentor.remove()
    del sys.modules["a_library"]

    assert patched
    assert "work" not in vars(Derived)


def instrumented(calls: list[str]) -> tuple[Instrumentor, Any]:
    """Return a library with a patched function, and what patched it."""
    library: Any = type(sys)("a_library")
    library.work = lambda: None
    sys.modules["a_library"] = library

    def ours(
        wrapped: Callable[..., Any],
        _: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - a wrapper of wrapt's
        calls.append("ours")
        return wrapped(*args, **kwargs)

    instrumentor = Instrumentor("a-library", (Patch("a_library", "work", ours),))
    instrumentor.install()
    return instrumentor, library


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    """And nothing is patched half way."""
    before = found()

    with pytest.raises(UnknownInstrumentationError, match=r"'opneai'.*'openai'"):
        agenttrace.instrument("openai", "opneai")

    assert all(one is other for one, other in zip(before, found(), strict=True))


def test_a_disabled_runtime_patches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither configured nor by environment, which may be read before `configure`."""
    before = found()

    with fresh_runtime(disabled=True):
        agenttrace.instrument("openai")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    agenttrace.instrument("openai")

    assert all(one is other for one, other in zip(before, found(), strict=True))


@pytest.mark.parametrize("majors", [range(2), range(99, 100)])
def test_an_unsupported_version_is_left_alone_with_one_warning(
    majors: range, caplog: pytest.LogCaptureFixture
) -> None:
    """Patches made for another version would break the application."""
    safety.reset_for_tests()
    before = found()
    instrumentor = Instrumentor("openai", INSTRUMENTOR.patches, majors=majors)

    with caplog.at_level(logging.WARNING, "agenttrace"):
        instrumentor.install()
        instrumentor.install()
    instrumentor.remove()

    assert len(caplog.records) == 1
    assert "is not traced: agenttrace supports versions" in caplog.text
    assert all(one is other for one, other in zip(before, found(), strict=True))


def test_a_place_that_is_no_longer_there_is_passed_over_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A private name may go in a minor release: the application must not."""
    safety.reset_for_tests()
    gone = Patch("openai._base_client", "SyncAPIClient.gone", passed_on)
    instrumentor = Instrumentor("openai", (gone,))

    with caplog.at_level(logging.WARNING, "agenttrace"):
        instrumentor.install()
    instrumentor.remove()

    assert "openai has no openai._base_client.SyncAPIClient.gone" in caplog.text


def in_a_new_process(program: str) -> str:
    """Return what *program* prints in a process that has imported nothing."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def test_instrument_imports_no_library() -> None:
    """It would cost a second, for a library that may never be used."""
    printed = in_a_new_process(
        "import sys, agenttrace; agenttrace.instrument();"
        "print({'openai', 'httpx', 'httpx2', 'pydantic'} & set(sys.modules))"
    )

    assert printed == "set()"


def test_a_library_is_patched_when_it_is_imported() -> None:
    """`instrument` stands at the top of a program; imports come as they come."""
    printed = in_a_new_process(
        "import agenttrace; agenttrace.instrument();"
        "from openai._base_client import SyncAPIClient;"
        "print(type(vars(SyncAPIClient)['request']).__name__)"
    )

    assert printed == "FunctionWrapper"


def test_of_a_library_that_is_never_imported_its_patches_are_not_either() -> None:
    """Each costs every start of a program a part of a millisecond."""
    printed = in_a_new_process(
        "import sys, agenttrace; agenttrace.instrument();"
        "ours = ['agenttrace.instrumentation.' + name"
        "        for name in ('openai', 'django')];"
        "before = set(ours) & set(sys.modules); import openai;"
        "print(before, set(ours) & set(sys.modules))"
    )

    assert printed == "set() {'agenttrace.instrumentation.openai'}"


def test_a_library_is_patched_where_it_was_last_asked_for() -> None:
    """Who waits for its import waits once, however often that is changed."""
    printed = in_a_new_process(
        "import agenttrace; agenttrace.instrument(); agenttrace.uninstrument('openai');"
        "agenttrace.instrument('openai');"
        "from openai._base_client import SyncAPIClient;"
        "request = vars(SyncAPIClient)['request'];"
        "print(type(request).__name__, type(request.__wrapped__).__name__)"
    )

    assert printed == "FunctionWrapper function"


def test_a_library_that_comes_after_uninstrument_is_left_alone() -> None:
    """The import hook cannot be taken back; what it does can."""
    printed = in_a_new_process(
        "import agenttrace; agenttrace.instrument(); agenttrace.uninstrument();"
        "from openai._base_client import SyncAPIClient;"
        "print(type(vars(SyncAPIClient)['request']).__name__)"
    )

    assert printed == "function"


def test_a_library_that_is_not_installed_is_never_missed() -> None:
    """`instrument()` names no library on purpose."""
    printed = in_a_new_process(
        "import sys; sys.modules['openai'] = None;"
        "import agenttrace; agenttrace.instrument(); agenttrace.uninstrument();"
        "print('well')"
    )

    assert printed == "well"


HAPPENS_WHEN_OURS_IS_FOUND = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "agenttrace.instrumentation.openai" and self in sys.meta_path:
            sys.meta_path.remove(self)
            happens()

sys.meta_path.insert(0, Finder())
"""
"""Calls the `happens` of a program when the patches of openai are to be imported."""
KIND_OF_REQUEST = """
from openai._base_client import SyncAPIClient
print(type(vars(SyncAPIClient)["request"]).__name__)
"""


def test_patches_that_could_not_be_imported_are_when_they_are_asked_for_again() -> None:
    """Who has waited for the library waits no more, and must not be taken to."""
    printed = in_a_new_process(
        f"""{HAPPENS_WHEN_OURS_IS_FOUND}
def happens():
    raise MemoryError

import os
os.environ["AGENTTRACE_STRICT"] = "0"
import agenttrace
agenttrace.instrument()
import openai
agenttrace.instrument()
{KIND_OF_REQUEST}"""
    )

    assert printed == "FunctionWrapper"


def test_uninstrument_holds_while_the_patches_are_imported() -> None:
    """It may be said on another thread than the one that imports the library."""
    printed = in_a_new_process(
        f"""{HAPPENS_WHEN_OURS_IS_FOUND}
def happens():
    agenttrace.uninstrument("openai")

import agenttrace
agenttrace.instrument()
{KIND_OF_REQUEST}"""
    )

    assert printed == "function"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_that_is_forked_while_patches_are_imported_has_them_too() -> None:
    """Of an import that its parent has begun, nobody goes on with the other half."""
    printed = in_a_new_process(
        f"""{HAPPENS_WHEN_OURS_IS_FOUND}
import os, threading

def happens():
    is_found.set()
    is_forked.wait(0.5)

is_found, is_forked = threading.Event(), threading.Event()
import agenttrace, openai
instrument = agenttrace.instrument
thread = threading.Thread(target=instrument, args=["openai"])
thread.start()
is_found.wait()
if os.fork():
    is_forked.set()
    thread.join()
    os.wait()
else:
    instrument("openai")
    {KIND_OF_REQUEST.strip().replace(chr(10), "; ")}
"""
    )

    assert printed == "FunctionWrapper"


def test_a_library_that_another_thread_is_importing_is_patched_when_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it has not yet what is to be patched, and is never looked at again."""
    gate: Any = type(sys)("a_gate")
    gate.reached, gate.opened = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "a_gate", gate)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "a_slow_library.py").write_text(
        "import a_gate\na_gate.reached.set()\na_gate.opened.wait()\ndef work(): pass\n"
    )
    instrumentor = Instrumentor(
        "a-slow-library", (Patch("a_slow_library", "work", passed_on),)
    )
    importing = threading.Thread(target=__import__, args=["a_slow_library"])
    importing.start()
    gate.reached.wait()
    opening = threading.Timer(0.2, gate.opened.set)
    opening.start()
    instrumentor.install()
    importing.join()
    library = sys.modules.pop("a_slow_library")

    assert type(library.work) is wrapt.FunctionWrapper


@pytest.mark.parametrize("by", ["its own code", "a hook"])
def test_a_library_that_is_instrumented_from_its_own_import_is_not_waited_for(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for itself."""
    given: Any = type(sys)("an_instrumentor")
    given.it = Instrumentor(
        "a-late-library",
        (
            Patch("a_late_library", "work", passed_on),
            Patch("a_late_library.part", "work", passed_on),
        ),
    )
    monkeypatch.setitem(sys.modules, "an_instrumentor", given)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(_patching, "_MOMENT", None)  # nobody can sleep for that
    package = tmp_path / "a_late_library"
    package.mkdir()
    (package / "part.py").write_text("def work(): pass\n")
    call = "import an_instrumentor\nan_instrumentor.it.install()\n"
    (package / "__init__.py").write_text(
        f"def work(): pass\n{call if by == 'its own code' else ''}from . import part\n"
    )

    def hook(_: object) -> None:
        given.it.install()

    if by == "a hook":
        wrapt.register_post_import_hook(hook, "a_late_library")

    importlib.import_module("a_late_library")
    part, library = map(sys.modules.pop, ("a_late_library.part", "a_late_library"))

    assert type(library.work) is type(part.work) is wrapt.FunctionWrapper
