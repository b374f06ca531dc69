"""What went wrong, in a sentence that says what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

# Everything that an SQLite connection raises when it is asked something. Python 3.11 has a class outside sqlite3.Error
# for "only one statement at a time".
ERRORS: Final = (sqlite3.Error, sqlite3.Warning)

#: Of another process, or of this one.
BUSY: Final = "another writer holds its lock; it is safe to try again."
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
#: Bytes that SQLite takes for it at once.
_SHARED_FILE: Final = 32_768
_RIGHTS: Final = "give this process the right to write the file and its folder."


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file, or its folder, can only be read."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def sentence(error: Exception, path: Path) -> str:
    """What to tell of ``error`` about the file ``path``, without its name."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BUSY
        case sqlite3.SQLITE_FULL:
            return "the disk is full; nothing was changed."
        case sqlite3.SQLITE_READONLY:
            return f"it can only be read; {_RIGHTS}{_of_wal(path)}"
        case sqlite3.SQLITE_CANTOPEN:
            return _cannot_open(path)
        case sqlite3.SQLITE_IOERR:
            return _input_or_output(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "it is damaged or not a SQLite database; restore it from a backup."
        case _:
            return f"{error}."


def _cannot_open(path: Path) -> str:
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}; create it, or correct the path."
        if path.is_dir():
            return "it is a folder; give the path of a file."
        if not path.exists():
            if not os.access(folder, os.W_OK):
                return f"it is not there, and cannot be made, because the folder {folder} can only be read."
            return "it is not there; check the path."
    except OSError:
        # A folder on the way that this process may not enter.
        return "it cannot be reached; give this process the right to enter the folders above it."
    if not os.access(path, os.R_OK):
        return "it may not be read; give this process the right to read and write it."
    if wal := _of_wal(path):
        return f"it cannot be opened; {_RIGHTS}{wal}"
    return "it cannot be opened, though it is there; this process may have too many files open."


def _of_wal(path: Path) -> str:
    """What to add about a file in WAL mode whose folder can only be read; empty for any other."""
    try:
        if os.access(path.parent, os.W_OK):
            return ""
        with path.open("rb") as file:
            # https://www.sqlite.org/fileformat2.html#file_format_version_numbers
            in_wal = file.read(20)[18:20] == b"\x02\x02"
    except OSError:
        return ""
    if not in_wal:
        return ""
    return (
        " Its journal is in WAL mode, in which readers too need a file beside it that they can write. Where it must "
        "be read-only, switch it before: sqlite3 FILE 'pragma journal_mode = delete'."
    )


def _input_or_output(path: Path) -> str:
    # SQLite says so too where it cannot make the file that readers share, for want of space.
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < _SHARED_FILE:
            return "the disk is full; nothing was changed."
    return "the disk does not answer as it should (disk I/O error); look at the machine's log."
