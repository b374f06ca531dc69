"""What went wrong, in a sentence that says what to do."""

from __future__ import annotations

import sqlite3
from typing import Final

# Everything that an SQLite connection raises when it is asked something. Python 3.11 has a class outside sqlite3.Error
# for "only one statement at a time".
ERRORS: Final = (sqlite3.Error, sqlite3.Warning)

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file, or its folder, can only be read."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def sentence(error: Exception) -> str:
    """What to tell of ``error``, without the name of the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process holds its lock; it is safe to try again."
        case sqlite3.SQLITE_FULL:
            return "the disk is full; nothing was changed."
        case sqlite3.SQLITE_READONLY:
            return "it can only be read; give this process the right to write the file and its folder."
        case sqlite3.SQLITE_CANTOPEN:
            return "it cannot be opened; check that the file exists and may be read."
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "it is damaged or not a SQLite database; restore it from a backup."
        case _:
            return f"{error}."
