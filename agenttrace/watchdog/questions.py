"""Questions to a process about its open spans, and its answers: small files.

Whoever asks puts `<process>.<nonce>.ask` into a directory that both know, and makes the
directory for it.  The process that is asked renames it to `.taken`, writes `.answer`
beside it, and removes the question; who has asked removes the answer, and the directory
when nothing is in it.  `<process>` is what the names of all its journals begin with.

Everything is JSON with a `version`, of this user alone (mode 0600), whole or not there
(written under another name, then renamed).  What stands in the directory is not
believed: a link, a pipe, a file of somebody else or one that is too large is no
question and no answer.

This module owns names and files.  When a process looks is `runtime.questions`', what it
says `answers`', and who asks `live`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any, Final, Self, cast

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

DIRECTORY: Final = "questions"
"""Among the files of processes (`settings.INSTANCES`)."""
VERSION: Final = 1
ASK, TAKEN, ANSWER = "ask", "taken", "answer"
"""What names end in."""
LARGEST_QUESTION: Final = 1 << 16
LARGEST_ANSWER: Final = 1 << 23
STALE: Final = 60.0
"""Seconds after which nobody waits for an answer any more."""
_NONCE: Final = 16
"""Hexadecimal digits."""
_PARTS: Final = 3
_FLAGS: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    # Or opening a pipe of that name would wait for its writer.
    | getattr(os, "O_NONBLOCK", 0)
)
_OTHERS_MAY_WRITE: Final = 0o022


def name_of(process: str, nonce: str, kind: str) -> str:
    """Return the name of the file of this *kind* of one question."""
    return f"{process}.{nonce}.{kind}"


def parts_of(name: str) -> tuple[str, str, str] | None:
    """Return process, nonce and kind of the file *name*; None where it is no such file.

    >>> parts_of("7-0123456789ab.0123456789abcdef.ask")
    ('7-0123456789ab', '0123456789abcdef', 'ask')
    >>> parts_of("7-0123456789ab.journal")
    """
    parts = name.split(".")
    if len(parts) != _PARTS or len(parts[1]) != _NONCE:
        return None
    return parts[0], parts[1], parts[2]


class Box:
    """The directory of the questions, open; a context manager.

    Args:
        path: Where it is.

    Raises:
        OSError: It is not there, is a link, or is not this user's alone.
    """

    def __init__(self, path: str | Path) -> None:
        flags = os.O_RDONLY | _FLAGS | getattr(os, "O_DIRECTORY", 0)
        self._descriptor = os.open(path, flags)
        facts = os.fstat(self._descriptor)
        if facts.st_uid != os.geteuid() or facts.st_mode & _OTHERS_MAY_WRITE:
            self.close()
            message = "it is not this user's alone"
            raise PermissionError(errno.EPERM, message, str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of it; a second time nothing happens."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return the names of the files in it.

        Raises:
            OSError: It cannot be listed.
        """
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 - a descriptor

    def put(self, name: str, said: object) -> None:
        """Write *said* to a file *name*, which is there as a whole or not at all.

        Raises:
            OSError: It cannot be written, or the directory was removed.
        """
        draft = f"{name}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        descriptor = os.open(draft, flags, 0o600, dir_fd=self._descriptor)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(json.dumps(said).encode())
            self.rename(draft, name)
        except BaseException:
            self.remove(draft)
            raise

    def get(self, name: str, largest: int) -> dict[str, Any] | None:
        """Return what the file *name* says; None where it is none that can be believed.

        Args:
            name: Its name.
            largest: Bytes that it may have.
        """
        try:
            descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._descriptor)
        except OSError:
            return None
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            facts = os.fstat(descriptor)
            if (
                not stat.S_ISREG(facts.st_mode)
                or facts.st_uid != os.geteuid()
                or facts.st_size > largest
            ):
                return None
            try:
                said: object = json.loads(file.read(largest))
            except (OSError, ValueError, RecursionError):
                return None
        if not isinstance(said, dict):
            return None
        found = cast("dict[str, Any]", said)
        return found if found.get("version") == VERSION else None

    def has(self, name: str) -> bool:
        """Return whether there is a file *name*."""
        return self._facts(name) is not None

    def is_stale(self, name: str) -> bool:
        """Return whether the file *name* was written so long ago that nobody waits."""
        facts = self._facts(name)
        return facts is None or abs(time.time() - facts.st_mtime) > STALE

    def rename(self, name: str, other: str) -> None:
        """Rename the file *name*.

        Raises:
            OSError: It is not there any more.
        """
        here = self._descriptor
        os.rename(name, other, src_dir_fd=here, dst_dir_fd=here)

    def remove(self, name: str) -> None:
        """Remove the file *name*, if it is there and can be."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)

    def withdraw(self, process: str, nonce: str) -> None:
        """Remove one question, and what has become of it.

        Unlike `forget` without another descriptor, which there may be none of.
        """
        for kind in (ASK, TAKEN, ANSWER):
            self.remove(name_of(process, nonce, kind))

    def _facts(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return None


def forget(directory: Path, process: str, nonce: str | None = None) -> None:
    """Remove what was asked of a process and what it has answered, drafts as well.

    Args:
        directory: Where processes have their files.
        process: What the names of its journals begin with.
        nonce: Of one question, with which goes whatever is so old that nobody waits
            for it; None for all, where the process is dead.
    """
    path = directory / DIRECTORY
    begin = f"{process}." if nonce is None else f"{process}.{nonce}."
    with contextlib.suppress(OSError), Box(path) as box:
        for name in box.names():
            if name.startswith(begin) or (nonce and box.is_stale(name)):
                box.remove(name)
    with contextlib.suppress(OSError):
        path.rmdir()  # where nothing is left in it
