"""What went wrong, in a sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Final

# Everything that an SQLite connection raises when it is asked something. Python 3.11 has a class outside sqlite3.Error
# for "only one statement at a time".
ERRORS: Final = (sqlite3.Error, sqlite3.Warning)

#: Of another process, or of this one.
BUSY: Final = "another writer holds its lock; it is safe to try again."
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# Bytes, of the file systems that matter; SQLite adds up to eight.
_MAX_FILE_NAME: Final = 247
#: Bytes that SQLite takes for it at once.
_SHARED_FILE: Final = 32_768
_RIGHTS: Final = "give this process the right to write the file and its folder."


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file, or its folder, can only be read."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def is_about_a_value(error: BaseException | None) -> bool:
    """Whether a parameter, and not the database, is at fault: no text, no number of 64 bits, against a constraint."""
    if isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)):
        # Their classes do not tell it from a closed connection.
        return "binding parameter" in str(error)
    return isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, UnicodeError, OverflowError))


def sentence(error: Exception, path: Path) -> str:
    """What to tell of ``error`` about the file ``path``, without its name."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BUSY
        case sqlite3.SQLITE_FULL:
            return "the disk is full; nothing was changed."
        case sqlite3.SQLITE_READONLY:
            return _of_neighbour(path) or f"it can only be read; {_RIGHTS}{_of_wal(path)}"
        case sqlite3.SQLITE_CANTOPEN:
            return _cannot_open(path)
        case sqlite3.SQLITE_IOERR:
            return _input_or_output(path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "it is damaged or not a SQLite database; restore it from a backup."
        case _:
            return f"{error}."


def what_it_is(path: Path) -> str | None:
    """Why ``path`` can be no database, where it leads to something else than a file. A pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}; give the path of a file."


def _of_neighbour(path: Path) -> str | None:
    """Which of the files that SQLite keeps beside the database is in the way, and why."""
    for suffix in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + suffix)
        with contextlib.suppress(OSError):
            if not beside.exists():
                continue
            if not beside.is_file():
                return f"{beside.name} beside it is no file; move it away."
            if not os.access(beside, os.R_OK | os.W_OK):
                return (
                    f"this process may not read and write {beside.name} beside it, which another user's process has "
                    "made; run both as one user, or give both the right."
                )
    return None


def _cannot_open(path: Path) -> str:
    folder = path.parent
    if len(os.fsencode(path.name)) > _MAX_FILE_NAME:
        return "its name is too long for a file."
    try:
        if (other := next((each for each in path.parents if each.exists() and not each.is_dir()), None)) is not None:
            return f"{other} is no folder; correct the path."
        if not folder.is_dir():
            return f"there is no folder {folder}; create it, or correct the path."
        if path.is_symlink() and not path.exists():
            return "it is a link that leads nowhere; correct it."
        if not path.exists():
            if not os.access(folder, os.W_OK):
                return f"it is not there, and cannot be made, because the folder {folder} can only be read."
            return "it is not there; check the path."
    except OSError:
        # A folder on the way that this process may not enter.
        return "it cannot be reached; give this process the right to enter the folders above it."
    if not os.access(path, os.R_OK):
        return "it may not be read; give this process the right to read and write it."
    if neighbour := _of_neighbour(path):
        return neighbour
    if wal := _of_wal(path):
        return f"it cannot be opened; {_RIGHTS}{wal}"
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "it cannot be opened, because too many files are open in this process."
        return f"it cannot be opened: {error.strerror}."
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
