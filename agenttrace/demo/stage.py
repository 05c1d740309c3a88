"""The order of it all: `play` the runs, then `close` the account.

`play` sets tracing up, plays one scenario after the other, and shuts tracing down
again.  Nothing that it knew of the spans outlives it but the tally's count, so what
`close` tells of them it must have read.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

import agenttrace
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.demo import backend
from agenttrace.demo.account import (
    SERVICE,
    Account,
    Act,
    Sent,
    latest_with,
    read_back,
)
from agenttrace.demo.tally import Tally
from agenttrace.errors import AgenttraceError, MissingExtraError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from agenttrace import Runtime
    from agenttrace.demo.account import Entry
    from agenttrace.demo.models import Models
    from agenttrace.demo.scenarios import Scenario, Scene
    from agenttrace.demo.screen import Screen
    from agenttrace.recovery import Recovered
    from agenttrace.runtime import Status
    from agenttrace.watchdog.verdict import Report

_OF_THE_EXTRA: Final = ("agents", "fastapi", "h11", "openai", "rich", "uvicorn")
_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_KEEPS_SPANS_AWAY: Final = (
    "AGENTTRACE_DISABLED",
    "AGENTTRACE_DURABLE",
    "AGENTTRACE_HEARTBEAT_TIMEOUT",
    "AGENTTRACE_LOOP_BLOCKED_AFTER",
    "AGENTTRACE_MAX_DURATION",
    "AGENTTRACE_ON_STUCK",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)
_HEALTHY: Final = {"execute_tool:ask_manager": 1.0}
"""Seconds that the tool which hangs may be silent: the demo is to be over soon."""
_DELIVERY_TIMEOUT: Final = 6.0
_VERDICT_TIMEOUT: Final = 15.0
"""Seconds that a hang is waited for, ten times as many as it takes."""
_GLANCE: Final = 0.5
"""Seconds that a run's tree waits for its spans; the account waits longer."""
_BETWEEN_GLANCES: Final = 0.02
_QUOTED: Final = re.compile(r"'(.+)'")


@dataclass(frozen=True, slots=True)
class Played:
    """What is left when the runs are over and tracing is shut down.

    Args:
        store: The file that the spans went to.
        acts: The runs, in order.
        sent: What an OTLP endpoint has acknowledged; None where none is set.
        store_error: What went wrong last on the way to the store.
        swallowed: What agenttrace's guard swallowed, by site.
        scripted: Whether the model followed its script.
        trace_url: Address of a trace where the endpoint's are shown, by whoever knows.
    """

    store: Path
    acts: Sequence[Act]
    sent: Sent | None
    store_error: str | None
    swallowed: Mapping[str, int]
    scripted: bool
    trace_url: str | None = None


def check_extra() -> None:
    """Raise `MissingExtraError` unless the libraries of the demo are installed."""
    if any(find_spec(name) is None for name in _OF_THE_EXTRA):
        feature = "The demo"
        raise MissingExtraError(feature, "demo")


