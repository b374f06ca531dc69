"""Rows by id for verification, read on the event loop's own thread."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
import time
from typing import Final

from asgi_token_auth.databases.protocol import Found
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.sqlite.failures import is_busy
from asgi_token_auth.databases.sqlite.file import FIRST_RETRY_PAUSE, LOOKUP_TIMEOUT, File
from asgi_token_auth.errors import StorageError

#: Seconds between looks at whether the path still leads to the file that is open.
_SAME_FILE_INTERVAL: Final = 0.1


class _Reader:
    """A connection that one thread reads on, and what its versions mean."""

    __slots__ = ("connection", "cursor", "file", "generation", "recheck_at")

    def __init__(self, connection: sqlite3.Connection, file: tuple[int, int], generation: int) -> None:
        self.connection = connection
        self.cursor = connection.cursor()
        self.file = file
        self.generation = generation
        self.recheck_at = time.monotonic() + _SAME_FILE_INTERVAL


class SQLiteLookup:
    """Rows by id on the event loop's thread: microseconds, where a thread would cost a hundred times as much.

    Every thread has a connection of its own, since one used by two of them crashes the process.
    """

    def __init__(self, file: File, sql: str) -> None:
        self._file = file
        self._sql = sql
        self._readers: dict[int, _Reader] = {}
        # Another connection counts from its own beginning: its versions must never meet those of this one.
        self._generations = itertools.count(1)

    def version(self) -> object | None:
        """A number that any commit of another connection changes; ``None``: the file cannot be read now."""
        try:
            reader = self._readers.get(threading.get_ident())
            if reader is None or time.monotonic() >= reader.recheck_at:
                reader = self._current()
            return self._version(reader)
        except (sqlite3.Error, StorageError):
            return None

    async def fetch(self, row_id: int) -> Found:
        """The row as it is now."""
        deadline = time.monotonic() + LOOKUP_TIMEOUT
        pause = FIRST_RETRY_PAUSE
        while True:
            try:
                return self._fetch(row_id)
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    self._drop_own()
                    raise self._file.failure(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _fetch(self, row_id: int) -> Found:
        reader = self._current()
        # The version comes first: a commit between the two then costs one more read, never a stale answer.
        version = self._version(reader)
        try:
            rows = reader.cursor.execute(self._sql, {"id": row_id}).fetchall()
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):
                raise
            # Not SQLite but Python failed: some text is no UTF-8. That says something about this row only.
            reader.connection.text_factory = bytes
            try:
                rows = reader.cursor.execute(self._sql, {"id": row_id}).fetchall()
            finally:
                reader.connection.text_factory = str
        return answer(version, rows[0] if rows else None)

    def _version(self, reader: _Reader) -> int:
        # Read to its end: an open statement would hold the snapshot, and the version with it.
        counted: int = reader.cursor.execute("pragma data_version").fetchall()[0][0]
        return counted + reader.generation

    def _current(self) -> _Reader:
        reader = self._readers.get(threading.get_ident())
        now = time.monotonic()
        if reader is not None and now < reader.recheck_at:
            return reader
        file = self._file.identity()
        if reader is None or file != reader.file:
            self._drop_own()
            reader = _Reader(self._file.connect_here(), file, next(self._generations) << 32)
            self._readers[threading.get_ident()] = reader
        reader.recheck_at = now + _SAME_FILE_INTERVAL
        return reader

    def _drop_own(self) -> None:
        if (mine := self._readers.pop(threading.get_ident(), None)) is not None:
            mine.connection.close()

    def close(self) -> None:
        """Close this thread's connection. Those of other threads close when nobody is using them any more."""
        self._drop_own()
        self._readers.clear()

    def leave_to_parent(self) -> list[sqlite3.Connection]:
        """Forget the connections without closing them, and hand them over."""
        held = [reader.connection for reader in self._readers.values()]
        self._readers.clear()
        return held
