"""The guard tells of failures, and nothing of what was traced."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

import agenttrace
from agenttrace import safety
from agenttrace.testing import fresh_runtime
from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = ("redact", "Quoting.on_end")
PROMPT = "the prompt, which is secret"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Return what agenttrace logs, down to DEBUG, where nothing is strict."""
    monkeypatch.setenv(safety.STRICT_VARIABLE, "0")
    safety.reset_for_tests()
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    safety.logger.addHandler(handler)
    safety.logger.setLevel(logging.DEBUG)
    yield written
    safety.logger.setLevel(logging.NOTSET)
    safety.logger.removeHandler(handler)
    safety.reset_for_tests()


def _fail() -> None:
    raise ValueError(PROMPT)


def test_a_failure_is_logged_by_its_class_and_place_and_not_by_its_message(
    log: io.StringIO,
) -> None:
    """`could not convert string to float` goes on with the string."""
    safety.guarded("the site", _fail)

    assert "the site failed with ValueError" in log.getvalue()
    assert "in _fail" in log.getvalue()
    assert PROMPT not in log.getvalue()


class Quoting(SpanProcessor):
    """A processor that fails with what it saw."""

    def on_end(self, span: object) -> None:
        del span
        raise ValueError(PROMPT)


def _redact(_key: str, value: object) -> object:
    message = f"cannot redact {value}"
    raise ValueError(message)


class Agent:
    """An object whose text is a secret."""

    def __repr__(self) -> str:
        return PROMPT

    def answer(self, question: str) -> str:
        """Return the question."""
        return question


def test_hooks_that_fail_on_content_do_not_bring_it_into_the_log(
    log: io.StringIO,
) -> None:
    """A redaction hook is given what nobody else may see."""
    answer = agenttrace.tool(capture_content=True)(Agent().answer)
    with fresh_runtime(
        swallows=SITES, capture_content=True, redact=_redact, state_dir=None
    ) as fresh:
        provider = trace.get_tracer_provider()
        provider.add_span_processor(Quoting())  # type: ignore[attr-defined]  # ours
        answer(PROMPT)
        with pytest.raises(TypeError):
            answer(*[PROMPT] * 2)
        assert len(fresh.exported()) == 2

    assert "redact failed" in log.getvalue()
    assert PROMPT not in log.getvalue()


class Failing(logging.Handler):
    """A handler without the manners of the standard library's."""

    def handle(self, record: logging.LogRecord) -> bool:
        del record
        raise OSError


def test_a_log_handler_that_raises_stops_nothing(log: io.StringIO) -> None:
    """The application did not log anything: it must not be told that logging fails."""
    handler = Failing()
    safety.logger.addHandler(handler)
    try:
        safety.guarded("the site", _fail)
        safety.log_once("another", logging.WARNING, "said once")
    finally:
        safety.logger.removeHandler(handler)

    assert "the site" in log.getvalue()


def test_an_exit_handler_that_traces_is_no_news() -> None:
    """From Python 3.12 on no thread can be started by then, the ticker's neither."""
    ran = run("""
        import atexit
        import agenttrace

        def at_exit():
            with agenttrace.span("at exit"):
                pass

        agenttrace.configure()
        atexit.register(at_exit)
    """)

    assert ran.err == ""
    assert list(ran.spans()) == ["at exit"]


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_is_raised_where_something_fails_in_cleaning_up_after_it() -> None:
    """As in the standard library, which forgets a thread that was not to start."""

    def work() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            _fail()

    with pytest.raises(KeyboardInterrupt):
        safety.guarded("test", work)


@pytest.mark.usefixtures("log")
def test_an_interrupt_that_the_application_handles_is_not_raised_again() -> None:
    """What fails of ours meanwhile is swallowed, as ever."""
    try:
        _interrupt()
    except KeyboardInterrupt:
        safety.guarded("test", _fail)

    assert safety.guard_hits() == {"test": 1}
