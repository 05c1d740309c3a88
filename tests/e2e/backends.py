"""The real backends that end-to-end tests talk to: where each is, and how it is built.

Each stands in a folder of its own outside of the checkout, and is built once.  The
folder is called `<name>-<version>`, and by a checksum of the files in `modules` that it
is built from: who changes one gets another folder.  What is there is used as it is: a
folder that exists is complete, because it gets its name when the build is over.

    $AGENTTRACE_BACKENDS, else $XDG_CACHE_HOME/agenttrace-backends, else the same
    below ~/.cache

What they are started with is the business of `servers`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES: Final = Path(__file__).parent / "modules"
_BUILD: Final = ("go", "build", "-trimpath", "-ldflags=-s -w")
_BUILDER: Final = "go.opentelemetry.io/collector/cmd/builder@v0.159.0"


@dataclass(frozen=True)
class Backend:
    """A server, or several programs that come together.

    Args:
        name: What it is called.
        version: Its own.
        programs: Paths below its folder, of what can be started.
        build: Makes these in a folder, with a scratch folder.
    """

    name: str
    version: str
    programs: tuple[str, ...]
    build: Callable[[Path, Path], None]

    @property
    def folder(self) -> Path:
        """Where it stands, or is to stand."""
        name = f"{self.name}-{self.version}"
        recipe = recipe_of(MODULES / self.name)
        return _cache() / (f"{name}-{recipe}" if recipe else name)

    @property
    def is_there(self) -> bool:
        """Whether all of its programs are."""
        return all((self.folder / each).is_file() for each in self.programs)

    def program(self, name: str) -> Path:
        """Return the path of the program *name*.

        Raises:
            FileNotFoundError: It is not there; the message says what to do.
        """
        found = self.folder / next(
            each for each in self.programs if Path(each).name == name
        )
        if not found.is_file():
            message = f"{found} is missing: python -m tests.e2e.install {self.name}"
            raise FileNotFoundError(message)
        return found

    def install(self) -> None:
        """Build it, unless it is there.

        Raises:
            subprocess.CalledProcessError: It cannot be built.
        """
        if self.is_there:
            return
        _cache().mkdir(parents=True, exist_ok=True)
        # Beside where it is to stand: it is moved there in one step.
        with tempfile.TemporaryDirectory(dir=_cache(), prefix=".building-") as made:
            target, scratch = Path(made, "target"), Path(made, "scratch")
            target.mkdir()
            scratch.mkdir()
            self.build(target, scratch)
            shutil.rmtree(self.folder, ignore_errors=True)
            target.rename(self.folder)


def recipe_of(folder: Path) -> str:
    """Return a checksum of what stands in *folder*, empty if that is nothing."""
    files = sorted(folder.glob("*"))
    read = b"".join(b"%s\0%s\0" % (it.name.encode(), it.read_bytes()) for it in files)
    return f"{zlib.crc32(read):08x}" if read else ""


def _cache() -> Path:
    said = os.environ.get("AGENTTRACE_BACKENDS")
    if said:
        return Path(said)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "agenttrace-backends"


def _run(*command: str | Path, cwd: Path, **variables: str) -> None:
    env = {**os.environ, "CGO_ENABLED": "0", **variables}
    subprocess.run(command, cwd=cwd, env=env, check=True)


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def plain_environment() -> dict[str, str]:
    """Return our environment without what is said of our own Python.

    One that imports hundreds of modules would compile them anew each time that it
    starts, if it did not find what was compiled when it was installed.
    """
    ours = ("PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _from_modules(name: str, *packages: str) -> Callable[[Path, Path], None]:
    """Return what builds *packages* with the `go.mod` and `go.sum` that we keep."""

    def build(target: Path, scratch: Path) -> None:
        for each in ("go.mod", "go.sum"):
            shutil.copy(MODULES / name / each, scratch)
        _run(*_BUILD, "-o", f"{target}/", *packages, cwd=scratch)

    return build


def _collector(target: Path, scratch: Path) -> None:
    """Have the Collector's own builder write its sources, and compile them."""
    shutil.copy(MODULES / "collector" / "builder.yaml", scratch)
    _run("go", "install", _BUILDER, cwd=scratch, GOBIN=str(scratch))
    builder = scratch / "builder"
    _run(
        builder, "--config", "builder.yaml", "--skip-compilation", cwd=scratch
    )  # it would compile with cgo
    _run(*_BUILD, "-o", target / "otelcol", ".", cwd=scratch / "out")


def _alertmanager(target: Path, scratch: Path) -> None:
    """Unpack Debian's package: installed, it would start a service."""
    download = ("apt-get", "download", "prometheus-alertmanager")
    try:
        _run(*download, cwd=scratch)
    except subprocess.CalledProcessError:  # a new machine has no list of packages
        _run("apt-get", "-qq", "update", cwd=scratch)
        _run(*download, cwd=scratch)
    (package,) = scratch.glob("*.deb")
    _run("dpkg", "-x", package, target, cwd=scratch)


def _phoenix(target: Path, scratch: Path) -> None:
    """Install it in an environment of its own: it brings a hundred packages."""
    # Not movable: scripts and paths of an environment are absolute.  So it is made
    # where it is to stand, and what is moved there is a link to it.
    home = _cache() / f".environment-{PHOENIX.folder.name}"
    _run(sys.executable, "-m", "venv", "--clear", home, cwd=scratch)
    wanted = MODULES / "phoenix" / "requirements.txt"
    _pip_install(home / "bin" / "python", wanted)
    (target / "bin").symlink_to(home / "bin")


def _pip_install(python: Path, wanted: Path) -> None:
    """Install what stands in the file *wanted*, and say how far that is."""
    count = len(wanted.read_text().splitlines())
    # What limits the versions of our own environments has nothing to say here.
    env = {**plain_environment(), "PIP_CONSTRAINT": "", "PIP_QUIET": "0"}
    command = (python, "-m", "pip", "install", "--no-deps", "--requirement", wanted)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as pip:
        found = 0
        for line in pip.stdout or ():
            found += line.startswith("Collecting ")
            if line.startswith("Collecting ") and not found % 25:
                _say(f"  {found} of {count} packages found")
            if line.startswith("Installing "):
                _say(f"  all {count} found, and being unpacked")
    if pip.returncode:
        raise subprocess.CalledProcessError(pip.returncode, command)


JAEGER: Final = Backend(
    "jaeger",
    "2.13",
    ("jaeger",),
    _from_modules("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger"),
)
PROMETHEUS: Final = Backend(
    "prometheus",
    "3.14",
    ("prometheus", "promtool"),
    _from_modules(
        "prometheus",
        "github.com/prometheus/prometheus/cmd/prometheus",
        "github.com/prometheus/prometheus/cmd/promtool",
    ),
)
COLLECTOR: Final = Backend("collector", "0.159", ("otelcol",), _collector)
ALERTMANAGER: Final = Backend(
    "alertmanager", "debian", ("usr/bin/prometheus-alertmanager",), _alertmanager
)
PHOENIX: Final = Backend("phoenix", "20.26", ("bin/phoenix", "bin/python"), _phoenix)
BACKENDS: Final = (ALERTMANAGER, JAEGER, COLLECTOR, PHOENIX, PROMETHEUS)
"""All of them, what is quickly there first."""
