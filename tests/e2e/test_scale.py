"""That the figures of `docs/explanation/scale.md` can be measured again."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from tests.e2e import scale

if TYPE_CHECKING:
    from pathlib import Path


def test_all_that_a_worker_sends_is_carried(tmp_path: Path) -> None:
    """A figure for each span that arrives is none where some do not."""
    arguments = Namespace(seconds=1.0, rate=1000.0, workers=1)
    name = "a queue on disk"

    way = scale.carried(name, arguments, tmp_path / "it", **scale.WAYS[name])

    assert way.spans == way.sent > 0
    assert way.collector > 0


def test_a_span_has_a_weight() -> None:
    """What is compressed is smaller, and a slot of the journal has one size."""
    plain, compressed, slot = (size for _, size in scale.weighed())

    assert compressed < plain < 1000
    assert 512 <= slot < 640
