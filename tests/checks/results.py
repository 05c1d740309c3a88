"""Writes what became of each test to a file, for whoever reads several suites at once.

`.ci/run` runs tests in several environments.  What is told at its end, tests that were
unsteady and each system on each version, is read from these files, so that nothing is
run twice to be told.  A session writes its file if the variable `TEST_RESULTS` names
one; the process that prints writes it, so that it is complete under xdist.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.checks.sessions import (
    CRASHED,
    FAILED,
    PASSED,
    SKIPPED,
    VARIABLE,
    Results,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Generator

_TOLD: Final = ("openai", "openai-agents", "opentelemetry-sdk")


class _Listener:
    """Keeps the worst that is reported of each test."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tests: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one phase of one test into account."""
        name = report.nodeid
        if report.failed:
            # xdist reports a worker that is gone in the name of the test it ran.
            crashed = report.when not in ("setup", "call", "teardown")
            if self._tests.get(name) != CRASHED:
                self._tests[name] = CRASHED if crashed else FAILED
        elif report.skipped:
            self._tests.setdefault(name, SKIPPED)
            self._reasons[name] = _reason(report)
        elif report.when == "call":
            self._tests.setdefault(name, PASSED)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(
        self, session: pytest.Session
    ) -> Generator[None, object, object]:
        """Write the file, after everybody who may change the exit status."""
        done = yield
        options: Any = session.config.option
        results = Results(
            python=platform.python_version(),
            versions=_versions(),
            exit=int(session.exitstatus),
            seed=getattr(options, "randomly_seed", None),
            options=[
                str(argument)
                for argument in session.config.invocation_params.args
                if str(argument) not in options.file_or_dir
            ],
            tests=self._tests,
            reasons=self._reasons,
        )
        write(self._file, results)
        return done


def pytest_configure(config: pytest.Config) -> None:
    """Listen, if this process is the one that prints and a file is named."""
    name = os.environ.get(VARIABLE)
    if name and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Listener(Path(name)), "agenttrace-results")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", ""))


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _TOLD:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
