"""What every test of agenttrace takes for granted.

A test that finds an endpoint, a setting or a state directory of the machine it runs on
is a test of that machine; so the environment is emptied of them before anything is
imported.  Fixtures that users get as well live in `agenttrace.pytest_plugin`.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import warnings
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = "AGENTTRACE_BACKENDS"  # where the servers of `tests/e2e` are
for _name in [name for name in os.environ if name.startswith(("OTEL_", "AGENTTRACE_"))]:
    if _name != _KEPT:
        del os.environ[_name]

# The plugin by name too: a checkout that is not installed has no entry points.
pytest_plugins = [
    "agenttrace.pytest_plugin",
    "pytester",
    "tests.checks.results",
    "tests.context.table",
]

# What the guard swallows in an application is an error here.
os.environ["AGENTTRACE_STRICT"] = "1"

# Loops are blocked by whatever is imported inside of them, on a slow machine for long:
# no test is to find a span more for that.  Those that are about it say so.
os.environ["AGENTTRACE_LOOP_BLOCKED_AFTER"] = "inf"

# So does whatever is open for ten seconds there, which is told by a span of its own.
os.environ["AGENTTRACE_VISIBLE_AFTER"] = "inf"

# Where a test gives an endpoint, it is about spans.  Those about metrics say so.
os.environ["OTEL_METRICS_EXPORTER"] = "none"


def _not_ignored(_signum: int, _frame: object) -> None:
    """Do nothing, which the programs that are started do not inherit."""


# What starts this may have it ignore Ctrl-C (a shell, in the background) or a hang-up
# (nohup), and so would every program that a test starts to interrupt it.  What is
# handled here is not ignored there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, _not_ignored)

# The lowest uvicorn imports what is deprecated in the websockets that the Agents SDK
# needs: here, and not in the middle of a test that listens for warnings.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("uvicorn.protocols.websockets.auto")

# No deadlines: on two shared cores they measure the neighbours.  `few` is for the
# interpreters that come second, `many` for whoever looks for something; they are asked
# for with --hypothesis-profile=few.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=50
)
hypothesis.settings.register_profile(
    "few", deadline=None, derandomize=True, max_examples=15
)
hypothesis.settings.register_profile("many", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _a_state_directory_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Give each test an empty state directory, which its subprocesses inherit.

    Otherwise a test would recover the orphans that another one left behind.
    """
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTTRACE_STATE_DIR", str(directory))
        yield


@pytest.fixture(autouse=True)
def _a_runtime_that_others_can_use() -> Iterator[None]:
    """See to it that no test leaves one to the next that traces nothing or elsewhere.

    `agenttrace.testing.fresh_runtime` puts back what was there.
    """
    from agenttrace.runtime import core  # noqa: PLC0415 - after the environment

    before = core.current()
    yield
    left = core.current()
    if left is not None and left is not before:
        assert left.status().mode == "own"


@pytest.fixture
def few_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each session of pytest that the test starts load these plugins alone.

    All that are installed here take four times as long to load as the session takes.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv(
        "PYTEST_PLUGINS", "anyio.pytest_plugin,pytest_asyncio.plugin,xdist.plugin"
    )


def pytest_xdist_auto_num_workers() -> int:
    """Run twice as many tests at a time as there are processors, and at most eight.

    Most of their time they wait: for programs that start, servers that answer, clocks.
    """
    return min(2 * (os.cpu_count() or 1), 8)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what all the tests have imported together.

    Hundreds of tests collect, and each collection would read hundreds of megabytes
    that are there to stay: half of the time of `tests/context`.
    """
    gc.collect()
    gc.freeze()