def play(
    screen: Screen,
    state_dir: Path,
    *,
    live: str | None = None,
    trace_url: str | None = None,
) -> Played:
    """Play the runs, show what happens, and deliver their spans.

    Args:
        screen: Where it is shown.
        state_dir: Where the store is.
        live: Name of a real model to ask, with `OPENAI_API_KEY` and, where it is set,
            at `OPENAI_BASE_URL`; the runs that need an accident are left out then.
            None: a scripted model on loopback, and no question leaves this machine.
        trace_url: Address of a trace where what the OTLP endpoint got is shown, with
            `{trace_id}` in it.

    Raises:
        MissingExtraError: The libraries of the demo are not installed.
        SettingError: *trace_url* or a variable of the environment cannot be meant, or
            the store cannot be written.
    """
    check_extra()
    if live is not None and not os.environ.get("OPENAI_API_KEY"):
        raise SettingError(
            setting="OPENAI_API_KEY", value=None, allowed="set, to ask a real model"
        )
    if trace_url is not None:
        backend.check(trace_url)
        if not _has_endpoint():
            allowed = "left out, as no OTLP endpoint is set that traces are sent to"
            raise SettingError(backend.OPTION, trace_url, allowed)
    store = state_dir / FILE_NAME
    _check_writable(store)
    acts: list[Act] = []
    hangs: SimpleQueue[Report] = SimpleQueue()
    with (
        _undisturbed(),
        agenttrace.configure(
            service_name=SERVICE,
            state_dir=str(state_dir),
            heartbeat_timeout=_HEALTHY,
            stuck_hooks=[hangs.put],
            on_abandon="cancel",
            vendor_export=False,
        ) as runtime,
    ):
        with _opened(screen, runtime, live, hangs) as (scene, cast):
            for scenario in cast:
                with screen.playing(scenario, scene.tally.where):
                    act = _played(scene, scenario)
                    entry = _glance(runtime, act, Reader(store), scripted=not live)
                acts.append(act)
                screen.show(entry)
        if why := _why_nobody_is_killed(runtime):
            screen.tell(f"Left out, a worker that is killed: {why}.")
        runtime.flush(_DELIVERY_TIMEOUT)
    left = _left(runtime.status(), store, acts, scripted=not live)
    return replace(left, trace_url=trace_url)


def _why_nobody_is_killed(runtime: Runtime) -> str | None:
    """Return why the run that needs a journal is left out; None where it is not."""
    if sys.platform == "win32":
        return "Windows has no locks that a crash frees, so no journal is kept there"
    if not runtime.status().journal:
        return "no journal can be kept here, see agenttrace doctor"
    return None


def _check_writable(store: Path) -> None:
    """Raise `SettingError` where spans cannot be kept: there would be nothing to see.

    A disk that is full, or goes away in between, the account tells.
    """
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(store.parent, os.W_OK | os.X_OK) and (
            not store.exists() or (store.is_file() and os.access(store, os.W_OK))
        )
    except OSError:
        writable = False
    if not writable:
        raise SettingError(
            setting="state_dir",
            value=str(store.parent),
            allowed=f"a directory where {store.name} can be written; see --state-dir",
        )


def close(played: Played, screen: Screen) -> Account:
    """Read back what the store has of the runs, compare, and show the result.

    Raises:
        StoreUnreadableError: The store is damaged.
    """
    reader = Reader(played.store)
    entries = [read_back(act, reader, scripted=played.scripted) for act in played.acts]
    account = Account(
        store=played.store,
        entries=entries,
        latest=latest_with(entries, reader),
        sent=played.sent,
        store_error=played.store_error,
        swallowed=played.swallowed,
        backend=backend.look(played.sent, played.acts, played.trace_url),
    )
    screen.close(account)
    return account


@contextmanager
def _undisturbed() -> Generator[None]:
    """Let spans reach the store whatever this environment keeps them from.

    What agenttrace would log of its own troubles, the account tells.
    """
    before = {name: os.environ.get(name) for name in (_EXPORTER, *_KEEPS_SPANS_AWAY)}
    for name in _KEEPS_SPANS_AWAY:
        os.environ.pop(name, None)
    os.environ[_EXPORTER] = "store,otlp" if _has_endpoint() else "store"
    logger, silence = logging.getLogger("agenttrace"), logging.NullHandler()
    logger.addHandler(silence)
    try:
        yield
    finally:
        logger.removeHandler(silence)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _has_endpoint() -> bool:
    said = os.environ.get(_EXPORTER, "").strip()
    if said:
        return "otlp" in said.lower().replace(" ", "").split(",")
    return any(os.environ.get(name, "").strip() for name in _ENDPOINTS)


