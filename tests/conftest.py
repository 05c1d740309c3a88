"""What every test of agenttrace takes for granted.

A test that finds an endpoint, a setting or a state directory of the machine it runs on
is a test of that machine; so the environment is emptied of them before anything is
imported.  Fixtures that users get as well live in `agenttrace.pytest_plugin`.
"""

from __future__ import annotations

import gc
import os
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
pytest_plugins = ["agenttrace.pytest_plugin", "pytester", "tests.context.table"]

# What the guard swallows in an application is an error here.
os.environ["AGENTTRACE_STRICT"] = "1"

# Loops are blocked by whatever is imported inside of them, on a slow machine for long:
# no test is to find a span more for that.  Those that are about it say so.
os.environ["AGENTTRACE_LOOP_BLOCKED_AFTER"] = "inf"

# Where a test gives an endpoint, it is about spans.  Those about metrics say so.
os.environ["OTEL_METRICS_EXPORTER"] = "none"

# No deadlines: on two shared cores they measure the neighbours.  `few` is for the
# interpreters that come second; asked for with --hypothesis-profile=few.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile(
    "few", deadline=None, derandomize=True, max_examples=15
)
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


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what all the tests have imported together.

    Hundreds of tests collect, and each collection would read hundreds of megabytes
    that are there to stay: half of the time of `tests/context`.
    """
    gc.collect()
    gc.freeze()
