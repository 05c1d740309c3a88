"""The event loops that everything about contexts has to hold on, as one fixture.

A test that takes the fixture `runner` is run once for each of them, and is a row of the
table that `tests.context.table` prints.  A runner that cannot exist on this interpreter
says why instead of being left out.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from tests.context.table import CELL

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


@dataclass(frozen=True)
class Runner:
    """A way to run coroutines.

    Args:
        name: How the table calls it.
        make: Makes a new event loop.
        eager: Whether tasks begin to run where they are created.
        missing: Why it cannot exist here; None where it does.
    """

    name: str
    make: Callable[[], asyncio.AbstractEventLoop] | None
    eager: bool = False
    missing: str | None = None

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop of this kind, which the caller closes."""
        assert self.make is not None
        loop = self.make()
        if self.eager:
            loop.set_task_factory(self.eager_factory())
        return loop

    @staticmethod
    def eager_factory() -> Any:  # noqa: ANN401 - of a type that 3.11 does not know
        """Return the task factory that begins tasks where they are created."""
        return vars(asyncio)["eager_task_factory"]

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run *main* in a new loop, and close that as `asyncio.run` does."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(main)


def _kinds() -> list[Runner]:
    try:
        # It brings no types that both checkers understand.
        uvloop_new: Any = importlib.import_module("uvloop").new_event_loop
        no_uvloop = None
    except ImportError:
        uvloop_new, no_uvloop = None, "uvloop is not made for this platform"
    no_eager = None
    if sys.version_info < (3, 12):
        no_eager = "eager tasks came with Python 3.12"
    no_uvloop_eager = no_uvloop or no_eager
    if sys.version_info >= (3, 13) and "eager_start" not in (
        inspect.signature(Runner.eager_factory()).parameters
    ):
        # An adapter would not do: anyio knows eager tasks by the factory itself.
        no_uvloop_eager = "its eager task factory refuses what uvloop hands it"
    return [
        Runner("asyncio", asyncio.new_event_loop),
        Runner("asyncio-eager", asyncio.new_event_loop, eager=True, missing=no_eager),
        Runner("uvloop", uvloop_new, missing=no_uvloop),
        Runner("uvloop-eager", uvloop_new, eager=True, missing=no_uvloop_eager),
    ]


RUNNERS: Final = _kinds()


@pytest.fixture(params=RUNNERS, ids=[runner.name for runner in RUNNERS])
def runner(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Runner:
    """Return each kind of event loop in turn, and name the cell of the table."""
    kind: Runner = request.param
    parameters = request.node.callspec.params
    row = parameters.get("scenario", request.node.originalname.removeprefix("test_"))
    record_property(CELL, [str(row), kind.name, kind.missing])
    if kind.missing is not None:
        pytest.skip(kind.missing)
    return kind
