"""Runs of the Agents SDK: what a streamed one is to those who listen, and leftovers.

A run is told of its end as a coroutine is (`boundary.silent`), whatever the SDK does
in between: what it has not finished by then, because it was cancelled a second time or
its event loop was closed, it never will, and is ended here.  A loop that was closed
with a run in it may be kept by whoever waits in it, and nobody tells of that: then the
run ends when the next one starts, in whichever loop.

Who listens to a streamed run iterates its `stream_events()`.  When that is closed or
dropped while the run goes on, the run is abandoned; the SDK itself would then wait for
its end.  Nothing else is done about it but what the setting `on_abandon` says.

A run that is started for a request (`context.request`) is cancelled when the client has
gone and nobody listens: at once if its listener has left it already, else at the end of
the request if the listener's task is done then, or serves that request.  A task of the
application's own goes on to listen, and its run goes on.
"""

from __future__ import annotations

import asyncio
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import context as otel

from agenttrace import safety, semconv, settings, tracing
from agenttrace.boundary.left import on_behalf_of, who_knows
from agenttrace.boundary.opened import Stopped, comes_no_more, task_here
from agenttrace.boundary.recorder import PlainRecorder
from agenttrace.boundary.silent import Silent
from agenttrace.context.request import current_request
from agenttrace.model import EndedBy, Ending, Opening, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context.context import Context

    from agenttrace.boundary.left import Knows, Work
    from agenttrace.boundary.opened import OpenedStream
    from agenttrace.context.request import Request
    from agenttrace.instrumentation.openai_agents.mirrors import Mirror


