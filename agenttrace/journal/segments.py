"""The journal's file on disk: created, allocated and mapped.

When it grows, all of it is mapped once more, and the mapping before stays for the spans
that have slots of it: both show the same memory.  Blocks are allocated before they are
mapped: to write into a hole of a file on a full disk kills the process with SIGBUS.
For the same reason nothing is ever truncated.

What stands in the slots, and who may have one, is `file`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from typing import TYPE_CHECKING, Final

from agenttrace.journal.format import (
    HEADER_MULTIPLE,
    SLOT_SIZE,
    Header,
    pack_header,
)

if TYPE_CHECKING:
    from pathlib import Path

WORDS: Final = SLOT_SIZE // 8
"""Words of a slot."""
_GRANULARITY: Final = max(HEADER_MULTIPLE, mmap.ALLOCATIONGRANULARITY)
"""Where a mapping may begin: 4, 16 or 64 KiB, as the platform likes it."""
MULTIPLE: Final = _GRANULARITY // SLOT_SIZE
"""Of how many slots at a time it is made."""
_NO_FALLOCATE: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_ZEROS: Final = bytes(1 << 16)


class SlotFile:
    """A file of slots, of which this process is the only writer.

    Args:
        path: Where it is created, readable by its owner alone.
        header: What it begins with.

    Attributes:
        path: The file.
        head: The header's page, word by word.
        size: Bytes of the file that are mapped.
        slots: How many slots those have.
        words: The slots, word by word.

    Raises:
        OSError: It cannot be created: it exists, or the disk is full or read-only.
    """

    def __init__(self, path: Path, header: Header) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        packed = pack_header(header, _GRANULARITY)
        self.path = path
        self.slots = 0
        self._descriptor = os.open(path, flags, 0o600)
        try:
            _allocate(self._descriptor, 0, len(packed))
            os.pwrite(self._descriptor, packed, 0)
            self.head = self._map(0, len(packed))
            self.words = memoryview(b"").cast("Q")
        except BaseException:
            self.close(remove=True)
            raise
        self.size = len(packed)

    def add(self, slots: int) -> None:
        """Allocate *slots* more, a multiple of `MULTIPLE`, and map all there are.

        Raises:
            OSError: There is no room; all is as it was, and it can be tried again.
        """
        length = slots * SLOT_SIZE
        _allocate(self._descriptor, self.size, length)
        start = len(self.head) * 8
        self.words = self._map(start, self.size - start + length)
        self.size += length
        self.slots += slots

    def close(self, *, remove: bool) -> None:
        """Close the file.  Mappings stay as long as somebody has words of them.

        Raises:
            OSError: It could not be removed.
        """
        self.head = self.words = memoryview(b"").cast("Q")
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        if remove:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _map(self, offset: int, length: int) -> memoryview[int]:
        # The memoryview keeps the mapping, and whoever has the one has the other: a
        # heartbeat that comes after `close` still finds its memory.
        mapping = mmap.mmap(self._descriptor, length, offset=offset)
        return memoryview(mapping).cast("Q")


def _allocate(descriptor: int, offset: int, length: int) -> None:
    """Give the file blocks of zeros; it may have them already.

    Raises:
        OSError: The disk is full, or a limit is reached.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, offset, length)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
        else:
            return
    end = offset + length
    while offset < end:
        offset += os.pwrite(descriptor, _ZEROS[: end - offset], offset)
