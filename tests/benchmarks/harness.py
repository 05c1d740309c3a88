"""What every benchmark needs: tracing that is on, fair turns, and a median.

A case measures in a process of its own (`python -m tests.benchmarks.cases.span`), so
that none finds the caches, threads and garbage of another; in a release's table in
several, because where things happen to lie in memory is worth some per cent in one
process and another value in the next.  What is compared takes
turns within that process, in small batches and in alternating order: a machine that is
shared becomes slower for minutes, and then it does for both.  Times are CPU times.

A case yields `Figure`s, `main` prints them as JSON, and `measure` reads them back.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from agenttrace.runtime import Runtime
    from tests.benchmarks.servers import Receiver

REPOSITORY: Final = Path(__file__).parents[2]
_PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Figure:
    """What came out for one row of the budgets.

    Args:
        row: The row's key in `budgets.BUDGETS`.
        samples: What each round came to, in the row's unit.
        made_of: What they were computed from, for the reader.
    """

    row: str
    samples: Sequence[float]
    made_of: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which half of the rounds lie."""
        if len(self.samples) < 2:
            return self.value, self.value
        low, _, high = quantiles(self.samples, n=4, method="inclusive")
        return low, high


def in_turns(
    rounds: int, *sides: Callable[[], float], takes: int = 1
) -> list[list[float]]:
    """Measure *sides* by turns; return for each what it came to, round by round.

    One round of warming up is not counted.  Sides that share caches belong together,
    those that do not apart: every take finds what the one before has left.

    Args:
        rounds: How many samples each side gets.
        sides: What to measure; each measures itself and returns what it found.
        takes: A sample is the lower quartile of so many, which take turns as well:
            whatever else a machine does only ever adds to them.
    """
    samples: list[list[float]] = [[] for _ in sides]
    # What was there before is nobody's; with it, collections would cost more the
    # more modules happen to be loaded.
    gc.collect()
    gc.freeze()
    for number in range(rounds + 1):
        taken: list[list[float]] = [[] for _ in sides]
        for take in range(takes):
            turns = list(zip(sides, taken, strict=True))
            for side, values in turns if (number + take) % 2 else reversed(turns):
                values.append(side())
        if number:
            for values, new in zip(samples, taken, strict=True):
                values.append(undisturbed(new))
    return samples


def undisturbed(takes: Sequence[float]) -> float:
    """Return the lower quartile of *takes*: what is in the way only ever adds."""
    return sorted(takes)[len(takes) // 4]


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def differences(larger: Sequence[float], smaller: Sequence[float]) -> list[float]:
    """Return the difference of each round."""
    return [a - b for a, b in zip(larger, smaller, strict=True)]


def against(over: Sequence[float], under: Sequence[float], unit: str = "us") -> str:
    """Return the medians that a ratio or a difference is made of, as a phrase."""
    return f"{median(over):.3g} {unit} against {median(under):.3g} {unit}"


@contextmanager
def tracing(delay: float = 0.0) -> Generator[tuple[Runtime, Receiver]]:
    """Configure agenttrace as an application would, and check afterwards that it was.

    Its spans go by OTLP to a receiver in another process, and every span that has
    started must have arrived there when the case is over.

    Args:
        delay: Seconds that the receiver takes to answer a request.
    """
    import agenttrace  # noqa: PLC0415 - what importing it costs is a row of its own
    from tests.benchmarks.servers import receiver  # noqa: PLC0415 - the same

    with receiver(delay) as backend:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = backend.url
        runtime = agenttrace.configure(service_name="benchmark")
        yield runtime, backend
        everything_arrived(runtime, backend)
        runtime.shutdown()


def everything_arrived(runtime: Runtime, backend: Receiver) -> None:
    """Check that what was measured was switched on, and lost nothing.

    Raises:
        AssertionError: It was not, or it did.
    """
    flushed = runtime.flush(120)
    status = runtime.status()
    delivery = status.delivery
    assert flushed
    assert status.mode == "own"
    assert status.destinations == ("otlp",)
    assert status.safe_context
    assert status.guard_hits == {}
    assert status.open == 0
    assert delivery is not None
    assert delivery.dropped == 0
    assert status.started == delivery.acknowledged == backend.spans()


def conditions() -> list[str]:
    """Return what of the defaults was not there yet, for the caption of the table."""
    from agenttrace.runtime.core import current  # noqa: PLC0415 - as above

    runtime = current()
    if runtime is None or runtime.status().journal:
        return []
    return ["without journal"]


def main(case: Callable[[int], Iterable[Figure]]) -> None:
    """Run *case* as a program: measure and print JSON."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as state:
        os.environ["AGENTTRACE_STATE_DIR"] = state
        figures = [asdict(each) for each in case(rounds)]
        json.dump({"figures": figures, "conditions": conditions()}, sys.stdout)


def measure(
    case: str, rounds: int, processes: int = 1
) -> tuple[list[Figure], list[str]]:
    """Run the case of that name in processes of its own.

    Returns:
        Its figures, and the conditions under which they were measured.

    Raises:
        RuntimeError: It failed.
    """
    found: dict[str, Figure] = {}
    conditions: list[str] = []
    for _ in range(processes):
        share = max(1, rounds // processes)
        done = run("-m", f"tests.benchmarks.cases.{case}", str(share))
        answer: dict[str, Any] = json.loads(done)
        conditions = answer["conditions"]
        for more in answer["figures"]:
            new = Figure(**more)
            before = found.get(new.row)
            samples = [*(before.samples if before else ()), *new.samples]
            found[new.row] = Figure(new.row, samples, new.made_of)
    return list(found.values()), conditions


def run(*arguments: str, more: Mapping[str, str] | None = None) -> str:
    """Run an interpreter with *arguments* and return what it prints.

    Args:
        arguments: What to run.
        more: Further environment variables.

    Raises:
        RuntimeError: It failed; the message has what it said.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env={**environment(), **(more or {})},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        message = f"{' '.join(arguments)} failed:\n{done.stderr}"
        raise RuntimeError(message)
    return done.stdout


def environment() -> dict[str, str]:
    """Return the environment without what would change what is measured."""
    return {
        name: value
        for name, value in os.environ.items()
        # Byte code has to be cached, or every start would measure the compiler.
        if not name.startswith(("OTEL_", "AGENTTRACE_", "PYTHONDONTWRITE", "COV"))
    }
