"""Builds or installs the backends that the end-to-end tests need, those once.

    python -m tests.e2e.install [NAME...]

It takes minutes for each the first time.  Run by `.ci/run`, and by whoever wants to run
`pytest tests/e2e`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from tests.e2e.backends import BACKENDS


def main(names: list[str]) -> int:
    """Install the backends called *names*, all without one; return an exit code."""
    unknown = set(names) - {each.name for each in BACKENDS}
    if unknown:
        known = ", ".join(each.name for each in BACKENDS)
        print(f"there is no backend {', '.join(unknown)}, but {known}", file=sys.stderr)
        return 2
    wanted = [each for each in BACKENDS if not names or each.name in names]
    for number, backend in enumerate(wanted, start=1):
        what = f"[{number}/{len(wanted)}] {backend.name} {backend.version}"
        if backend.is_there:
            print(f"{what}: there, {backend.folder}", flush=True)
            continue
        print(f"{what}: is being built, which may take minutes", flush=True)
        began = time.monotonic()
        try:
            backend.install()
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{what}: failed: {error}", file=sys.stderr)
            return 1
        print(f"{what}: {time.monotonic() - began:.0f} s, {backend.folder}", flush=True)
    return 0


def _end(signum: int, _frame: object) -> None:
    """End as if it had failed, so that no half of a build is left in the cache."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
