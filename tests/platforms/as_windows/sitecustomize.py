"""What CPython on Windows has not, taken away before anything of ours is imported.

On `PYTHONPATH` Python imports it at its start, and so do all processes that a test
starts.  It takes away and never adds an ability: what runs then is the real code, in
the branches that it has for Windows.

What it cannot show is what Windows does by itself: its paths, its files that cannot be
renamed while they are open, its consoles and its event loops.  `os.name` stays, since
`pathlib` makes its paths by it.
"""

# What is taken from modules is so through their `vars`, which are told as read-only.
# pyright: reportCallIssue=false, reportIndexIssue=false

import asyncio
import errno
import importlib.util
import io
import multiprocessing
import os
import select
import shutil
import signal
import socket
import sys
import sysconfig
import time

_MODULES = (
    "fcntl",
    "grp",
    "posix",
    "pty",
    "pwd",
    "resource",
    "syslog",
    "termios",
    "tty",
)
if "process_cpu_count" in vars(os):  # 3.13 has it ask for what is taken away
    vars(os)["process_cpu_count"] = os.cpu_count
_LACKING = {
    os: (
        *("fork", "forkpty", "register_at_fork", "pread", "pwrite", "preadv"),
        *("pwritev", "posix_fallocate", "posix_fadvise", "fdatasync", "sysconf"),
        *("getuid", "geteuid", "getgid", "getegid", "getpgid", "getpgrp", "killpg"),
        *("setsid", "getsid", "fchmod", "fchown", "chown", "uname", "mkfifo"),
        *("wait", "wait3", "wait4", "pipe2", "pidfd_open"),
        *("eventfd", "memfd_create", "sched_getaffinity", "sched_yield", "nice"),
        *("getloadavg", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"),
        *("O_DIRECTORY", "O_SYNC", "O_DSYNC", "O_NOCTTY", "confstr", "lockf"),
    ),
    time: (
        *("clock_gettime", "clock_gettime_ns", "clock_settime", "clock_getres"),
        *("pthread_getcpuclockid", "tzset"),
        *(name for name in dir(time) if name.startswith("CLOCK_")),
    ),
    signal: (
        *("setitimer", "getitimer", "alarm", "pause", "sigwait", "sigpending"),
        *("sigtimedwait", "sigwaitinfo", "siginterrupt"),
        *(name for name in dir(signal) if name.startswith(("pthread_", "ITIMER_"))),
        *("SIGKILL", "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGHUP", "SIGQUIT", "SIGALRM"),
        *("SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGWINCH", "SIGXFSZ"),
    ),
    select: ("poll", "epoll"),
    socket: ("SO_REUSEPORT", "SOCK_CLOEXEC"),
}


def _there_is_no_proc(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"} and arguments:
        path = arguments[0]
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


# These choose what they do there when they are imported, and would need it.
_FIRST = [
    *("concurrent.futures.process", "ctypes", "platform", "pty", "subprocess"),
    *("tempfile", "urllib.request", "uuid", "webbrowser"),
    *("click", "opentelemetry.sdk.trace", "rich.console", "truststore"),
]
for name in [*_FIRST, *os.environ.get("IMPORTED_FIRST", "").split()]:
    if importlib.util.find_spec(name.partition(".")[0]):
        importlib.import_module(name)
sysconfig.get_config_vars()  # from a file that is named after the platform
for module, names in _LACKING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
vars(sys)["modules"].update(dict.fromkeys(_MODULES))
os.supports_dir_fd.clear()
vars(shutil)["_use_fd_functions"] = False  # it had asked before
multiprocessing.set_start_method("spawn")
sys.addaudithook(_there_is_no_proc)
# Libraries ask for these there, as soon as they see where they are.
vars(io)["_WindowsConsoleIO"] = type("_WindowsConsoleIO", (), {})
vars(signal)["SIGBREAK"] = 21
vars(asyncio)["ProactorEventLoop"] = asyncio.SelectorEventLoop
sys.platform = "win32"
