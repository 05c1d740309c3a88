"""The files that segments are: what they are called, and what a dead process has left.

Owns the names, `<directory>/<instance>.<number>.spool`, and reading.  It changes
nothing: writing, settling and removing is `segments`' business.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from agenttrace.delivery.frames import Frame, SegmentError, contents_of
from agenttrace.safety import Count, count

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_NAME: Final = re.compile(r"(?P<instance>.+)\.(?P<number>[0-9]{8,18})\.spool")


class Place(NamedTuple):
    """Where a frame stands.

    Args:
        segment: The number of the segment.
        start: Offset of its record.
        end: Offset behind its record.
    """

    segment: int
    start: int
    end: int


class Found(NamedTuple):
    """What one segment file still holds.

    Args:
        path: The file.
        number: Its number.
        frames: What is not known to be settled, in order, each with its place.
        problem: What is wrong with the file, None where it is whole.  A process that
            was killed while it wrote leaves a torn record behind: that is one too.
    """

    path: Path
    number: int
    frames: tuple[tuple[Place, Frame], ...]
    problem: str | None


def instances(directory: str | os.PathLike[str]) -> set[str]:
    """Return every instance that has segments in *directory*.

    Raises:
        OSError: It cannot be listed.
    """
    names = (_NAME.fullmatch(path.name) for path in Path(directory).iterdir())
    return {match["instance"] for match in names if match}


def read(directory: str | os.PathLike[str], instance: str) -> Iterator[Found]:
    """Yield the segments of *instance* in order.  Changes nothing.

    One is in memory at a time.  Those that have a problem are counted
    (`segments_damaged`) and yielded like all others, with the frames that are whole.

    Raises:
        OSError: *directory* cannot be listed.
    """
    for number, path in files_of(directory, instance):
        frames: tuple[tuple[Place, Frame], ...] = ()
        problem = None
        try:
            contents = contents_of(path.read_bytes())
        except FileNotFoundError:
            continue  # settled meanwhile
        except (SegmentError, OSError) as error:
            problem = str(error)
        else:
            frames = tuple(
                (Place(number, one.start, one.end), one.frame)
                for one in contents.unsettled
            )
            if contents.is_damaged:
                problem = f"torn or damaged from byte {contents.end} on"
        if problem:
            count(Count.SEGMENTS_DAMAGED)
        yield Found(path, number, frames, problem)


def ids_in(
    directory: str | os.PathLike[str], instance: str
) -> set[tuple[bytes, bytes]]:
    """Return the trace ids and span ids of all that `read` would find unsettled.

    Raises:
        OSError: *directory* cannot be listed.
    """
    ids: set[tuple[bytes, bytes]] = set()
    for _, path in files_of(directory, instance):
        with suppress(SegmentError, OSError):
            for record in contents_of(path.read_bytes()).unsettled:
                ids.update(record.frame.ids)
    return ids


def path_of(directory: str | os.PathLike[str], instance: str, number: int) -> Path:
    """Return where segment *number* of *instance* is."""
    return Path(directory, f"{instance}.{number:08}.spool")


def files_of(
    directory: str | os.PathLike[str], instance: str
) -> list[tuple[int, Path]]:
    """Return the segments of *instance* by number; none where there is no directory.

    Raises:
        OSError: *directory* cannot be listed.
    """
    try:
        paths = list(Path(directory).iterdir())
    except FileNotFoundError:
        return []
    matches = [(path, _NAME.fullmatch(path.name)) for path in paths]
    return sorted(
        (int(match["number"]), path)
        for path, match in matches
        if match and match["instance"] == instance
    )
