"""How long to wait before the same frame is tried again: numbers in, number out."""

from __future__ import annotations

import random

from agenttrace.records import NamedTuple


class Retry(NamedTuple):
    """Waits that double from *first* to *longest* seconds, each with jitter.

    Jitter takes away up to half: a fleet whose collector restarts must not come back
    as one.

    Args:
        first: Seconds before the first repetition.
        longest: Seconds that no wait of our own exceeds.
        longest_asked: Seconds that we wait at most where the destination says how
            long: one that answers garbage must not silence us for years.
    """

    first: float = 1.0
    longest: float = 30.0
    longest_asked: float = 300.0

    def wait(
        self, failures: int, asked: float | None = None, *, share: float | None = None
    ) -> float:
        """Return the seconds to wait after *failures* failures in a row.

        Args:
            failures: At least 1.
            asked: Seconds the destination asked for; not more often than our own
                first wait, so that a zero does not make us a denial of service.
            share: How much of the jitter to take away, 0 to 1; None draws it.

        >>> [Retry().wait(failures, share=0) for failures in (1, 2, 3, 6, 1_000_000)]
        [1.0, 2.0, 4.0, 30.0, 30.0]
        >>> Retry().wait(1, asked=7)
        7
        """
        drawn = random.random() if share is None else share  # noqa: S311 - nothing secret hangs on it
        if asked is not None:
            return min(max(asked, self.first / 2), self.longest_asked)
        # The exponent is bounded because 2.0 ** 1024 is an OverflowError.
        doubled = self.first * 2.0 ** min(failures - 1, 64)
        return min(doubled, self.longest) * (1 - drawn / 2)
