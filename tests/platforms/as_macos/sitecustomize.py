"""What CPython on macOS has not, taken away before anything of ours is imported.

On `PYTHONPATH` Python imports it at its start, and so do all processes that a test
starts.  It takes away and never adds an ability: what runs then is the real code, in
the branches that it has for macOS, over the locks, files and signals of this machine.
Only `struct flock` is translated, because the kernel beneath is Linux.

What it cannot show is what macOS does by itself: its file systems, its kernel's locks
and maps, and its clocks.
"""

# What is taken from modules is so through their `vars`, which are told as read-only.
# pyright: reportIndexIssue=false, reportUnknownVariableType=false

import errno
import fcntl
import importlib
import multiprocessing
import os
import select
import signal
import socket
import struct
import sys
import sysconfig
import time
from typing import Any

_LINUX = struct.Struct("@hhqqi4x")
_MACOS = struct.Struct("@qqihh")
if "process_cpu_count" in vars(os):  # 3.13 has it ask for what is taken away
    vars(os)["process_cpu_count"] = os.cpu_count
_LACKING = {
    os: (
        *("posix_fallocate", "posix_fadvise", "fdatasync", "pipe2", "pidfd_open"),
        *("eventfd", "memfd_create", "sched_getaffinity", "sched_setaffinity"),
        *("copy_file_range", "splice", "getresuid", "getrandom"),
    ),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
    signal: ("sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGCLD"),
    select: ("epoll",),
    socket: ("SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_USER_TIMEOUT"),
    fcntl: ("F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW"),
}
_fcntl = fcntl.fcntl


def _asked_as_on_macos(descriptor: int, command: int, argument: Any = 0) -> Any:  # noqa: ANN401 - as it is in `fcntl`
    """Answer `F_GETLK` in the order that macOS has for the members of the structure."""
    if command != fcntl.F_GETLK:
        return _fcntl(descriptor, command, argument)
    start, length, pid, kind, whence = _MACOS.unpack(argument)
    asked = _LINUX.pack(kind, whence, start, length, pid)
    kind, whence, start, length, pid = _LINUX.unpack(_fcntl(descriptor, command, asked))
    return _MACOS.pack(start, length, pid, kind, whence)


def _there_is_no_proc(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"} and arguments:
        path = arguments[0]
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


# These choose what they do there when they are imported, and would need it.
for name in ("asyncio", "ctypes", "platform", "subprocess", "tempfile", "uuid"):
    importlib.import_module(name)
importlib.import_module("urllib.request")
sysconfig.get_config_vars()  # from a file that is named after the platform
for module, names in _LACKING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
vars(fcntl)["fcntl"] = _asked_as_on_macos
multiprocessing.set_start_method("spawn")
sys.addaudithook(_there_is_no_proc)
sys.platform = "darwin"
