"""A plugin of pytest for suites that are not ours; it imports nothing of this folder.

It is copied beside a suite, for their tests are called `tests` as well.  It writes what
became of each test, and each warning, to the file that `DOWNSTREAM_RESULTS` names.  If
`DOWNSTREAM_TRACED` is set, it sets agenttrace up as an application does, in every
process that runs tests.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import warnings

if os.environ.get("DOWNSTREAM_TRACED"):
    import agenttrace

    agenttrace.configure(service_name="downstream")
    agenttrace.instrument()

_WORST = ("passed", "skipped", "failed")
_VARIES = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")

_tests: dict[str, str] = {}
_warnings: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's phases."""
    became = _tests.get(report.nodeid, "passed")
    if report.when == "call" or report.outcome != "passed":
        became = max(became, report.outcome, key=_WORST.index)
        _tests[report.nodeid] = became


def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """Keep the text of a warning, without numbers and addresses."""
    kind = warning_message.category.__name__
    _warnings.add(f"{kind}: {_VARIES.sub('#', str(warning_message.message))}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the file, in the process that prints."""
    if not hasattr(session.config, "workerinput"):
        found = {
            "exit": int(exitstatus),
            "tests": _tests,
            "warnings": sorted(_warnings),
        }
        Path(os.environ["DOWNSTREAM_RESULTS"]).write_text(json.dumps(found))
