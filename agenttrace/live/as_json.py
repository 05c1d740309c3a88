"""What is open as JSON has it: the command line and the page tell the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agenttrace import clock
from agenttrace.delivery.store.as_json import nested

if TYPE_CHECKING:
    from agenttrace.live.processes import Dead, Picture, Process
    from agenttrace.live.steps import Step


def picture_as_json(picture: Picture) -> dict[str, object]:
    """Return all of *picture*, its steps nested."""
    return {
        "time": clock.iso(picture.now),
        "processes": [_process_as_json(each) for each in picture.processes],
        "dead": [dead_as_json(each) for each in picture.dead],
        "unreadable": [each._asdict() for each in picture.unreadable],
    }


def _process_as_json(process: Process) -> dict[str, object]:
    forest = process.forest
    return {
        "pid": process.pid,
        "service": process.service,
        "instances": list(process.instances),
        "last_tick": clock.iso(process.last_tick),
        "silence": round(process.silence, 3),
        "frozen": process.is_frozen,
        "step_count": len(forest.steps),
        "judged_count": forest.judged,
        "runs": nested(forest.tops, step_as_json),
    }


def dead_as_json(dead: Dead) -> dict[str, object]:
    """Return a process that died."""
    return {**dead._asdict(), "last_tick": clock.iso(dead.last_tick)}


def step_as_json(step: Step) -> dict[str, object]:
    """Return *step*, without what is beneath it."""
    slot = step.slot
    pressure = step.pressure
    return {
        "trace_id": slot.trace_id.hex(),
        "span_id": slot.span_id.hex(),
        "parent_id": slot.parent_id.hex() or None,
        "name": slot.name,
        "operation": slot.operation,
        "agent": step.agent,
        "tool": step.tool,
        "model": step.model,
        "provider": step.provider,
        "conversation": step.conversation,
        "scope": slot.scope_name,
        "start": clock.iso(slot.started_at),
        "last_heartbeat": clock.iso(step.last_beat),
        "open": round(step.age, 3),
        "max_duration": step.max_duration,
        "idle": round(step.idle, 3),
        "heartbeat_timeout": step.limit,
        "waiting": step.is_waiting,
        "pressure": round(pressure, 3) if math.isfinite(pressure) else None,
        "judged": step.is_judged,
        "verdict": step.verdict,
    }
