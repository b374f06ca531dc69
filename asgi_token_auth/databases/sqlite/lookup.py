"""Rows by id for verification, read on the event loop's own thread."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from threading import get_ident
from time import monotonic
from typing import Final

from asgi_token_auth.databases.protocol import Found, Parameters, Row
from asgi_token_auth.databases.rows import answer
from asgi_token_auth.databases.sqlite.failures import is_busy
from asgi_token_auth.databases.sqlite.file import FIRST_RETRY_PAUSE, LOOKUP_TIMEOUT, File
from asgi_token_auth.databases.sqlite.reader import Reader
from asgi_token_auth.errors import StorageError

_numbers: Final = itertools.count()


class SQLiteLookup:
    """Rows by id on the event loop's thread: microseconds, where a thread would cost a hundred times as much.

    Every thread has a connection of its own, since one used by two of them crashes the process.

    Args:
        file: the file.
        sql: the query, with ``:id``.
        use_wal_index: whether the version may be told without a system call, where that can be done.
    """

    def __init__(self, file: File, sql: str, *, use_wal_index: bool) -> None:
        self._file = file
        self._sql = sql
        self._use_wal_index = use_wal_index
        self._readers: dict[int, Reader] = {}

    def version(self) -> object | None:
        """A number that any commit of another connection changes; ``None``: the file cannot be read now."""
        try:
            reader = self._readers.get(get_ident())
            if reader is None or monotonic() >= reader.check_at:
                reader = self._current()
            # What version() does, in the half of the time: every request asks this.
            if (header := reader.header) is not None and header.raw == reader.seen:
                return reader.counted
            return reader.version()
        except (sqlite3.Error, StorageError):
            return None

    def fetch_now(self, row_id: int) -> Found | None:
        """The row as it is now, if nobody has to be waited for."""
        try:
            return self._fetch(row_id)
        except (sqlite3.Error, StorageError):
            return None

    def file(self) -> object:
        """What tells the file that this thread has read last from any other under the same path."""
        reader = self._readers.get(get_ident())
        return None if reader is None else reader.identity

    def explain_now(self, sql: str, parameters: Parameters) -> list[Row] | None:
        """The program of another query, by the schema as it is now; ``None``: that cannot be told now. Never raises."""
        try:
            cursor = self._current().cursor
            # EXPLAIN alone would go by the schema that the connection remembers, or by a program that Python does.
            cursor.execute("select count(*) from sqlite_master").fetchall()
            return cursor.execute(f"explain /* {next(_numbers)} */ {sql}", parameters).fetchall()
        except (sqlite3.Error, StorageError):
            return None

    async def fetch(self, row_id: int) -> Found:
        """The row as it is now."""
        deadline = monotonic() + LOOKUP_TIMEOUT
        pause = FIRST_RETRY_PAUSE
        while True:
            try:
                return self._fetch(row_id)
            except sqlite3.Error as error:
                if not is_busy(error) or monotonic() >= deadline:
                    self._drop_own()
                    raise self._file.failure(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _fetch(self, row_id: int) -> Found:
        reader = self._current()
        # The version comes first: a commit between the two then costs one more read, never a stale answer.
        version = reader.version()
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

    def _current(self) -> Reader:
        """This thread's connection, to the file that is there now."""
        reader = self._readers.get(get_ident())
        if reader is not None and monotonic() < reader.check_at:
            return reader
        identity = self._file.identity()
        if reader is None or identity != reader.identity:
            reader = self._opened(identity)
        if not reader.check():
            reader.note_loss()
            # Before the next one is opened, which cannot be while a connection to the files that are gone is left.
            reader.close()
            reader = self._opened(self._file.identity())
            reader.check()
        return reader

    def _opened(self, identity: tuple[int, int, int]) -> Reader:
        self._drop_own()
        reader = self._readers[get_ident()] = Reader(self._file, identity, use_wal_index=self._use_wal_index)
        return reader

    def _drop_own(self) -> None:
        if (mine := self._readers.pop(get_ident(), None)) is not None:
            mine.close()

    def note_losses(self) -> None:
        """Have everything opened anew where the files beside the database were deleted or replaced.

        Whoever writes must not do so by what was true before.
        """
        for reader in list(self._readers.values()):
            if reader.has_lost_companions():
                reader.note_loss()

    def close(self) -> None:
        """Close this thread's connection. Those of other threads close when nobody is using them any more."""
        self._drop_own()
        self._readers.clear()

    def let_go(self) -> None:
        """Have all connections closed when nobody is using them any more.

        The garbage collector may have this called while this thread uses its own: closed, it would leave the thread
        with an address where there is no memory.
        """
        self._readers.clear()

    def leave_to_parent(self) -> list[Reader]:
        """Forget the connections without closing them, and hand them over."""
        held = list(self._readers.values())
        self._readers.clear()
        return held
