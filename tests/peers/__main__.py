"""The conformance kit over other instrumentations of openai: `python -m tests.peers`.

Each gets an environment of its own, with the newest version there is.  What is found
is printed as the tables of `docs/reference/conformance.md`; `--write` puts them there.
`--json` prints all that was found.  An instrumentation that cannot be installed, or
does not get to its end, has the reason in its row; the exit status is 0 all the same:
these are facts about others, and no test.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.peers import tables
from tests.peers.subject import PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/reference/conformance.md"
_BESIDE: Final = (
    "h11",  # the model server reads HTTP with it
    "httpx",  # older instrumentations import it; newer clients do not bring it
)
_LONGEST: Final = 600
"""Seconds that one instrumentation may take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine what *arguments* name, and print or write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.peers",
        description="Run the conformance kit over instrumentations of openai.",
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PEERS)}; none: all")
    parser.add_argument("--json", action="store_true", help="print all that was found")
    parser.add_argument("--write", action="store_true", help="write the tables to docs")
    said = parser.parse_args(arguments)
    names = said.names or list(PEERS)
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"there is no {unknown[0]!r}: it is one of {', '.join(PEERS)}")
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(names, 1):
        sys.stderr.write(f"{number} of {len(names)}: {PEERS[name].title}\n")
        with tempfile.TemporaryDirectory(prefix="agenttrace-peer-") as folder:
            found[name] = examined(name, Path(folder))
    if said.json:
        print(json.dumps(found, indent=1))
        return 0
    made = tables.page_part(found, dt.datetime.now(dt.UTC).date())
    if said.write:
        PAGE.write_text(tables.with_part(PAGE.read_text(), made))
    else:
        print(made)
    return 0


def examined(name: str, folder: Path) -> dict[str, Any]:
    """Return what is found of one of them, or why nothing could be."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        ROOT,
        *_BESIDE,
    ]
    if name != "agenttrace":
        install.append(PEERS[name].package)
    # Not the checks' constraints: it is the newest that is asked about.
    environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
    environment |= {
        "AGENTTRACE_STATE_DIR": str(folder / "state"),
        "PYTHONPATH": str(ROOT),
    }
    try:
        subprocess.run(install, env=environment, check=True, timeout=_LONGEST)
        done = subprocess.run(
            [python, "-m", "tests.peers.subject", name],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=_LONGEST,
        )
    except subprocess.CalledProcessError as error:
        *_, last = (error.stderr or "it cannot be installed").strip().splitlines()
        return {"failed": last}
    except subprocess.TimeoutExpired:
        return {"failed": f"it had not come to its end after {_LONGEST} s"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
