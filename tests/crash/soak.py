"""Kills a worker again and again, and holds what arrives against the truth.

One worker lives at a time, or two; each takes over what the dead have left, and may be
killed at that.  Meanwhile the collector goes and comes back.  At the end one process
recovers in peace, and the truth is compared with what the collector has.

A third of the rounds end from outside, at a random instant; in the others the worker
kills itself at one of the instants that `crashpoints` names, which are microseconds
wide, and after that whoever takes it over does.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import select
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import agenttrace
from agenttrace.delivery.senders import http as _preloaded  # noqa: F401  # pyright: ignore[reportUnusedImport] - imported once, not in every worker
from agenttrace.settings import INSTANCES
from tests.crash import census, truth, worker
from tests.crash.census import Found
from tests.crash.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

_DYING: Final = ("mid append", "frame appended", "sent", "acknowledged")
_RECOVERING: Final = ("recovered", "recovered and appended", "recovered and settled")
_PASSES: Final = {
    "sent": 3,
    "recovered and settled": 4,
    "recovered": 1,
    "recovered and appended": 1,
}
_MOST_PASSES: Final = 8
_ANSWERED: Final = ("sent", "acknowledged", "recovered and settled")
"""Where nobody comes without an answer from the collector."""
_RECOVERER: Final = "recovered"
_TOO_LONG: Final = 3.0
"""Seconds that a worker may take to come to the instant that it is to die at."""


class Lives(NamedTuple):
    """How long workers live: a range in seconds, and how many of a hundred have it."""

    longest: float
    share: int


_LIVES: Final = (Lives(0.1, 55), Lives(0.3, 35), Lives(1.2, 10))
_TWINS: Final = 0.3
"""How likely two workers live, and die, at a time."""
_OUTAGE: Final = 0.25
"""How likely the collector is down when a worker starts."""


@dataclass(slots=True)
class Report:
    """What came of a soak.

    Args:
        kills: How often a worker was killed.
        states: How many kills found each state.
        missed: Kills from inside that never came to their instant.
        findings: What the comparison found.
        files: What was left in the state directory.
        seconds: How long all of it took.
        in_flight: Spans that stood in frames without an answer, at all kills together,
            and that the collector had: what may come once more.
    """

    kills: int = 0
    states: Counter[Found] = field(default_factory=Counter[Found])
    missed: int = 0
    findings: truth.Findings = field(default_factory=truth.Findings)
    files: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    in_flight: int = 0

    @property
    def unseen(self) -> list[Found]:
        """States that no kill has found."""
        return [state for state in Found if not self.states[state]]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, and the soak looked everywhere."""
        return self.findings.is_good and not self.unseen and not self.files


class Soak:
    """One run.

    Args:
        directory: For state and truth; empty.
        kills: How many.
        delay: Seconds that the collector takes to answer.
        seed: Of all that is random.
    """

    def __init__(self, directory: Path, *, kills: int, delay: float, seed: int) -> None:
        self._log = directory / "truth"
        self._state = directory / "state"
        self._instances = self._state / INSTANCES
        self._kills = kills
        self._delay = delay
        self._chance = random.Random(seed)  # noqa: S311 - nothing secret
        self._report = Report()
        self._in_flight: Counter[str] = Counter()

    def run(self, tell: Callable[[Report], object]) -> Report:
        """Kill, recover, compare.

        Args:
            tell: Called after each kill.
        """
        began = time.monotonic()
        report = self._report
        with Receiver() as receiver:
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
            os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
            os.environ["AGENTTRACE_STATE_DIR"] = str(self._state)
            receiver.say(f"delay {self._delay}")
            gc.freeze()  # or every worker would copy what all of them share
            for aim in self._aims():
                if report.kills >= self._kills:
                    break
                is_down = self._chance.random() < _OUTAGE
                if aim is not None and aim.name in _ANSWERED:
                    is_down = False
                receiver.say("down" if is_down else "up")
                self._round(receiver, aim)
                tell(report)
            receiver.say("up")
            receiver.say("delay 0")
            self._recover()
            told = receiver.told()
        lines = self._log.read_text().splitlines()
        report.findings = truth.compare(
            truth.read(lines), told, self._in_flight, worker.SERVICE
        )
        report.files = census.left_in(self._instances)
        report.in_flight = self._in_flight.total()
        report.seconds = time.monotonic() - began
        return report

    def _aims(self) -> Iterator[worker.Aim | None]:
        """Yield what each round aims at: outside, a worker, whoever takes it over.

        Four and three have every pair come by.
        """
        for dying, recovering in zip(
            itertools.cycle(_DYING), itertools.cycle(_RECOVERING), strict=True
        ):
            yield None
            for name in (dying, recovering):
                passes = _PASSES.get(name, _MOST_PASSES)
                yield worker.Aim(name, self._chance.randint(1, passes))

    def _round(self, receiver: Receiver, aim: worker.Aim | None) -> None:
        """Have workers live and die, and look at what they leave."""
        # Two at once: both try to take over whoever died before.
        several = aim is None and self._chance.random() < _TWINS
        pids = {self._start(aim) for _ in range(2 if several else 1)}
        if aim is None:
            time.sleep(self._life())
            is_recoverer = self._kill(pids)
        else:
            is_recoverer = aim.name.startswith(_RECOVERER)
            if not _died(next(iter(pids)), _TOO_LONG):
                self._report.missed += 1
                is_recoverer = self._kill(pids)
        self._report.kills += len(pids)
        if not self._instances.is_dir():
            return
        seen = census.take(self._instances, pids, was_recovering=is_recoverer)
        if self._was_sent(receiver, seen.unsettled):
            seen.found.add(Found.NOT_ACKNOWLEDGED)
        self._report.states.update(seen.found)

    def _start(self, aim: worker.Aim | None) -> int:
        seed = self._chance.getrandbits(32)
        pid = os.fork()
        if pid == 0:
            try:
                worker.live(self._log, seed, aim)
            finally:
                os._exit(1)
        return pid

    def _was_sent(self, receiver: Receiver, unsettled: Counter[str]) -> bool:
        self._in_flight.update(unsettled)
        return bool(unsettled) and receiver.has(unsettled) > 0

    def _life(self) -> float:
        longest = self._chance.choices(
            [each.longest for each in _LIVES], [each.share for each in _LIVES]
        )[0]
        return self._chance.random() * longest

    def _kill(self, pids: AbstractSet[int]) -> bool:
        """Kill *pids* and return whether one of them was recovering others."""
        # Stopped first: what holds a lock can be asked for while it lives, only.
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                message = f"the worker ended by itself, with status {status}"
                raise RuntimeError(message)
        was_recovering = census.is_recovering(self._instances, pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return was_recovering

    def _recover(self) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                agenttrace.configure(service_name="recoverer")
                for _ in range(100):
                    agenttrace.recover(timeout=1)
                    if len(census.left_in(self._instances)) <= 2:  # its own
                        break
                agenttrace.shutdown(10)
                code = 0
            finally:
                os._exit(code)
        os.waitpid(pid, 0)


def _died(pid: int, timeout: float) -> bool:
    """Return whether *pid* kills itself in time."""
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], timeout)
        finally:
            os.close(descriptor)
        done, status = os.waitpid(pid, os.WNOHANG)
    else:  # macOS
        deadline = time.monotonic() + timeout
        done = status = 0
        while not done and time.monotonic() < deadline:
            time.sleep(0.002)
            done, status = os.waitpid(pid, os.WNOHANG)
    if done and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        message = f"the worker ended by itself, with status {status}"
        raise RuntimeError(message)
    return bool(done)
