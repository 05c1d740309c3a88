"""Whatever is handed over, the span is told and the application notices nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from tests.core.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    Told = Callable[[], list[ReadableSpan]]


class Unhashable(type):
    """A metaclass whose classes no cache can hold."""

    __hash__ = None  # type: ignore[assignment]  # the point


class UnhashableError(Exception, metaclass=Unhashable):
    """An exception of such a class."""


class Unbound:
    """A proxy outside of its context, as `werkzeug.local` has: it raises at all."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(name)


class UnboundError(Exception):
    """An exception that cannot even be asked for its class."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(name)


class Uncomparable:
    """A value like an array: it is neither true nor false, and equals nothing."""

    __hash__ = None  # type: ignore[assignment]  # as arrays have it

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __bool__(self) -> bool:
        raise ValueError


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """Return what returns the spans that were told so far.

    Not strict: that what is bad is counted and let pass is what is tested.
    """
    monkeypatch.setenv("AGENTTRACE_STRICT", "0")
    exporter = InMemorySpanExporter()
    with agenttrace.configure(span_exporter=exporter) as runtime:

        def spans() -> list[ReadableSpan]:
            assert runtime.flush(30)
            return list(exporter.get_finished_spans())

        yield spans


# By name: pytest would look at what is not to be looked at.
ERRORS: dict[str, type[Exception]] = {
    "unhashable": UnhashableError,
    "unbound": UnboundError,
}
VALUES: dict[str, type] = {"unbound": Unbound, "array": Uncomparable}


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_of_any_class_comes_out_as_itself(told: Told, name: str) -> None:
    """The span that cannot name it must not put another in its place."""
    error = ERRORS[name]

    @agenttrace.traced
    def decorated() -> None:
        raise error

    def block() -> None:
        with agenttrace.span("block"):
            raise error

    for fn in (decorated, block):
        try:
            fn()
        except BaseException as raised:  # noqa: BLE001 - whichever it is
            assert type(raised) is error  # noqa: PT017 - `raises` asks for more than it can say

    assert [_outcome(span) for span in told()] == ["error", "error"]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_read_passes_through(told: Told, name: str) -> None:
    """As result, argument, attribute, key, name and note."""
    given: Any = VALUES[name]()

    @agenttrace.tool(capture_content=True)
    def tool(argument: object) -> object:
        return argument

    returned = tool(given)
    same = returned is given
    assert same
    with (
        agenttrace.bind(attributes={"bound": given}, user_id=given),
        agenttrace.span(given, attributes={"given": given}) as span,
    ):
        span.set_attribute("key", given)
        span.set_attribute(given, 1)
        span.add_event(given, {"key": given})
        span.set_status(trace.StatusCode.ERROR, given)
        agenttrace.heartbeat(given)

    assert [_outcome(span) for span in told()] == ["ok", "error"]


class Secretive:
    """An argument that fails when it is to be captured."""

    def model_dump(self, **_: object) -> object:
        raise RuntimeError


def test_an_argument_that_cannot_be_captured_costs_no_span(told: Told) -> None:
    """What is captured is an extra; that the tool ran is not."""

    @agenttrace.tool(capture_content=True)
    def tool(_given: object) -> int:
        return 1

    assert tool(Secretive()) == 1
    assert [_outcome(span) for span in told()] == ["ok"]


@pytest.mark.parametrize("given", [[("page", 1)], 7, "text", [1]], ids=repr)
def test_attributes_that_are_no_mapping_cost_no_span(
    told: Told,
    given: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """Nor may they raise where the same code runs without agenttrace."""
    with agenttrace.bind(attributes=given):
        with agenttrace.span("plain", attributes=given) as span:
            span.set_attributes(given)
            span.add_event("event", given)
            span.record_exception(ValueError(), given)
        with agenttrace.span("chat", operation="chat", attributes=given):
            pass
    trace.get_tracer("other").start_span("other", attributes=given).end()

    spans = told()
    assert [span.name for span in spans] == ["plain", "chat", "other"]
    pages = [(span.attributes or {}).get("page") for span in spans]
    assert pages == (
        [1, 1, 1] if isinstance(given, list) and given[0] != 1 else [None] * 3
    )


@pytest.mark.parametrize("links", [["text"], 7, [None]], ids=repr)
def test_links_that_are_none_cost_no_span(
    told: Told,
    links: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """A link says where a span comes from, and never whether there is one."""
    with agenttrace.span("linked", links=links):
        pass

    (span,) = told()
    assert not span.links


@pytest.mark.parametrize(
    "instant", [1.7e18, 0, -5, 1 << 70, "now", float("nan")], ids=repr
)
def test_a_time_of_any_kind_is_a_time(
    told: Told,
    instant: Any,  # noqa: ANN401 - hostile on purpose
) -> None:
    """`time.time() * 1e9` is a float, and many write it."""
    tracer = trace.get_tracer("other")

    span = tracer.start_span("step", start_time=instant)
    span.add_event("event", timestamp=instant)
    span.end(instant)

    (seen,) = told()
    assert isinstance(seen.start_time, int)
    assert 0 <= seen.start_time < 1 << 64


def test_a_graph_whose_nodes_know_each_other_takes_bounded_time(told: Told) -> None:
    """Eight levels of a hundred neighbours would be ten quadrillion values."""
    nodes: list[dict[str, Any]] = [{"number": number} for number in range(100)]
    for node in nodes:
        node["neighbours"] = nodes
    started = time.monotonic()

    with agenttrace.span("graph", attributes={"nodes": nodes}):
        pass

    assert len(told()) == 1
    assert time.monotonic() - started < 60


def _outcome(span: ReadableSpan) -> object:
    return (span.attributes or {}).get("agenttrace.outcome")


def test_a_propagator_that_cannot_be_loaded_does_not_raise_where_it_is_used() -> None:
    """Before `configure()` nobody has checked, and a request must not fail of it."""
    ran = run(
        """
        import agenttrace
        print(agenttrace.carrier())
        with agenttrace.continue_trace({"traceparent": "x"}):
            print("worked")
        """,
        OTEL_PROPAGATORS="nonsense",
        AGENTTRACE_STRICT="0",
    )

    assert (ran.code, ran.out) == (0, "{}\nworked\n")
