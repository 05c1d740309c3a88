"""The suites that are run, what they need, and what of them is left out and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Final[Mapping[str, str]] = {}


class Suite(NamedTuple):
    """A library whose tests are run.

    Args:
        extras: Of the library itself.
        beside: What its tests import, and its extras do not bring.
        left_out: Files and tests that are not run, and why.
        environment: Variables that its own command sets.
        base_url: The variable with the address of an API for its tests to ask, which
            `answering` is then; empty where they ask none.
    """

    extras: tuple[str, ...]
    beside: tuple[str, ...]
    left_out: Mapping[str, str] = _NOTHING
    environment: Mapping[str, str] = _NOTHING
    base_url: str = ""

    @property
    def options(self) -> list[str]:
        """Those of pytest that leave out what is left out."""
        return [
            f"--{'deselect' if '::' in it else 'ignore'}={it}" for it in self.left_out
        ]


_ACROSS: Final = (
    "asks that what is finished in another context raises: that it does not is what "
    "agenttrace is for"
)

SUITES: Final = {
    "openai": Suite(
        ("aiohttp", "bedrock", "datalib", "realtime", "vertex"),
        (
            *("azure-identity", "griffe", "httpx", "inline-snapshot", "Pillow"),
            *("pytest", "pytest-asyncio", "pytest-xdist", "requests", "rich", "trio"),
        ),
        {"tests/test_uv_workflows.py": "is about the tools of its repository"},
        {"DEFER_PYDANTIC_BUILD": "false"},
        "TEST_API_BASE_URL",
    ),
    "openai-agents": Suite(
        ("encrypt", "litellm", "realtime", "redis", "sqlalchemy", "viz", "voice"),
        (
            *("aiohttp", "aiosqlite", "eval-type-backport", "fakeredis", "fastapi"),
            *("graphviz", "grpcio", "inline-snapshot", "pymongo", "pytest"),
            *("pytest-asyncio", "pytest-mock", "pytest-xdist", "rich", "textual"),
            *("twilio", "websockets"),
        ),
        {
            f"tests/tracing/{file}.py::"
            "test_explicit_finish_from_another_context_still_raises": _ACROSS
            for file in ("test_spans_impl", "test_traces_impl")
        },
    ),
}
