"""Suites of instrumented libraries, with and without us: `python -m tests.downstream`.

For each library: its source distribution is downloaded, at the version of
`constraints.lock`, and installed with what its tests import; they are run as they are,
then once more with agenttrace loaded.  No test may become another result, and no
warning may come up.  Where something differs, the suite is run again both ways, as it
was, since a test may need the others to go wrong: what varies without us is not our
doing, and all else is.

What is left out of a suite is told with its reason, and `suites` has the list.  What a
test needs and cannot have here (services of others) fails both times alike, and is
told as such.  Exit status 1 if something differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.downstream.comparing import Difference, Ran, difference
from tests.downstream.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

ROOT: Final = Path(__file__).parents[2]
_LONGEST: Final = 7200
"""Seconds that one run of a suite may take."""
_COPIED: Final = {
    "plugin.py": "agenttrace_downstream.py",
    "answering.py": "agenttrace_answering.py",
}
"""What is put beside a suite, whose tests are called `tests` as ours are."""
_PROGRESS: Final = re.compile(r"\[ *(\d+)%\]$")
_STEP: Final = 10
"""Per cent between two lines of progress, where no terminal shows each."""


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
        for ours, theirs in _COPIED.items():
            shutil.copy(Path(__file__).with_name(ours), self.plugins / theirs)
        self.source = self._unpacked(name)
        self.version = self.source.name.rpartition("-")[2]

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
            **self.suite.environment,
            "AGENTTRACE_STATE_DIR": str(self.folder / "state"),
            "DOWNSTREAM_RESULTS": str(results),
            "PYTHONPATH": str(self.plugins),
        }
        if traced:
            environment["DOWNSTREAM_TRACED"] = "1"
        with self._api() as api:
            said = _followed(
                [
                    *(str(self.python), "-u", "-m", "pytest", "-q", "-n2"),
                    *("-p", "agenttrace_downstream", *self.suite.options, *arguments),
                ],
                self.source,
                environment | api,
            )
        if not results.exists():
            message = f"the session came to no end:\n{said}"
            raise RuntimeError(message)
        ran: Ran = json.loads(results.read_text())
        return ran

    @contextlib.contextmanager
    def _api(self) -> Generator[dict[str, str]]:
        """Answer what the tests ask; yield the variable that tells them where."""
        if not self.suite.base_url:
            yield {}
            return
        with subprocess.Popen(
            [self.python, self.plugins / _COPIED["answering.py"]],
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                yield {self.suite.base_url: f"http://127.0.0.1:{port}"}
            finally:
                server.terminate()

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
    told: dict[str, dict[str, object]] = {}
    is_same = True
    for name in names:
        with tempfile.TemporaryDirectory(prefix="agenttrace-downstream-") as folder:
            place = Workplace(name, Path(folder))
            found = place.compare(said.only)
        left_out = place.suite.left_out
        told[name] = {
            "version": place.version,
            "left out": dict(left_out),
            **found.as_json(),
        }
        is_same &= found.is_none
        if not said.json:
            _summary(f"{name} {place.version}", found)
            for path, reason in left_out.items():
                print(f"  left out: {path}: {reason}")
    if said.json:
        print(json.dumps(told, indent=1))
    return 0 if is_same else 1


def _followed(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run *command*, a session of pytest; tell how far it is, return what it said."""
    said: list[str] = []
    shown = 0
    in_place = sys.stderr.isatty()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as session:
        limit = threading.Timer(_LONGEST, session.kill)
        limit.start()
        try:
            for line in session.stdout or ():
                said.append(line)
                if far := _PROGRESS.search(line):
                    done = int(far[1])
                    if in_place:
                        sys.stderr.write(f"\r  {done:3} %")
                    elif done // _STEP > shown // _STEP:
                        sys.stderr.write(f"  {done:3} %\n")
                    shown = done
        finally:
            limit.cancel()
    if in_place and shown:
        sys.stderr.write("\n")
    return "".join(said)


def _summary(name: str, found: Difference) -> None:
    counts = ", ".join(f"{many} {word}" for word, many in sorted(found.counts.items()))
    print(f"{name} on Python {platform.python_version()}: {counts} without agenttrace")
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
