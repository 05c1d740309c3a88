"""Recovery by a command: no runtime, no spans of its own, only what the dead have left.

It delivers where `configure()` would, for the same environment: to OTLP where there is
an endpoint, else to the embedded store.  A `span_exporter=` of the application's it
cannot know.

What is recovered is `recovery`'s business, and what is shown of it the commands'.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from agenttrace.delivery.spooler import Spooler
from agenttrace.errors import SettingError
from agenttrace.recovery import Recovered, Recovery
from agenttrace.runtime.destinations import senders_of, timeout_of
from agenttrace.settings import INSTANCES, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

_MOST: Final = 1 << 40
"""Bytes that may wait: how many there are is limited by recovery, which drops none."""
_PATIENCE: Final = 1.0
"""Seconds that closing waits for a request that is under way."""

_QUOTED: Final = re.compile(r"'(.+)'")


class Progress(NamedTuple):
    """How far a rescue has come, since it was made.

    Args:
        delivered: Spans that every destination has acknowledged.
        refused: Spans that some destination will never take.
        error: What went wrong last on the way there, None if nothing did.
    """

    delivered: int
    refused: int
    error: str | None


class Rescue:
    """Delivers what dead processes have left in *directory*; a context manager.

    Args:
        directory: The state directory.

    Attributes:
        destinations: Where spans go, by name: `otlp`, `console`, `store`.

    Raises:
        SettingError: The environment says something that cannot be meant, or that
            spans go nowhere; or *directory* cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        settings = resolve({"state_dir": str(directory)})
        instances = settings.state_dir / INSTANCES
        _check_readable(instances)
        senders = senders_of(settings)
        if not senders:
            raise SettingError(
                setting="OTEL_TRACES_EXPORTER",
                value="none",
                allowed="somewhere to deliver to: otlp, console or store",
            )
        self.destinations = tuple(senders)
        self._senders = tuple(senders.values())
        self._spooler = Spooler(
            self._senders,
            max_bytes=_MOST,
            timeout=timeout_of(senders),
            name="agenttrace-rescue",
        )
        self._recovery = Recovery(instances, self._spooler.resume)
        self._looking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def look(
        self,
        tell: Callable[[Recovered], object] | None = None,
        tell_of_one: Callable[[Path, Recovered], object] | None = None,
    ) -> threading.Thread:
        """Take over whoever is dead now, on the thread that is returned.

        That waits while much is on its way, until `stop`.  The caller's thread is free
        to show how far it is, and to be interrupted.

        Args:
            tell: Called there with what was found so far, after each batch.
            tell_of_one: Called there after each process, with its lock file.
        """
        thread = threading.Thread(
            target=self._look,
            args=(tell, tell_of_one),
            name="agenttrace-rescue-look",
            daemon=True,
        )
        thread.start()
        return thread

    def _look(
        self,
        tell: Callable[[Recovered], object] | None,
        tell_of_one: Callable[[Path, Recovered], object] | None,
    ) -> None:
        with self._looking:  # one that was interrupted may still be at it
            self._recovery.run(tell, tell_of_one)

    def wait(self, timeout: float) -> bool:
        """Return whether all of it is delivered, or refused for good, in time.

        Args:
            timeout: Longest wait in seconds.
        """
        return self._recovery.wait(timeout)

    @property
    def found(self) -> Recovered:
        """What all looks have found."""
        return self._recovery.total

    def progress(self) -> Progress:
        """Return how far it has come."""
        status = self._spooler.status()
        errors = [lane.last_error for lane in status.lanes if lane.last_error]
        return Progress(
            status.acknowledged, status.dropped, errors[-1] if errors else None
        )

    def whereto(self) -> str:
        """Return where spans go, for people: without anything secret."""
        said = (repr(sender) for sender in self._senders)
        quoted = ((_QUOTED.search(each), each) for each in said)
        return " and ".join(found[1] if found else each for found, each in quoted)

    def stop(self) -> None:
        """Take nothing more over; a look that is waiting returns."""
        self._recovery.stop()

    def close(self, timeout: float = _PATIENCE) -> None:
        """Stop, and leave what is not delivered to the next one.

        Args:
            timeout: Seconds to wait for a request that is under way.
        """
        self._recovery.stop()
        self._spooler.shutdown(timeout)
        self._recovery.close()


def _check_readable(directory: Path) -> None:
    allowed = "a directory that this user may read and write"
    try:
        # A damaged disk says so here, and a look would find nobody there.
        with os.scandir(directory) as entries:
            next(entries, None)
        if os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            return
        cause = None
    except FileNotFoundError:
        return
    except OSError as error:
        cause = error
        allowed += f" ({error.strerror})"
    raise SettingError(
        setting="state_dir", value=str(directory.parent), allowed=allowed
    ) from cause
