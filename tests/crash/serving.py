"""A server that is a process of its own, with workers, and is asked and stopped."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Server:
    """A server on a socket that is there before it is.

    Args:
        directory: Where its application is.
        application: The source.
        arguments: Of the server; `{fd}` is the socket.
    """

    def __init__(self, directory: Path, application: str, *arguments: str) -> None:
        (directory / "served.py").write_text(textwrap.dedent(application))
        self._log = directory / "log"
        self._socket = socket.create_server(("127.0.0.1", 0))
        descriptor = self._socket.fileno()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(a.format(fd=descriptor) for a in arguments)],
                cwd=directory,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
            )

    def get(self, path: str) -> int:
        """Return the process id of the worker that answers."""
        port = self._socket.getsockname()[1]
        url = f"http://127.0.0.1:{port}{path}"
        with urllib.request.urlopen(url, timeout=40) as answer:
            return int(answer.read())

    def kill_a_worker(self) -> None:
        """Have one killed inside a request."""
        with pytest.raises((OSError, HTTPException)):
            self.get("/killed")

    def stop(self) -> tuple[int, str]:
        """Stop it as a process manager does; return its exit status and its log."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(40)
        finally:
            self._process.kill()
            self._process.wait()
            self._socket.close()
        return self._process.returncode, self._log.read_text()