class Run(Stopped):
    """One run, from its call to its end.

    Args:
        outer: On whose behalf it was started, if there is anybody to ask.
        result: Of a streamed run, what the SDK gives to those who listen.
    """

    def __init__(self, outer: Knows | None, result: object = None) -> None:
        self._outer = outer
        self._result = None if result is None else weakref.ref(result)
        self._task: asyncio.Task[Any] | None = None
        self._mirrors: dict[Mirror, bool] = {}
        """Those that are open, and whether it is for the run's own task to end them."""
        self._abandoned: EndedBy | None = None
        self._listeners = 0
        self._listener = task_here()
        """The task that began to listen last, or made the run."""
        self._events: weakref.ref[OpenedStream] | None = None
        self._request: Request | None = None
        self._forget: Callable[[], None] | None = None
        self._was_heard = False
        self._after_turn = False
        self._stopping = False
        self._was_cancelled = False
        if outer is not None:
            outer.started(self)

    def started(self, work: Work) -> None:
        """Hear of a run within it, which is its own task's to stop."""

    # What its spans ask.

    def starts(self) -> None:
        """Take note of the task it runs in."""
        if self._task is None:
            self._task = task = asyncio.current_task()
            if task is not None:
                _end_in_closed_loops()
                _runs.setdefault(task.get_loop(), weakref.WeakSet()).add(self)

    def began(self, mirror: Mirror) -> None:
        """Take note of a span that was started in this run."""
        self._mirrors[mirror] = mirror.kind.is_of_run and self._task is _current_task()

    def ended(self, mirror: Mirror) -> None:
        """Take note of the end of one."""
        self._mirrors.pop(mirror, None)

    def reason(self, ending: Ending) -> Ending:
        """Return *ending*, or why that came to be: nobody listened any more."""
        if ending.outcome is not Outcome.CANCELLED:
            return ending
        if self._abandoned is not None:
            return Ending(Outcome.ABANDONED, self._abandoned)
        return ending if self._outer is None else self._outer.reason(ending)

    def was_cut_short(self) -> bool:
        """Return whether it returns because it was cancelled after a turn."""
        result: Any = self._listened_to()
        return (
            self._after_turn
            and result is not None
            and result.final_output is None
            and not result.interruptions
        )

    def over(self, ending: Ending) -> None:
        """End what the SDK has left open, if it did not come to its end by itself."""
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        left, self._mirrors = self._mirrors, {}
        if ending.outcome is Outcome.OK:
            return
        is_lost = ending.outcome is Outcome.LOST
        for mirror, is_own in reversed(left.items()):
            if is_own or is_lost:
                told = self.reason(ending)
                mirror.finish(Ending(told.outcome, told.ended_by, message=told.message))
                mirror.leave()

    # What those who listen say.

    def heard(self) -> None:
        """Hear that somebody begins to listen, be it again."""
        self._listeners += 1
        self._listener = task_here()
        self._was_heard = True
        self._abandoned = None

    def heard_by(self, events: OpenedStream) -> None:
        """Know *events* for what the last listener pulls."""
        self._events = weakref.ref(events)

    def unheard(self, _: Ending) -> None:
        """Hear that somebody listens no more."""
        self._listeners -= 1

    def left(self, ended_by: EndedBy) -> None:
        """Hear that somebody is about to leave, who may be the last one."""
        if self._listeners == 1:
            self.abandon(ended_by)

    def cancelled(self, mode: str) -> None:
        """Hear that the application cancels it."""
        if self._stopping:
            return
        self._was_cancelled = True
        if self._abandoned is not EndedBy.DISCONNECT:
            request = self._request
            # The SDK cancels it when the server cancels who listens.
            left = request is not None and request.is_gone and not request.is_over
            self._abandoned = EndedBy.DISCONNECT if left else None
            self._after_turn = mode == "after_turn"

    # What its request says.

    def serves(self, request: Request) -> None:
        """Have it stop when the client of *request* has gone and nobody listens."""
        # Weak: a run that is over, or dropped, is not kept by the request.
        known = weakref.ref(self)

        def gone() -> None:
            run = known()
            if run is not None:
                run.gone()

        self._request = request
        self._forget = forget = request.on_gone(gone)
        weakref.finalize(self, forget).atexit = False
        request.opened(self)

    def gone(self) -> None:
        """Hear that the client has gone.  On any thread."""
        task = self._last_listener()
        if (self._was_heard and not self._listeners) or (
            task is not None and _is_done(task)
        ):
            self.abandon(EndedBy.DISCONNECT, cancel=True)

    def is_left(self) -> bool:
        """Return whether it goes on, for nobody: asked at the end of its request."""
        run: Any = getattr(self._listened_to(), "run_loop_task", None)
        if run is None or run.done():
            return False
        task = self._last_listener()
        return task is not None and comes_no_more(task)

    def stop(self) -> None:
        """Stop it."""
        self.abandon(EndedBy.DISCONNECT, cancel=True)

    def _last_listener(self) -> weakref.ref[asyncio.Task[Any]] | None:
        events = None if self._events is None else self._events()
        return self._listener if events is None else events.task

    def abandon(self, ended_by: EndedBy, *, cancel: bool | None = None) -> None:
        """Hear that nobody listens any more.  On any thread, more than once, late.

        Args:
            ended_by: How that came: `close`, `gc`, `disconnect`.
            cancel: Whether to stop; None goes by the setting `on_abandon`.
        """
        result: Any = self._listened_to()
        task: asyncio.Task[Any] | None = getattr(result, "run_loop_task", None)
        if task is None or task.done():
            return
        if self._abandoned is None and not self._was_cancelled:
            self._abandoned = ended_by
            self._say_so()
        if cancel is None:
            cancel = settings.in_use().on_abandon == "cancel"
        if not cancel:
            return
        loop = task.get_loop()
        if loop is asyncio._get_running_loop():  # noqa: SLF001 - documented; None without a loop
            self._stop(result)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._stop, result)

    def _stop(self, result: Any) -> None:  # noqa: ANN401 - the SDK's RunResultStreaming
        self._stopping = True
        try:
            safety.guarded("openai_agents.cancel", result.cancel)
        finally:
            self._stopping = False

    def _say_so(self) -> None:
        mirror = next(iter(self._mirrors), None)
        if mirror is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        mirror.span.set_attributes({semconv.ABANDONED_AT: now})
        if mirror.span.record is not None:
            mirror.span.record.note = "nobody listens any more"

    def _listened_to(self) -> object:
        return None if self._result is None else self._result()


