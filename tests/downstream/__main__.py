"""Suites of instrumented libraries, with and without us: `python -m tests.downstream`.

For each library: its source distribution is downloaded, at the version of
`constraints.lock`, and installed with what its tests import; they are run as they are,
then once more with agenttrace loaded.  No test may become another result, and no
warning may come up.  Where something differs, the suite is run again both ways, as it
was, since a test may need the others to go wrong: what varies without us is not our
doing, and all else is.

What a suite needs and cannot have here (openai's mock server, services of others) fails
or is left out both times alike, and is told as such.  Exit status 1 if something
differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.downstream.comparing import Difference, Ran, difference

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
_LONGEST: Final = 3600
"""Seconds that one run of a suite may take."""


class Suite(NamedTuple):
    """A library whose tests are run.

    Args:
        extras: Of the library itself.
        beside: What its tests import, and its extras do not bring.
        options: For pytest.
    """

    extras: tuple[str, ...]
    beside: tuple[str, ...]
    options: tuple[str, ...] = ()


SUITES: Final = {
    "openai": Suite(
        ("aiohttp", "datalib"),
        (
            *("azure-identity", "botocore", "httpx", "inline-snapshot", "Pillow"),
            *("pytest", "pytest-asyncio", "pytest-xdist", "requests", "rich", "trio"),
            "websockets",
        ),
        # The first ask a mock server that npm installs; the second is about the tools
        # of the library's own repository.
        ("--ignore=tests/api_resources", "--ignore=tests/test_uv_workflows.py"),
    ),
    "openai-agents": Suite(
        ("encrypt", "litellm", "realtime", "redis", "sqlalchemy", "viz", "voice"),
        (
            *("aiohttp", "aiosqlite", "eval-type-backport", "fakeredis", "fastapi"),
            *("graphviz", "grpcio", "inline-snapshot", "pymongo", "pytest"),
            *("pytest-asyncio", "pytest-mock", "pytest-xdist", "rich", "textual"),
            *("twilio", "websockets"),
        ),
        # They ask that a trace or span which is finished in another context raises:
        # that it does not is what agenttrace is for.
        tuple(
            f"--deselect=tests/tracing/{file}.py::"
            "test_explicit_finish_from_another_context_still_raises"
            for file in ("test_spans_impl", "test_traces_impl")
        ),
    ),
}


class Workplace:
    """An environment, the source of a library, and its tests.

    Args:
        name: Of the library.
        folder: Where all of it is.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.suite = SUITES[name]
        self.folder = folder
        self.python = folder / "venv/bin/python"
        self.plugins = folder / "plugins"
        venv.create(folder / "venv", with_pip=True)
        self.plugins.mkdir()
        shutil.copy(
            Path(__file__).with_name("plugin.py"),
            self.plugins / "agenttrace_downstream.py",
        )
        self.source = self._unpacked(name)

    def install(self, *packages: str | Path) -> None:
        """Install *packages*, the newest there are."""
        self._pip("install", *packages)

    def _pip(self, *arguments: str | Path) -> None:
        kept = {key: it for key, it in os.environ.items() if key != "PIP_CONSTRAINT"}
        subprocess.run(
            [self.python, "-m", "pip", "--quiet", *arguments],
            env=kept,
            check=True,
            timeout=_LONGEST,
        )

    def run(self, *arguments: str, traced: bool) -> Ran:
        """Run the suite, or the tests that *arguments* name."""
        results = self.folder / "results.json"
        results.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "AGENTTRACE_STATE_DIR": str(self.folder / "state"),
            "DOWNSTREAM_RESULTS": str(results),
            "PYTHONPATH": str(self.plugins),
        }
        if traced:
            environment["DOWNSTREAM_TRACED"] = "1"
        done = subprocess.run(
            [
                *(self.python, "-m", "pytest", "-q", "-n2"),
                *("-p", "agenttrace_downstream", *self.suite.options, *arguments),
            ],
            cwd=self.source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST,
        )
        if not results.exists():
            message = f"the session came to no end:\n{done.stdout}{done.stderr}"
            raise RuntimeError(message)
        ran: Ran = json.loads(results.read_text())
        return ran

    def compare(self, only: Sequence[str]) -> Difference:
        """Run the suite, or the files *only*, without agenttrace and with it."""
        extras = f"[{','.join(self.suite.extras)}]"
        _tell("it is installed with what its tests import")
        self.install(f"{self.source}{extras}", *self.suite.beside)
        _tell("its tests without agenttrace")
        without = [self.run(*only, traced=False)]
        self.install(ROOT)
        _tell(f"the same {len(without[0]['tests'])} tests with it")
        traced = [self.run(*only, traced=True)]
        found = difference(without, traced)
        if found.is_none:
            return found
        _tell(f"{len(found.changed)} of them differ: all again, with it and without")
        traced.append(self.run(*only, traced=True))
        self._pip("uninstall", "--yes", "agenttrace-otel")
        without.append(self.run(*only, traced=False))
        return difference(without, traced)

    def _unpacked(self, name: str) -> Path:
        lock = (ROOT / "constraints.lock").read_text()
        pin = re.search(rf"^{re.escape(name)}==[^\s;]+", lock, re.MULTILINE)
        wanted = name if pin is None else pin[0]
        _tell(f"{wanted}: its source is downloaded")
        subprocess.run(
            [
                *(self.python, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary", name, "--dest", self.folder, wanted),
            ],
            check=True,
            timeout=_LONGEST,
        )
        (archive,) = self.folder.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(self.folder / "source", filter="data")
        (source,) = (self.folder / "source").iterdir()
        return source


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites that *arguments* name; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.downstream",
        description="Run the tests of instrumented libraries with and without us.",
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SUITES)}; none: all")
    parser.add_argument("--json", action="store_true", help="print what was found so")
    parser.add_argument(
        "--only",
        metavar="PATH",
        action="append",
        default=[],
        help="run these files of a suite alone; may be repeated",
    )
    said = parser.parse_args(arguments)
    names = said.names or list(SUITES)
    if unknown := [name for name in names if name not in SUITES]:
        parser.error(f"there is no {unknown[0]!r}: it is one of {', '.join(SUITES)}")
    found: dict[str, Difference] = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="agenttrace-downstream-") as folder:
            found[name] = Workplace(name, Path(folder)).compare(said.only)
    if said.json:
        print(json.dumps({name: it.as_json() for name, it in found.items()}, indent=1))
    else:
        for name, each in found.items():
            _summary(name, each)
    return 0 if all(each.is_none for each in found.values()) else 1


def _summary(name: str, found: Difference) -> None:
    counts = ", ".join(f"{many} {word}" for word, many in sorted(found.counts.items()))
    print(f"{name}: {counts} without agenttrace")
    for test, (before, after) in found.changed.items():
        print(f"  {before} without, {after} with: {test}")
    for warning in found.warnings:
        print(f"  a warning that is new: {warning}")
    if found.is_none:
        print("  the same with it, and no warning more")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
