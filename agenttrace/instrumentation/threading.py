"""Carries the current span into threads and processes, and into pools of them.

A thread begins with an empty context, and so does a process that is not forked: what
they start would be runs of their own.  With these patches `Thread.start`,
`Process.start` and the methods that give work to a pool take the tracing context of
their caller along, and with them `asyncio.to_thread`, `run_in_executor` and everything
else that is made of them.

It is the tracing context alone that is carried (see `context.carriers`): the
application's own context variables say in its workers what they say without us.  To a
process it goes as headers, pickled with the function.

The workers of a pool serve everybody.  So they are started with nothing current, and an
initializer runs with nothing current either; each piece of work brings its own.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.context.context import Context

from agenttrace import safety
from agenttrace.context import scope
from agenttrace.context.carriers import carrier, carry
from agenttrace.instrumentation._patching import Instrumentor, Patch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator

_OUR_THREADS: Final = "agenttrace"


@contextmanager
def _nothing_current() -> Generator[None]:
    token = otel.attach(Context())
    try:
        yield
    finally:
        scope.detach(token)


def _carry(pool: object, fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return *fn* such that it takes the context along within this process.

    None for a pool of interpreters (Python 3.14): it shares functions with them, and
    some of these, a lambda for one, only as they are.
    """
    of_interpreters = sys.modules.get("concurrent.futures.interpreter")
    if of_interpreters and isinstance(pool, of_interpreters.InterpreterPoolExecutor):
        return None
    return carry(fn)


def _hand_over(_: object, fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return *fn* such that it takes the context to another; None: there is none."""
    headers = carrier()
    if not headers:
        return None
    from agenttrace.context.handed import Handed  # noqa: PLC0415 - few use processes

    return Handed(fn, headers)


def _taking_along(
    how: Callable[[object, Callable[..., Any]], Callable[..., Any] | None],
    pool: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a pool's method, whose function takes the context along.

    Args:
        how: Given pool and function, returns what takes the function's place, if
            anything does.
        pool: Whose method it is.
        args: What it is called with; the function is the first of these,
        kwargs: or is called `func`.
    """
    fn = args[0] if args else kwargs.get("func")
    if fn is None:  # which the pool is going to complain of
        return args, kwargs
    carried = safety.guarded("threading.submit", how, pool, fn)
    if carried is None:
        return args, kwargs
    return (
        ((carried, *args[1:]), kwargs) if args else (args, {**kwargs, "func": carried})
    )


def _submitting(
    how: Callable[[object, Callable[..., Any]], Callable[..., Any] | None],
) -> Callable[..., Any]:
    """Return the wrapper of an executor's `submit`; see `_taking_along`."""

    def submit(
        original: Callable[..., Any],
        executor: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - the Future
        if not otel.get_current():
            return original(*args, **kwargs)
        args, kwargs = _taking_along(how, executor, args, kwargs)
        # It starts its workers in here, and they serve others after this caller: what
        # is current now must not become theirs.
        with _nothing_current():
            return original(*args, **kwargs)

    return submit


def _give_work(
    give: Callable[..., Any],
    pool: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - what comes of it
    if not otel.get_current():
        return give(*args, **kwargs)
    # A pool of threads is one of processes by its class.
    threads = sys.modules["multiprocessing.pool"].ThreadPool
    how = _carry if isinstance(pool, threads) else _hand_over
    args, kwargs = _taking_along(how, pool, args, kwargs)
    return give(*args, **kwargs)


def _make_pool(
    make: Callable[..., Any],
    _: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    with _nothing_current():
        make(*args, **kwargs)


def _start_thread(
    start: Callable[..., Any],
    thread: threading.Thread,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - None
    context = otel.get_current()
    if not context or not _takes_along(thread):
        return start(*args, **kwargs)
    run = thread.run

    @functools.wraps(run)
    def carried() -> None:
        _put_back(thread, own)
        token = otel.attach(context)
        try:
            run()
        finally:
            scope.detach(token)

    own = _put(thread, carried)
    try:
        return start(*args, **kwargs)
    except BaseException:
        _put_back(thread, own)
        raise


def _takes_along(thread: threading.Thread) -> bool:
    """Return whether *thread* is the application's, and is going to begin."""
    try:
        return thread.ident is None and not thread.name.startswith(_OUR_THREADS)
    except Exception:  # noqa: BLE001 - made without `Thread.__init__`: `start` says so
        return False


def _start_process(
    start: Callable[..., Any],
    process: Any,  # noqa: ANN401 - a Process of any start method
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - None
    handed = None
    if otel.get_current():
        handed = safety.guarded("threading.process", _hand_over, process, process.run)
    if handed is None:
        return start(*args, **kwargs)
    # By now the other process has it: pickled, or forked.
    own = _put(process, handed)
    try:
        return start(*args, **kwargs)
    finally:
        _put_back(process, own)


# `run` is what subclasses override, so no patch of a class would reach it.


def _put(worker: object, run: Callable[..., Any]) -> object:
    """Let *worker* have another `run`; return the one that was put there before."""
    own: object = vars(worker).get("run")
    vars(worker)["run"] = run
    return own


def _put_back(worker: object, own: object) -> None:
    """Let *worker* have the `run` it had; what was put there holds it in a circle."""
    if own is None:
        vars(worker).pop("run", None)
    else:
        vars(worker)["run"] = own


_POOL_METHODS: Final = (
    "apply_async",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
    "imap",
    "imap_unordered",
)
INSTRUMENTOR: Final = Instrumentor(
    "threading",
    (
        Patch(
            "concurrent.futures.thread",
            "ThreadPoolExecutor.submit",
            _submitting(_carry),
        ),
        Patch(
            "concurrent.futures.process",
            "ProcessPoolExecutor.submit",
            _submitting(_hand_over),
        ),
        Patch("threading", "Thread.start", _start_thread),
        Patch("multiprocessing.process", "BaseProcess.start", _start_process),
        Patch("multiprocessing.pool", "Pool.__init__", _make_pool),
        *(
            Patch("multiprocessing.pool", f"Pool.{name}", _give_work)
            for name in _POOL_METHODS
        ),
    ),
)