@contextmanager
def _opened(
    screen: Screen,
    runtime: Runtime,
    live: str | None,
    hangs: SimpleQueue[Report],
) -> Generator[tuple[Scene, Sequence[Scenario]]]:
    """Build desk, model and tally; yield them, and the scenarios to play."""
    with screen.opening(live):
        # Seconds of imports, under the line that says what is going on.
        from agenttrace.demo import scenarios, web, worker  # noqa: PLC0415
        from agenttrace.demo.desk import application  # noqa: PLC0415

        agenttrace.instrument()
    tally = Tally()
    runtime.spans.add_listener(tally)
    try:
        with (
            _models(live) as (models, requests),
            web.served(application(models)) as visitor,
        ):
            directory, base_url = runtime.settings.state_dir, models.base_url or ""
            killed = _why_nobody_is_killed(runtime) is None
            yield (
                scenarios.Scene(
                    visitor,
                    tally,
                    screen.tell,
                    requests,
                    worker=partial(worker.running, directory, base_url),
                    recover=partial(_recovered, runtime),
                    hangs=partial(_next_of, hangs),
                    blocked_loops=lambda: runtime.status().counts.get(
                        "loops_blocked", 0
                    ),
                ),
                [
                    each
                    for each in scenarios.SCENARIOS
                    if not (live and each.scripted)
                    and (killed or not each.needs_journal)
                ],
            )
    finally:
        runtime.spans.remove_listener(tally)
        agenttrace.uninstrument()


def _recovered(runtime: Runtime) -> Recovered:
    """Deliver what the dead have left; return what was found since `configure()`."""
    return replace(runtime.recover(_DELIVERY_TIMEOUT))


def _next_of(hangs: SimpleQueue[Report]) -> Report | None:
    """Return the next report; None where it does not come."""
    try:
        return hangs.get(timeout=_VERDICT_TIMEOUT)
    except Empty:
        return None


@contextmanager
def _models(live: str | None) -> Generator[tuple[Models, Callable[[], int]]]:
    """Yield who answers, and what counts the requests that reach the scripted one."""
    from agenttrace.demo.models import SCRIPTED, Models, script  # noqa: PLC0415 - seconds of imports
    from agenttrace.testing.model_server import ModelServer  # noqa: PLC0415 - the same

    if live is not None:
        yield Models(live), lambda: 0
        return
    with ModelServer(script()) as server:
        models = Models(SCRIPTED, server.base_url, api_key="unused", scripted=True)
        yield models, lambda: len(server.requests)


def _played(scene: Scene, scenario: Scenario) -> Act:
    trouble: str | None = None
    with scene.tally.run() as count:
        try:
            scenario.drive(scene, scenario)
        except (AgenttraceError, HTTPException, OSError) as error:
            trouble = f"could not be played to its end: {error}"
    return Act(scenario, tuple(count.started), trouble)


def _glance(runtime: Runtime, act: Act, reader: Reader, *, scripted: bool) -> Entry:
    """Return what the store has of *act* as soon as it has all, or after a while."""
    deadline = time.monotonic() + _GLANCE
    while True:
        # A span that has just left the registry may not have come to the queue yet:
        # one flush is not enough.
        runtime.flush(_GLANCE)
        entry = read_back(act, reader, scripted=scripted)
        if not entry.missing or time.monotonic() > deadline:
            return entry
        time.sleep(_BETWEEN_GLANCES)


def _left(
    status: Status, store: Path, acts: Sequence[Act], *, scripted: bool
) -> Played:
    lanes = status.delivery.lanes if status.delivery is not None else ()
    by_name = dict(zip(status.destinations, lanes, strict=False))
    otlp = by_name.get("otlp")
    sent = None
    if otlp is not None:
        quoted = _QUOTED.search(otlp.destination)
        to = quoted[1] if quoted else otlp.destination
        sent = Sent(to, otlp.acknowledged, otlp.last_error)
    return Played(
        store=store,
        acts=acts,
        sent=sent,
        store_error=by_name["store"].last_error if "store" in by_name else None,
        swallowed=status.guard_hits,
        scripted=scripted,
    )
