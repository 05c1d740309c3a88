"""Grafana dashboards and Prometheus rules for the metrics of agenttrace, as files.

They are data beside this module, and come with the wheel.  It only writes them where
somebody wants them; what they may ask for stands in `agenttrace.semconv.metrics`.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from agenttrace.errors import AgenttraceError

if TYPE_CHECKING:
    from pathlib import Path

FILES: Final = (
    "grafana/agenttrace-hangs.json",
    "grafana/agenttrace-overview.json",
    "grafana/agenttrace-run.json",
    "prometheus/agenttrace.rules.test.yml",
    "prometheus/agenttrace.rules.yml",
)


class FilesExistError(AgenttraceError):
    """Files would have been overwritten that say something else.

    Args:
        paths: Which.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        named = ", ".join(map(str, paths))
        super().__init__(f"There already, and different: {named}")


def content_of(name: str) -> bytes:
    """Return what the file *name*, one of `FILES`, says."""
    return resources.files(__name__).joinpath(*name.split("/")).read_bytes()


def write(directory: Path, *, overwrite: bool = False) -> list[Path]:
    """Write all files below *directory*, which is made where it is not there.

    Args:
        directory: Where to.
        overwrite: Whether files of these names that say something else are replaced.

    Returns:
        The paths of all of them.

    Raises:
        FilesExistError: Some are there and say something else; nothing was written.
        OSError: They cannot be written.
    """
    files = {directory / name: content_of(name) for name in FILES}
    different = [
        path for path, said in files.items() if path.exists() and _differs(path, said)
    ]
    if different and not overwrite:
        raise FilesExistError(different)
    for path, said in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(said)
    return list(files)


def _differs(path: Path, said: bytes) -> bool:
    return not path.is_file() or path.read_bytes() != said
