"""What must not stand in any file of the repository."""

from __future__ import annotations

import io
import re
import tokenize
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Written with a character class each, so that this file does not find itself.
LOCAL = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.$}~-])/(?:[r]oot|[h]ome/\w|[U]sers/\w|[w]ork/\w)|\b[C]:\\Users\\"
    ),
    "the host of a package registry": re.compile(
        r"[p]ypi\.org|[p]ythonhosted\.org|registry\.[n]pmjs|[n]pmjs\.(?:org|com)"
        r"|(?:proxy|sum)\.[g]olang\.org|[c]rates\.io"
    ),
    "a choice of package index": re.compile(
        r"--(?:extra-)?[i]ndex-url|[P]IP_(?:EXTRA_)?INDEX_URL|--[t]rusted-host"
    ),
}
EXCUSE = re.compile(
    r"#\s*(?:noqa\b|type:\s*ignore|pyright:\s*\w+|mypy:\s*ignore|pragma:\s*no)"
)
REASONED = re.compile(
    r"#\s*(?:noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*"
    r"|(?:type|pyright|mypy):\s*ignore\[[\w\s,-]+\]"
    r"|pragma:\s*no\s+(?:cover|branch))"
    r"\s*(?:-|#|:)\s.*\w{2,}"
)
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+(?: ; [\w \"'<>=.()]+)?")


def lines_of(file: Path) -> list[str]:
    """Return the lines of *file*, none of a binary one."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def unexplained(source: bytes) -> Iterator[tuple[int, str]]:
    """Yield each comment that silences a tool and says no why, with its line.

    The reason stands in the comment itself, or in one right above the statement; of
    lazy imports several may share it.
    """
    comments = {
        token.start[0]: token
        for token in tokenize.tokenize(io.BytesIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for line, token in comments.items():
        above = (comments.get(line - distance) for distance in range(1, 5))
        explained = any(
            comment and not comment.line[: comment.start[1]].strip()
            for comment in above
        )
        if (
            EXCUSE.search(token.string)
            and not REASONED.search(token.string)
            and not explained
        ):
            yield line, token.string


@pytest.mark.parametrize("what", LOCAL)
def test_nothing_local_is_part_of_the_repository(
    what: str, repo: Path, tracked: list[Path]
) -> None:
    """It works on one machine and tells everybody else about it."""
    found = [
        f"{file.relative_to(repo)}:{number}: {line.strip()}"
        for file in tracked
        for number, line in enumerate(lines_of(file), start=1)
        if LOCAL[what].search(line)
    ]

    assert found == []


def test_every_silenced_tool_is_told_why(repo: Path, tracked: list[Path]) -> None:
    """An exception without a reason is copied; one with a reason is reviewed."""
    found = [
        f"{file.relative_to(repo)}:{number}: {comment}"
        for file in tracked
        if file.suffix == ".py"
        for number, comment in unexplained(file.read_bytes())
    ]

    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        b"x = 1  # noqa: BLE001 - foreign code runs inside",
        b"x = 1  # noqa: PLR0913, FBT001 - the fields of a record",
        b"x = 1  # type: ignore[attr-defined]  # wrapt is untyped",
        b"x = 1  # pyright: ignore[reportPrivateUsage] - the port of it",
        b"# Importing it costs 10 ms.\nimport x  # noqa: PLC0415",
    ],
)
def test_a_reason_is_accepted(source: bytes) -> None:
    """Beside the exception or right above it."""
    assert list(unexplained(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        b"x = 1  # noqa: BLE001",
        b"x = 1  # noqa",
        b"x = 1  # type: ignore",
        b"x = 1  # type: ignore[attr-defined]",
        b"x = 1  # pragma: no cover",
        b"y = 1  # of something else\nx = 1  # noqa: BLE001",
    ],
)
def test_a_missing_reason_is_found(source: bytes) -> None:
    """A check that cannot fail holds no line."""
    assert len(list(unexplained(source))) == 1


def test_the_lock_file_names_versions_and_no_hosts(repo: Path) -> None:
    """Where packages come from is the business of whoever installs them."""
    lines = (repo / "constraints.lock").read_text().splitlines()

    pins = [line for line in lines if line and not line.startswith("#")]

    assert pins
    assert [pin for pin in pins if not PIN.fullmatch(pin)] == []
