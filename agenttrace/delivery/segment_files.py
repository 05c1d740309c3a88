"""The files that segments are: what they are called, and what a dead process has left.

Owns the names, `<directory>/<instance>.<number>.spool`, and reading.  It changes
nothing: writing, settling and removing is `segments`' business.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from agenttrace.delivery.frames import Contents, Frame, SegmentError, contents_of
from agenttrace.records import NamedTuple
from agenttrace.safety import Count, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Files: TypeAlias = "Sequence[tuple[int, Path]]"
"""Segments of one instance by number."""

_LARGEST: Final = 256 * 2**20
"""Bytes of a file that are read at most: what is beyond them counts as torn off.

A segment has 4 MiB, or one frame of the limit on requests; a file that is larger than
this one is damaged, and not to be the end of who reads it.
"""
# A pipe of that name would wait for its writer; a link is not ours to follow.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NAME: Final = r"(?P<instance>.+)\.(?P<number>[0-9]{8,18})\.spool"
# Compiled by who reads, which a process that is never killed does not.


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


def read(
    directory: str | os.PathLike[str], instance: str, files: Files | None = None
) -> Iterator[Found]:
    """Yield the segments of *instance* in order.  Changes nothing.

    One is in memory at a time.  Those that have a problem are counted
    (`segments_damaged`) and yielded like all others, with the frames that are whole.

    Args:
        directory: Where they are.
        instance: Whose they are.
        files: Them, where they have been listed.

    Raises:
        OSError: *directory* cannot be listed.
    """
    for number, path in files_of(directory, instance) if files is None else files:
        frames: tuple[tuple[Place, Frame], ...] = ()
        problem = None
        try:
            contents = contents_at(path)
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


def contents_at(path: Path) -> Contents:
    """Return what the segment at *path* says.

    Raises:
        OSError: It cannot be read.
        SegmentError: It is no segment, or of a version that is not known here.
    """
    message = "this is not a file"
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SegmentError(message) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SegmentError(message)
        with open(descriptor, "rb", closefd=False) as file:
            return contents_of(file.read(_LARGEST))
    finally:
        os.close(descriptor)


def by_instance(directory: str | os.PathLike[str]) -> dict[str, Files]:
    """Return the segments of every instance, each by number.

    For who asks for many: a directory is listed as a whole.

    Raises:
        OSError: *directory* cannot be listed.
    """
    found: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for name in os.listdir(directory):  # noqa: PTH208 - ten thousand paths cost more
        if match := re.fullmatch(_NAME, name):
            path = Path(directory, name)
            found[match["instance"]].append((int(match["number"]), path))
    return {instance: sorted(files) for instance, files in found.items()}


def path_of(directory: str | os.PathLike[str], instance: str, number: int) -> Path:
    """Return where segment *number* of *instance* is."""
    return Path(directory, f"{instance}.{number:08}.spool")


def files_of(directory: str | os.PathLike[str], instance: str) -> Files:
    """Return the segments of *instance* by number; none where there is no directory.

    Raises:
        OSError: *directory* cannot be listed.
    """
    try:
        return by_instance(directory).get(instance, ())
    except FileNotFoundError:
        return ()