class _Guarded(Silent):
    """The coroutine that a run is."""

    __slots__ = ("_run",)

    def __init__(self, run: Run, context: Context) -> None:
        context = on_behalf_of(run, otel.set_value(_KEY, run, context))
        super().__init__(_UNREAD, context, run.over)
        self._run = run

    def begin(self) -> bool:
        """Take note of the task that it runs in."""
        safety.guarded("openai_agents.run", self._run.starts)
        return True


class _Listening(Silent):
    """What a listener iterates."""

    __slots__ = ("_run",)

    def __init__(self, run: Run, context: Context) -> None:
        super().__init__(_UNREAD, context, run.unheard)
        self._run = run

    def begin(self) -> bool:
        """Take note of the listener, with the first event that it waits for."""
        self._run.heard()
        return True

    def _wrapped(
        self,
        wrapper: Any,  # noqa: ANN401 - a generator
        value: Any,  # noqa: ANN401 - another one
        reader: OpenedStream | None = None,
    ) -> Any:  # noqa: ANN401 - the wrapper
        if reader is not None:
            self._run.heard_by(reader)
        return super()._wrapped(wrapper, value, reader)

    def leave(self, error: BaseException) -> None:
        """Hear that it is closed, before the SDK waits for the end of the run."""
        if isinstance(error, GeneratorExit):
            safety.guarded("openai_agents.left", self._run.left, self.left_by())


def begin(arguments: dict[str, Any]) -> Silent | None:
    """Return the call that a run is, given the arguments of what runs it."""
    if tracing.installed is tracing.DISABLED:
        return None
    context = otel.get_current()
    result = arguments.get("streamed_result")
    if result is None:
        return _Guarded(Run(who_knows(context)), context)
    run = _run_of(result, context)
    _hear_of_the_client(run)
    return _Guarded(run, context)


def _hear_of_the_client(run: Run) -> None:
    """Have *run* stop with the client that it is for, if it is for one.

    What is started when the client has gone is started all the same: by what is to
    outlive it.
    """
    request = current_request()
    if request is not None and not request.is_gone and not request.is_over:
        run.serves(request)


def listen(result: object) -> Silent | None:
    """Return the call that listening to *result* is."""
    if tracing.installed is tracing.DISABLED:
        return None
    context = otel.get_current()
    return _Listening(_run_of(result, context), context)


def cancels(result: object, mode: str = "immediate") -> None:
    """Hear that *result* is being cancelled."""
    if tracing.installed is not tracing.DISABLED:
        # It may not have begun yet.
        _run_of(result, otel.get_current()).cancelled(mode)


def run_in(context: Context) -> Run | None:
    """Return the run that *context* is of."""
    return cast("Run | None", context.get(_KEY))


def _run_of(result: object, context: Context) -> Run:
    """Return the run of *result*, which keeps it: nobody else lives as long."""
    held = vars(result)
    run = held.get(_KEY)
    if not isinstance(run, Run):
        held[_KEY] = run = Run(who_knows(context), result)
    return run


def _end_in_closed_loops() -> None:
    for known in _runs.keyrefs():
        loop = known()
        if loop is not None and loop.is_closed():
            for run in list(_runs.pop(loop, ())):
                run.over(Ending(Outcome.LOST, EndedBy.GC, message=LOST))


def _is_done(known: weakref.ref[asyncio.Task[Any]]) -> bool:
    task = known()
    return task is None or task.done()


def _current_task() -> asyncio.Task[Any] | None:
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; None without a loop
    return None if loop is None else asyncio.current_task(loop)


LOST: Final = "its event loop was closed while it was open"
_runs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[Run]] = (
    weakref.WeakKeyDictionary()
)
_KEY: Final = otel.create_key("agenttrace-agents-run")
_UNREAD: Final = PlainRecorder(Opening("run"))
