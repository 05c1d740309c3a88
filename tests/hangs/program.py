"""Runs one program of the catalogue: `python -m tests.hangs.program MODULE NAME LOOP`.

The environment says where spans go, and where the servers are; see `running`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, Final

import agenttrace
from tests.hangs.catalogue import LIMIT, Loop, Workload, one

_LONGEST: Final = 180
"""Seconds that a program lives at most."""


def run(workload: Workload, loop: Loop) -> None:
    """Trace *workload* as an application is traced, and run it to its end, if any."""
    settings: dict[str, Any] = {"heartbeat_timeout": LIMIT, **workload.settings}
    agenttrace.configure(service_name=workload.name, **settings)
    agenttrace.instrument()
    if loop is Loop.NONE:
        workload.body()
        return
    with asyncio.Runner(loop_factory=_factory(loop)) as runner:
        runner.run(_main(workload, loop))


def _factory(loop: Loop) -> Any:  # noqa: ANN401 - uvloop may not be there
    if loop is not Loop.UVLOOP:
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - only where it is asked for

    return uvloop.new_event_loop


async def _main(workload: Workload, loop: Loop) -> None:
    if loop is Loop.EAGER:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)
    await asyncio.create_task(workload.body(), name="main")


if __name__ == "__main__":
    # Whoever has started it ends it; where that one is gone, the kernel does.
    signal.alarm(_LONGEST)
    _, module, name, kind = sys.argv
    run(one(module, name), Loop(kind))
