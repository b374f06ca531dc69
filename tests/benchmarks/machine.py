"""On what a benchmark ran: whoever reads its numbers must be able to judge them."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    "asgi-token-auth",
    "starlette",
    "itsdangerous",
    "aiosqlite",
    "uvicorn",
    "uvloop",
    "httptools",
    "asyncpg",
)
#: More programs than this that want a processor at the same time make microseconds worthless, and ratios rough.
QUIET: Final = 0.5


def describe() -> dict[str, str]:
    """Name and value of what matters."""
    return {
        "processor": f"{_processor()}, {_usable()} usable",
        "system": f"{platform.system()} {platform.release()}, temporary files on {_file_system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := installed(name)) is not None),
        "load at the start": f"{load():.2f}",
    }


def load() -> float:
    """Programs that wanted a processor in the last minute, on average; 0 where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def installed(name: str) -> str | None:
    """The version of a package; ``None``: it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def _usable() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file_system() -> str:
    """What holds the databases of the benchmarks: a commit on a disk takes longer than one in memory."""
    folder = os.path.realpath(tempfile.gettempdir())
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    above = [(place, kind) for place, kind in mounts if os.path.commonpath([place, folder]) == place]
    return max(above, key=lambda mount: len(mount[0]), default=("", "an unknown file system"))[1]
