"""A connection of one thread, and whether anything was committed since it last looked."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import time
from typing import Final

from asgi_token_auth.databases.sqlite import wal_index
from asgi_token_auth.databases.sqlite.companions import NONE, companions_of
from asgi_token_auth.databases.sqlite.file import File

logger: Final = logging.getLogger("asgi_token_auth")

#: Seconds between looks at whether the files are still those that are open, and at what SQLite itself says.
CHECK_INTERVAL: Final = 0.1
#: The same, at the most, for a header that could not be found; finding one takes a millisecond.
_LONGEST_SEARCH_INTERVAL: Final = 60.0

# For all connections of this process: a version of one must never be equal to one of another.
_versions: Final = itertools.count(1)


class Reader:
    """Reads on the thread that made it.

    Args:
        file: the file.
        identity: what :meth:`File.identity` says of it now.
        use_wal_index: whether the version may be told without a system call, where that can be done.

    Raises:
        StorageError: it cannot be opened.
    """

    __slots__ = (
        "_asked",
        "_closed",
        "_companions",
        "_compared",
        "_file",
        "_find_again_at",
        "_search_interval",
        "_use_wal_index",
        "check_at",
        "connection",
        "counted",
        "cursor",
        "header",
        "identity",
        "seen",
    )

    def __init__(self, file: File, identity: tuple[int, int, int], *, use_wal_index: bool) -> None:
        self._file = file
        self.identity: tuple[int, int, int] = identity
        self.connection: sqlite3.Connection = file.connect_here()
        self.cursor: sqlite3.Cursor = self.connection.cursor()
        #: When :meth:`check` is due.
        self.check_at: float = 0.0
        #: The version: another one after every commit of another connection.
        self.counted: int = next(_versions)
        #: What shows a commit without asking SQLite, and how it was when it was counted last.
        self.header: wal_index.Header | None = None
        self.seen: bytes = b""
        self._asked = -1
        self._companions = NONE
        self._compared = b""
        self._closed = False
        self._use_wal_index = use_wal_index
        self._find_again_at = 0.0
        self._search_interval = CHECK_INTERVAL

    def version(self) -> int:
        """A number that any commit of another connection changes.

        Raises:
            sqlite3.Error: the file cannot be read now.
        """
        if (header := self.header) is None:
            if self._has_moved():
                self.counted = next(_versions)
        elif (now := header.raw) != self.seen:
            # In this order: another commit in between costs one more read.
            self.counted, self.seen = next(_versions), now
        return self.counted

    def check(self) -> bool:
        """Look at whether the header shows all that SQLite knows of, and at the files beside the database.

        ``False``: they were deleted or replaced, and this connection is of no use any more.

        Raises:
            sqlite3.Error: the file cannot be read now.
        """
        before = b"" if self.header is None else self.header.raw
        moved = self._has_moved()
        if self.has_lost_companions():
            return False
        self._companions = companions = companions_of(self._file.path)
        now = time.monotonic()
        if self.header is None:
            if moved:
                self.counted = next(_versions)
            if self._use_wal_index and companions[0] is not None and now >= self._find_again_at:
                self._find(companions[0], now)
        elif moved and self.header.raw == self._compared:
            # Not that anybody has seen it. It rests on something that SQLite describes and does not promise.
            logger.warning(
                "%s: its wal-index did not show a commit that SQLite knows of; SQLite itself is asked from now on",
                self._file.name,
            )
            self.header = None
            self._use_wal_index = False
            self.counted = next(_versions)
        self._compared = before
        self.check_at = now + CHECK_INTERVAL
        return True

    def has_lost_companions(self) -> bool:
        """Whether the -wal or the -shm file that this connection uses was deleted or replaced."""
        return self._file.has_lost(self._companions, self.identity)

    def note_loss(self) -> bool:
        """Have all connections to these files closed, and say whether this one may be."""
        return self._file.companions.note_loss(self.identity[2], self._companions)

    def close(self) -> None:
        """Close the connection, without harm to what other processes may have committed."""
        if self._closed:
            return
        self._closed = True
        # Before that, because the memory is gone with the last connection.
        self.header = None
        if self.has_lost_companions() and not self.note_loss():
            self._file.companions.keep_open(self.connection)
        else:
            self.connection.close()

    def __del__(self) -> None:
        # Of another thread than the one that closed the database, and used to its end.
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self.close()

    def _has_moved(self) -> bool:
        """Ask SQLite itself whether anything was committed since it was asked last."""
        # Read to its end: an open statement would hold the snapshot, and the version with it.
        answered: int = self.cursor.execute("pragma data_version").fetchall()[0][0]
        moved, self._asked = answered != self._asked, answered
        return moved

    def _find(self, shm: tuple[int, int], now: float) -> None:
        if self.cursor.execute("pragma journal_mode").fetchall() == [("wal",)]:
            self.header = wal_index.find(shm)
        if self.header is None:
            self._find_again_at = now + self._search_interval
            self._search_interval = min(self._search_interval * 2, _LONGEST_SEARCH_INTERVAL)
            return
        # Whatever was committed between the last question and this moment is counted.
        self.counted, self.seen = next(_versions), self.header.raw
