"""How the Agents SDK is instrumented, put back, and told what it may send."""

from __future__ import annotations

import copy
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agents
import pytest
from agents import custom_span, get_current_trace, trace
from agents.tracing.processors import default_exporter, default_processor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agenttrace
from agenttrace import tracing
from agenttrace.instrumentation.openai_agents import INSTRUMENTOR
from agenttrace.testing.garbage import collect_garbage
from tests.core.programs import run
from tests.instrumentation.given import Spans

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    # What other tests have interrupted may still have tokens.
    collect_garbage()
    agenttrace.uninstrument()
    agents.set_trace_processors([])
    yield
    agenttrace.uninstrument()
    agents.set_trace_processors([])


def own(owner: object) -> Mapping[str, object]:
    return vars(owner)


def found() -> list[object]:
    """Return the very objects that stand in the SDK now."""
    places: list[object] = []
    for patch in INSTRUMENTOR.patches:
        owner: Any = import_module(patch.module)
        path, _, name = patch.attribute.rpartition(".")
        owner = getattr(owner, path) if path else owner
        places.append(own(owner)[name])
    return places


def test_uninstrument_puts_the_very_objects_back() -> None:
    """Functions, methods, and the two context variables."""
    before = found()
    agenttrace.instrument("openai-agents")
    between = found()
    agenttrace.uninstrument("openai-agents")

    assert all(one is not other for one, other in zip(before, between, strict=True))
    assert all(one is other for one, other in zip(before, found(), strict=True))


def test_a_trace_that_is_open_while_it_is_put_back_ends_as_it_would(
    spans: Spans,
) -> None:
    """The SDK has a token of ours then, which its own variable would not take."""
    with trace("wf"), custom_span("step"):
        agenttrace.uninstrument("openai-agents")
        assert get_current_trace() is not None
        with trace("unseen"):
            pass
    assert get_current_trace() is None
    agenttrace.uninstrument("openai-agents")

    assert sorted(span.name for span in spans.all()) == ["invoke_workflow wf", "step"]
    assert [type(each).__name__ for each in found()[:2]] == ["ContextVar"] * 2


def test_a_trace_that_was_open_before_is_still_current(spans: Spans) -> None:
    """Instrumenting in the middle of things takes nothing away."""
    agenttrace.uninstrument("openai-agents")
    with trace("before"):
        agenttrace.instrument("openai-agents")
        current: Any = get_current_trace()
        assert current.name == "before"
        with custom_span("step"):
            pass
    assert get_current_trace() is None

    assert [span.name for span in spans.all()] == ["step"]


def test_a_trace_that_cannot_be_copied_fails_as_without_us(spans: Spans) -> None:
    """Results are dataclasses that have their trace; the SDK's has a lock."""
    with trace("wf") as traced:
        pass

    with pytest.raises(TypeError, match="lock"):
        copy.deepcopy(traced)
    assert len(spans.all()) == 1


def test_nothing_is_followed_where_tracing_is_disabled(spans: Spans) -> None:
    """Patches that are in stay in, and do nothing."""
    before = tracing.install(tracing.DISABLED)
    try:
        with trace("wf"), custom_span("step"):
            pass
    finally:
        tracing.install(before)

    assert spans.all() == []


def test_processors_of_others_see_what_they_saw(spans: Spans) -> None:
    """Each of the SDK's spans, once, as it is; whoever replaces the list loses none."""
    seen: list[str] = []

    class Theirs(agents.TracingProcessor):
        def on_trace_start(self, trace: Any) -> None:  # noqa: ANN401 - the SDK's
            seen.append(f"+{trace.name}")

        def on_trace_end(self, trace: Any) -> None:  # noqa: ANN401 - the SDK's
            seen.append(f"-{trace.name}")

        def on_span_start(self, span: Any) -> None:  # noqa: ANN401 - the SDK's
            seen.append(f"+{span.span_data.name}")

        def on_span_end(self, span: Any) -> None:  # noqa: ANN401 - the SDK's
            seen.append(f"-{span.span_data.name}")

        def shutdown(self) -> None:
            """Do nothing."""

        def force_flush(self) -> None:
            """Do nothing."""

    agents.set_trace_processors([Theirs()])
    with trace("wf"), custom_span("step"):
        pass

    assert seen == ["+wf", "+step", "-step", "-wf"]
    assert len(spans.all()) == 2


@contextmanager
def vendor() -> Generator[tuple[str, list[bytes]]]:
    """Be where the SDK sends its traces."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            bodies.append(self.rfile.read(length))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base calls it so
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ingest", bodies
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("vendor_export", [True, False])
def test_the_vendors_exporter_is_kept_or_silenced_by_a_setting(
    *, vendor_export: bool
) -> None:
    """Kept by default: agenttrace takes nothing away that it was not asked to."""
    exporter: Any = default_exporter()
    memory = InMemorySpanExporter()
    with (
        vendor() as (url, bodies),
        pytest.MonkeyPatch.context() as patch,
        agenttrace.configure(
            span_exporter=memory, vendor_export=vendor_export
        ) as runtime,
    ):
        patch.setattr(exporter, "endpoint", url)
        exporter.set_api_key("unused")
        agents.set_trace_processors([default_processor()])
        agenttrace.instrument("openai-agents")
        with trace("wf"), custom_span("step"):
            pass
        agents.flush_traces()

        assert len(Spans(memory, runtime).all()) == 2
    assert bool(bodies) is vendor_export


def test_neither_agenttrace_nor_instrument_imports_the_sdk() -> None:
    """It takes a second, which belongs to who uses it."""
    ran = run(
        """
        import sys, agenttrace
        agenttrace.configure()
        agenttrace.instrument()
        print([name for name in sys.modules if name.split(".")[0] == "agents"])
        import agents
        with agents.trace("wf"):
            print([span.name for span in agenttrace.open_spans()])
        """,
        PYTHONPATH=str(ROOT),
    )

    assert ran.out.splitlines() == ["[]", "['invoke_workflow wf']"], ran.err
    assert "agenttrace" not in ran.err


def test_a_package_of_the_applications_own_is_left_alone(tmp_path: Path) -> None:
    """Many a project has a folder that is called `agents`."""
    package = tmp_path / "agents"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "run.py").write_text("def start_streaming(): return 'mine'\n")
    (package / "result.py").touch()
    ran = run(
        """
        import agenttrace
        agenttrace.configure()
        agenttrace.instrument()
        import agents.result, agents.run
        print(agents.run.start_streaming(), type(agents.run.start_streaming).__name__)
        """,
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )

    assert ran.out == "mine function\n", ran.err
    assert ran.err == ""
