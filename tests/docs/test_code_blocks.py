"""The Python on every page runs, in the order in which it is read."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agenttrace.testing.model_server import ModelServer
from tests.delivery.collector import Collector
from tests.docs.pages import ROOT, blocks, marks, pages, program, run

if TYPE_CHECKING:
    from pathlib import Path

TO_A_BACKEND = {
    "docs/how-to/existing-opentelemetry.md": {"hello"},
    "docs/how-to/send-spans-to-a-backend.md": {"hello", "is anybody there?"},
}
"""Pages for readers who have an endpoint, and the spans that arrive there."""
NEEDS = {"docs/how-to/trace-agent-framework.md": "agent_framework"}
"""Pages on libraries that have an environment of their own, and tests that run them."""


@pytest.mark.parametrize("page", pages())
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """What is copied from a page is the first thing that a reader tries."""
    if page in NEEDS:
        pytest.importorskip(NEEDS[page], reason="it is run by tests/systems")
    with ExitStack() as stack:
        models = stack.enter_context(ModelServer())
        environment = {"OPENAI_BASE_URL": models.base_url, "OPENAI_API_KEY": "unused"}
        collector = None
        if page in TO_A_BACKEND:
            collector = stack.enter_context(Collector())
            endpoint = collector.endpoint.removesuffix("/v1/traces")
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint

        ran = run((ROOT / page).read_text(), tmp_path, **environment)

        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stderr == ""
        if collector is not None:
            assert {span.name for span in collector.spans()} == TO_A_BACKEND[page]


@pytest.mark.parametrize("page", pages())
def test_a_block_that_is_not_run_has_a_reason(page: str) -> None:
    """Without one, the mark is how a block that has broken is made to pass."""
    text = (ROOT / page).read_text()
    found = blocks(text)

    reasons = [block.reason for block in found if block.reason is not None]
    files = [block.file for block in found if block.file is not None]

    assert all(len(reason.split()) > 2 for reason in reasons)
    assert len(reasons) + len(files) == marks(text), "a mark stands above no block"


def test_a_block_that_fails_is_seen_with_its_line(tmp_path: Path) -> None:
    """A check that cannot fail holds no line."""
    page = "# A page\n\n```python\nx = 1\n```\n\nand\n\n```python\nassert x == 2\n```\n"

    ran = run(page, tmp_path)

    assert ran.returncode == 1
    assert "line 10" in ran.stderr


def test_a_test_that_fails_is_seen(tmp_path: Path) -> None:
    """Tests on a page that nobody collects would all pass."""
    ran = run("```python\ndef test_it():\n    assert False\n```\n", tmp_path)

    assert ran.returncode == 1
    assert "1 failed" in ran.stdout


def test_a_block_can_be_a_file_of_its_own(tmp_path: Path) -> None:
    """A page that shows two files is about how they go together."""
    page = (
        "<!-- file: desk.py -->\n```python\nanswer = 42\n```\n\n"
        "```python\nimport desk\n\nassert desk.answer == 42\n```\n"
    )

    ran = run(page, tmp_path)

    assert ran.returncode == 0, ran.stderr


def test_a_block_is_passed_over_with_a_reason_only() -> None:
    """Other languages, and what says why, are not the program."""
    page = (
        "```console\npip\n```\n\n<!-- not run: it is about this mistake -->\n"
        "```python\nwrong(\n```\n\n<!-- something else -->\n```python\nright = 1\n```\n"
    )

    assert program(page).strip() == "right = 1"
