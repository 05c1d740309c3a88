"""The limit that counts is the one that was said most nearly."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import SpanKind

from agenttrace import semconv
from agenttrace.boundary import pending
from agenttrace.errors import SettingError
from agenttrace.instrumentation.openai import requests
from agenttrace.registry import AtLeast, OpenSpans, Usual
from agenttrace.settings import resolve
from agenttrace.watchdog.limits import DEFAULTS, SILENT, Limits
from tests.watchdog.given import SECOND, Body, opened, world

if TYPE_CHECKING:
    from agenttrace.settings import Limit


def silence(
    setting: Limit = None,
    *,
    own: float | None = None,
    operation: str | None = "chat",
    name: str = "chat gpt-4o",
) -> float | None:
    """Return the longest healthy silence of a span, in seconds."""
    body = Body()
    span = opened(OpenSpans(), body, name, operation=operation, heartbeat_timeout=own)
    found = Limits(setting).silence_of(span)
    return None if found is None else found / SECOND


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [
        ("chat", 300),
        ("execute_tool", 300),
        ("invoke_agent", 300),
        (None, 300),
        ("embeddings", 60),
        ("retrieval", 60),
    ],
)
def test_there_is_a_default_for_everything(
    operation: str | None, seconds: float
) -> None:
    """As the documentation has them."""
    assert silence(operation=operation) == seconds


def test_the_documentation_has_the_defaults() -> None:
    """It is where they are looked up."""
    page = Path(__file__).parents[2] / "docs/reference/watchdog.md"
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) s", page.read_text(), re.MULTILINE)
    told = {what: float(seconds.replace(",", "")) for what, seconds in rows}

    assert told == {
        "model request, not streamed": SILENT,
        "stream, until the first chunk": requests.FIRST_WORD,
        "stream, between chunks": requests.NEXT_WORD,
        "embeddings, retrieval": DEFAULTS["embeddings"],
        "tool, agent, any other span": SILENT,
        "background response whose status stays the same": pending.SILENCE,
    }
    assert len(set(DEFAULTS.values())) == 1


@pytest.mark.parametrize(
    ("setting", "own", "seconds"),
    [
        (20.0, None, 20),
        ({"chat": 30.0}, None, 30),
        ({"embeddings": 30.0}, None, 300),
        ({"chat": 30.0, "chat:gpt-4o": 40.0}, None, 40),
        ({"chat": 30.0, "chat:other": 40.0}, None, 30),
        ({"chat:gpt-4o": 40.0}, 50.0, 50),
        (20.0, 50.0, 50),
        (math.inf, None, None),
        (1e300, None, None),
        (20.0, math.inf, None),
        (None, Usual(120), 120),
        ({"embeddings": 30.0}, Usual(120), 120),
        ({"chat": 30.0}, Usual(120), 30),
        (None, AtLeast(900), 900),
        ({"chat": 30.0}, AtLeast(900), 900),
        ({"chat": 1200.0}, AtLeast(900), 1200),
    ],
)
def test_what_was_said_most_nearly_counts(
    setting: Limit, own: float | None, seconds: float | None
) -> None:
    """The span's own word, its name, its operation, all: in this order."""
    assert silence(setting, own=own) == seconds


def test_a_plain_step_is_set_by_its_name_alone() -> None:
    """It has no operation to be set by."""
    assert silence({":plan": 30.0}, operation=None, name="plan") == 30


def test_a_total_time_has_no_limit_unless_one_is_set() -> None:
    """Only the user knows how long a run may take."""
    body, registry = Body(), OpenSpans()
    plain, own = opened(registry, body), opened(registry, body, max_duration=5)

    found = [Limits().duration_of(plain), Limits().duration_of(own)]
    found += [Limits(None, 9.0).duration_of(plain), Limits(None, 9.0).duration_of(own)]

    assert found == [None, 5 * SECOND, 9 * SECOND, 5 * SECOND]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60", 60.0),
        ("inf", math.inf),
        ("chat=60", {"chat": 60.0}),
        (
            "chat=60, invoke_agent:triage=1.5,:plan=inf",
            {"chat": 60.0, "invoke_agent:triage": 1.5, ":plan": math.inf},
        ),
        ("invoke_agent:a=b=60", {"invoke_agent:a=b": 60.0}),
    ],
)
def test_limits_can_stand_in_a_variable(text: str, value: object) -> None:
    """For processes whose code cannot be changed."""
    found = resolve({}, {"AGENTTRACE_HEARTBEAT_TIMEOUT": text})

    assert found.heartbeat_timeout == value


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("heartbeat_timeout", -1, "heartbeat_timeout=-1"),
        ("heartbeat_timeout", 0, "heartbeat_timeout=0"),
        ("heartbeat_timeout", math.nan, "heartbeat_timeout=nan"),
        ("heartbeat_timeout", True, "heartbeat_timeout=True"),
        ("heartbeat_timeout", {"chat": "soon"}, "heartbeat_timeout['chat']='soon'"),
        ("max_duration", {"chat": 0}, "max_duration['chat']=0"),
        ("max_duration", "chat=60,later", "max_duration['']='later'"),
        ("max_duration", [60], "max_duration=[60]"),
        ("on_stuck", "explode", "on_stuck='explode'"),
        ("stuck_hooks", 7, "stuck_hooks=7"),
        ("stuck_hooks", ["print"], "stuck_hooks=['print']"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    setting: str, value: object, named: str
) -> None:
    """At configuration time, where somebody reads it."""
    with pytest.raises(SettingError) as refused:
        resolve({setting: value}, {})

    assert str(refused.value).startswith(f"{named}: must be ")


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER])
def test_what_answers_others_may_be_silent(kind: SpanKind, *, attached: bool) -> None:
    """The connection of a WebSocket has nothing to do while nobody writes."""
    with world(attached=attached) as given:
        tracer = given.made.provider.get_tracer("a server's")
        started = tracer.start_span("GET /ws", kind=kind)
        with tracer.start_as_current_span("GET /sse", kind=kind):
            given.clock.pass_(7_200)
        started.end()

    assert given.endings() == {"GET /ws": "ok", "GET /sse": "ok"}


@pytest.mark.parametrize("attached", [False, True])
def test_what_answers_others_has_the_limits_that_are_set(*, attached: bool) -> None:
    """By name, for the routes that are to answer; or for all."""
    limits = Limits({":GET /report": 60})
    with world(attached=attached, limits=limits) as given:
        tracer = given.made.provider.get_tracer("a server's")
        kind = SpanKind.SERVER
        with (
            tracer.start_as_current_span("GET /ws", kind=kind),
            tracer.start_as_current_span("GET /report", kind=kind),
        ):
            given.clock.pass_(120)

    assert given.endings()["GET /report"] == "stuck"
    assert given.endings()["GET /ws"] == "ok"


@pytest.mark.parametrize("attached", [False, True])
def test_what_answers_others_and_is_a_models_has_the_limit_of_all(
    *, attached: bool
) -> None:
    """A server of models says what it does."""
    said = {semconv.GEN_AI_OPERATION_NAME: "chat"}
    with world(attached=attached) as given:
        tracer = given.made.provider.get_tracer("a server's")
        with tracer.start_as_current_span(
            "chat", kind=SpanKind.SERVER, attributes=said
        ):
            given.clock.pass_(301)

    assert given.endings()["chat"] == "stuck"
