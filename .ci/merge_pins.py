"""Merges what `pip freeze` says on several Pythons into one list of constraints.

Called by `.ci/lock` with one file for each Python, named by its version.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path


def merged(frozen: dict[str, list[str]]) -> list[str]:
    """Return each pin once, with the Pythons it holds for where others differ.

    >>> merged({"3.11": ["a==1", "b==1"], "3.12": ["a==1", "b==2"]})
    ['a==1', 'b==1 ; python_version == "3.11"', 'b==2 ; python_version == "3.12"']
    """
    pythons: dict[str, list[str]] = defaultdict(list)
    for version, pins in frozen.items():
        for pin in pins:
            pythons[pin].append(version)
    lines: list[str] = []
    for pin in sorted(pythons, key=str.lower):
        only = [f'python_version == "{version}"' for version in pythons[pin]]
        everywhere = len(only) == len(frozen)
        lines.append(pin if everywhere else f"{pin} ; {' or '.join(only)}")
    return lines


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]]
    found = {file.name: file.read_text().splitlines() for file in files}
    sys.stdout.write("\n".join(merged(found)) + "\n")
