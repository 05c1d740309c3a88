"""The state directory: whether open and unsent spans can be kept there."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agenttrace.diagnosis.findings import Finding, ok, problem, warning
from agenttrace.journal import hold
from agenttrace.settings import INSTANCES, MEBIBYTE

if TYPE_CHECKING:
    from collections.abc import Iterator

_LITTLE: Final = 64 * MEBIBYTE
_ENOUGH: Final = 512 * MEBIBYTE
"""About what a store, a spool and some journals take at their largest."""
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ELSEWHERE: Final = "set AGENTTRACE_STATE_DIR to a directory on a local disk"
_OF_THE_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs"})
_GONE_WITH: Final = {
    "tmpfs": "what it holds is gone after a restart of the machine, or with the pod",
    "ramfs": "what it holds is gone after a restart of the machine",
    "overlay": "a container's own layer, which goes with the container",
}


def checks(directory: Path) -> Iterator[Finding]:
    """Yield what there is to say of *directory*."""
    try:
        facts = directory.stat()
    except FileNotFoundError:
        yield _missing(directory)
        directory = _nearest(directory)
        yield _room(directory)
        yield _file_system(directory)
        return
    except OSError as error:
        yield problem("state directory", f"{directory}: {error.strerror}", _ELSEWHERE)
        return
    if not stat.S_ISDIR(facts.st_mode):
        yield problem("state directory", f"{directory} is no directory", _ELSEWHERE)
        return
    yield ok("state directory", str(directory))
    yield _private(directory)
    yield from _usable(directory)
    yield _room(directory)
    yield _file_system(directory)


def _missing(directory: Path) -> Finding:
    above = _nearest(directory)
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok(
            "state directory", f"{directory} will be made by the first that traces"
        )
    return problem(
        "state directory",
        f"{directory} is not there and cannot be made in {above}",
        "make it for this user (mode 700), or set AGENTTRACE_STATE_DIR",
    )


def _nearest(directory: Path) -> Path:
    """Return the first directory above that is there."""
    return next(path for path in [*directory.parents] if path.exists())


def _private(directory: Path) -> Finding:
    if sys.platform == "win32":
        return ok("private", "as the user's profile is")
    for path in (directory, directory / INSTANCES):
        try:
            facts = path.stat()
        except OSError:  # not there, or for the check of what is in it to tell
            continue
        if facts.st_uid != os.geteuid():
            return problem(
                "private",
                f"{path} belongs to user {facts.st_uid}, this is {os.geteuid()}",
                "give each user a state directory of their own",
            )
        if facts.st_mode & 0o077:
            mode = stat.S_IMODE(facts.st_mode)
            return warning(
                "private",
                f"{path} has mode {mode:o}: others may look into it",
                f"chmod 700 {path}",
            )
    return ok("private", "for this user alone")


def _usable(directory: Path) -> Iterator[Finding]:
    """Try all that a journal needs, in a directory of a moment's life."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".doctor-", dir=directory))
    except OSError as error:
        yield problem(
            "writable",
            f"nothing can be written there: {error.strerror}",
            f"make it writable for this user, or {_ELSEWHERE}",
        )
        return
    try:
        yield ok("writable", "files can be made")
        yield _locks(place)
        yield _maps(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _locks(place: Path) -> Finding:
    try:
        hold(place, "doctor").release(remove=True)
    except OSError as error:
        said = f"files cannot be locked there ({error.strerror}): no journal is kept"
        if sys.platform == "win32":  # which nobody there can mend
            return warning("locks", said, "none: Windows has no locks a crash frees")
        return problem("locks", said, _ELSEWHERE)
    return ok("locks", "files can be locked")


def _maps(place: Path) -> Finding:
    path = place / "map"
    try:
        with path.open("wb+") as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
                mapped[:6] = b"doctor"
            file.seek(0)
            kept = file.read(6)
    except (OSError, ValueError) as error:
        return problem("maps", f"files cannot be mapped there: {error}", _ELSEWHERE)
    if kept != b"doctor":
        return problem("maps", "what is mapped is not what is read", _ELSEWHERE)
    return ok("maps", "files can be mapped")


def _room(directory: Path) -> Finding:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return warning("room", f"cannot be found out: {error.strerror}", _ELSEWHERE)
    said = f"{free // MEBIBYTE:,} MiB are free"
    remedy = f"make room, or {_ELSEWHERE}"
    if free < _LITTLE:
        return problem("room", f"{said}: spans may be lost with their process", remedy)
    if free < _ENOUGH:
        return warning("room", f"{said}; an outage may fill them", remedy)
    return ok("room", said)


def _file_system(directory: Path) -> Finding:
    try:
        kind = kind_of(directory.resolve(), _MOUNTS.read_text())
    except OSError:
        kind = None
    if kind is None:
        return ok("file system", "its kind is not known")
    if kind in _OF_THE_NETWORK or kind.startswith("fuse."):
        return warning(
            "file system",
            f"{kind}, over a network: locks, maps and the store may fail",
            _ELSEWHERE,
        )
    if kind in _GONE_WITH:
        return warning(
            "file system",
            f"{kind}: {_GONE_WITH[kind]}",
            "for spans that survive that, put the state directory on a volume",
        )
    return ok("file system", kind)


def kind_of(path: Path, mounts: str) -> str | None:
    """Return the kind of file system *path* is on, None if *mounts* does not say.

    Args:
        path: Without links.
        mounts: What `/proc/self/mountinfo` says, see proc(5).

    >>> kind_of(Path("/srv/me"), "36 35 98:0 / /srv rw - nfs4 server:/srv rw")
    'nfs4'
    """
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:  # noqa: PLR2004 - the fifth is the place
            continue
        place = Path(_unescaped(fields[4]))
        depth = len(place.parts)
        # Of two at the same place the later one hides the other.
        if path.is_relative_to(place) and (found is None or depth >= found[0]):
            found = (depth, after.split()[0])
    return None if found is None else found[1]


def _unescaped(place: str) -> str:
    for escape, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n")):
        place = place.replace(escape, character)
    return place.replace(r"\134", "\\")
