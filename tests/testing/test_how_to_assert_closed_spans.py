"""The page on asserting closed spans does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs/how-to/assert-closed-spans.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the page's code blocks in *language*."""
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return [text for said, text in found if said == language]


def timeless(text: str) -> str:
    """Return *text* without what differs from run to run."""
    return re.sub(r"open for \d+ ms|(?<=test_desk\.py):\d+", "", text)


def test_every_block_of_the_page_runs_and_the_last_one_fails_as_shown(
    pytester: pytest.Pytester,
) -> None:
    """It is copied before it is read."""
    desk, conftest, *tests = blocks("python")
    (settings,) = blocks("toml")
    (shown,) = blocks("text")
    pytester.makepyfile(desk=desk, conftest=conftest, test_desk="\n\n".join(tests))
    pytester.makepyprojecttoml(settings)

    result = pytester.runpytest_subprocess(
        "-p", "agenttrace.pytest_plugin", "-p", "no:randomly", "-Wdefault"
    )

    result.assert_outcomes(passed=7, errors=1)
    assert timeless(shown) in timeless(result.stdout.str())
