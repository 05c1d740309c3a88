"""The pages on asserting closed spans do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("few_plugins")
DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to/assert-closed-spans.md"
TUTORIAL = DOCS / "tutorial/prove-that-spans-close.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, page: Path = PAGE) -> list[str]:
    """Return the code blocks of *page* in *language*."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
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

    result.assert_outcomes(passed=12, errors=1)
    assert timeless(shown) in timeless(result.stdout.str())


def test_the_tutorials_agent_breaks_the_promises_that_are_shown(
    pytester: pytest.Pytester,
) -> None:
    """Whoever follows it has to see what the page says."""
    desk, ordinary, failing, *_ = blocks("python", TUTORIAL)
    (shown,) = blocks("text", TUTORIAL)
    pytester.makepyfile(desk=desk, test_desk=f"{ordinary}\n\n{failing}")

    result = pytester.runpytest_subprocess(
        "-p", "agenttrace.pytest_plugin", "-p", "no:randomly", "-Wdefault"
    )

    result.assert_outcomes(passed=1, failed=1)
    said = [re.sub(r"^E {7}(AssertionError: )?", "", line) for line in result.outlines]
    wanted = [line.rstrip() for line in shown.splitlines()]
    begin = said.index(wanted[0])
    found = [line.rstrip() for line in said[begin : begin + len(wanted)]]
    assert found == wanted
