"""Prints each system on each version, and fails if a cell is empty.

`python -m tests.checks.systems DIR NAME...`: DIR holds what the sessions wrote about
themselves, one for each NAME; a session that is not there has left its cells empty.
`python -m tests.checks.systems --paths NAME` prints the tests of the systems that have
to be run in that session, for an environment that runs nothing else.

A cell is filled by tests that passed: of each pattern of its row at least one.  What
was skipped has not been proved.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.checks.sessions import CRASHED, FAILED, PASSED, UNSTEADY, read_all

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.checks.sessions import Results

ROOT: Final = Path(__file__).parents[2]

EVERYWHERE: Final = ("first", "lowest", "3.12", "3.13")
"""The sessions that every system is run in unless its row says why not: the lowest
Python with the newest and with the lowest versions, and the other Pythons."""


class System(NamedTuple):
    """A row.

    Args:
        title: Its number and its name.
        patterns: Of the files that prove it, from the top of the checkout.
        elsewhere: What else proves it, in which session.
        missing: Why it is not in one of the sessions named above.
    """

    title: str
    patterns: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[str, ...]] = {}
    missing: Mapping[str, str] = {}

    def wanted(self, session: str) -> tuple[str, ...]:
        """Return the patterns that *session* has to have run."""
        here = session in EVERYWHERE and session not in self.missing
        return (self.patterns if here else ()) + self.elsewhere.get(session, ())


APART: Final = ("systems-3.12", "systems-3.13")
"""The sessions with the systems that pin what others need: the Pythons that all of
them support."""
_PINNED: Final = "agency-swarm pins openai and openai-agents: in `systems-*` alone"
_BESIDE: Final = "run beside agency-swarm, in `systems-*` alone"

SYSTEMS: Final = (
    System(
        "1 OpenAI Agents SDK",
        (
            "tests/instrumentation/test_agents_*.py",
            "tests/testing/test_model_server_agents.py",
        ),
    ),
    System("2 abandoned streamed runs stop", ("tests/web/test_agents_runs.py",)),
    System(
        "3 FastAPI, Starlette",
        ("tests/web/test_asgi.py", "tests/context/test_fastapi.py"),
    ),
    System("4 Django", ("tests/web/test_django.py",)),
    System(
        "5 Agency Swarm, nest_asyncio",
        elsewhere=dict.fromkeys(
            APART, ("tests/systems/*swarm*.py", "tests/systems/*nest*.py")
        ),
        missing={"first": "needs 3.12", "lowest": "needs 3.12"}
        | dict.fromkeys(("3.12", "3.13"), _PINNED),
    ),
    System(
        "6 Agent Framework",
        elsewhere={
            "systems-3.12": ("tests/systems/*framework*.py",),
            # Set-up and background responses are the same on every Python.
            "systems-3.13": (
                "tests/systems/test_agent_framework.py",
                "tests/systems/*framework_sessions.py",
            ),
        },
        missing=dict.fromkeys(EVERYWHERE, _BESIDE),
    ),
    System(
        "7 background asyncio work",
        ("tests/background/*.py", "tests/instrumentation/test_openai_tasks.py"),
    ),
    System(
        "8 threads, processes, queues",
        (
            "tests/instrumentation/test_threading.py",
            "tests/context/test_interleavings.py",
            "tests/core/test_forks.py",
            "tests/spans/test_attached_processes.py",
        ),
    ),
    System(
        "8 other OTel instrumentations",
        (
            "tests/spans/test_adopted.py",
            "tests/spans/test_attached.py",
            "tests/spans/test_provider_with_others.py",
        ),
        elsewhere={"beside": ("tests/coexistence/*.py",)},
    ),
    System("9 agenttrace run", ("tests/cli/test_run*.py",)),
)


def cell(system: System, session: str, results: Results | None) -> tuple[str, str]:
    """Return the word in a cell, and why there is not more in it.

    The word is `EMPTY` if that is a reason to fail.
    """
    wanted = system.wanted(session)
    if not wanted:
        return "-", system.missing.get(session, "")
    if results is None:
        return "EMPTY", "the session was not run"
    passed = 0
    for pattern in wanted:
        became = [
            word
            for name, word in results["tests"].items()
            if fnmatch(name.partition("::")[0], pattern)
        ]
        if FAILED in became or CRASHED in became:
            return "FAILED", pattern
        good = sum(word in (PASSED, UNSTEADY) for word in became)
        if not good:
            return "EMPTY", f"none of {len(became)} tests passed in {pattern}"
        passed += good
    return f"ok {passed}", ""


def table(sessions: Mapping[str, Results], names: Sequence[str]) -> list[str]:
    """Return the lines of the table that has the sessions *names* for columns."""
    first = max(len(system.title) for system in SYSTEMS) + 2
    width = max((10, *(len(name) + 2 for name in names)))
    lines = [" " * first + "".join(f"{name:>{width}}" for name in names)]
    for library in ("python", "openai", "openai-agents", "opentelemetry-sdk"):
        versions = (_version(sessions.get(name), library) for name in names)
        lines.append(
            library.ljust(first) + "".join(f"{it:>{width}}" for it in versions)
        )
    notes: list[str] = []
    for system in SYSTEMS:
        cells = [(name, *cell(system, name, sessions.get(name))) for name in names]
        words = "".join(f"{word:>{width}}" for _, word, _ in cells)
        lines.append(f"{system.title} ".ljust(first, ".") + words)
        notes += [
            f"{word}: {system.title} on {name}: {why}"
            for name, word, why in cells
            if why
        ]
    return lines + notes


def is_complete(sessions: Mapping[str, Results], names: Sequence[str]) -> bool:
    """Tell whether no cell is empty and none failed."""
    return all(
        cell(system, name, sessions.get(name))[0] not in ("EMPTY", "FAILED")
        for system in SYSTEMS
        for name in names
    )


def paths(session: str, root: Path = ROOT) -> list[str]:
    """Return the test files that *session* has to run, from the top of the checkout."""
    found: Collection[Path] = {
        file
        for system in SYSTEMS
        for pattern in system.wanted(session)
        for file in root.glob(pattern)
        if file.name.startswith("test_")
    }
    return sorted(str(file.relative_to(root)) for file in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what *arguments* ask for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.checks.systems",
        description="Print each system on each version; fail if a cell is empty.",
    )
    parser.add_argument("--paths", metavar="NAME", help="print that session's tests")
    parser.add_argument("folder", type=Path, nargs="?", help="what the sessions wrote")
    parser.add_argument("names", nargs="*", help="the sessions that were to be run")
    said = parser.parse_args(arguments)
    if said.paths:
        sys.stdout.write("\n".join(paths(said.paths)) + "\n")
        return 0
    sessions = read_all(said.folder)
    sys.stdout.write("\n".join(table(sessions, said.names)) + "\n")
    return 0 if is_complete(sessions, said.names) else 1


def _version(results: Results | None, library: str) -> str:
    if results is None:
        return "-"
    if library == "python":
        return results["python"]
    return results["versions"].get(library, "-")


if __name__ == "__main__":
    sys.exit(main())
