"""Every way in which one process asks for a SQLite token whose state other processes change.

Datasette with pysqlite3 has a second copy of SQLite in its process. SQLite warns of that: when the other copy closes
the file, the system takes away the locks that Python's has (https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

# What apsw returns has types that are only partly known.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import apsw

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import SECRET, bearer, http
from tests.support.strictness import Judgement, Notes, Writers, rest

#: Threads that share a store, with an event loop each.
THREADS: Final = 4
#: Requests between two turns of the event loop: none, so that nothing may rely on a turn, and then a few.
_WITHOUT_A_TURN: Final = 1_000
#: Seconds between two times that a thread closes the store for everybody.
_CLOSING_INTERVAL: Final = 0.1

Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """One way to ask."""

    journal: Literal["wal"] | None = "wal"
    #: Whether the shared memory of SQLite may tell that nothing was committed.
    wal_index: bool = True
    threads: int = 1
    #: Whether every thread closes the store, which the others are using, again and again.
    closes: bool = False
    #: A second copy of SQLite has the file open before ours, or opens, reads and closes it again and again.
    second: Literal["first", "again"] | None = None

    @property
    def title(self) -> str:
        """What a table calls it."""
        return (
            ("WAL" if self.journal else "rollback journal")
            + f", wal_index={self.wal_index}"
            + f", {self.threads} threads" * (self.threads > 1)
            + ", close() in between" * self.closes
            + {"first": ", second SQLite first", "again": ", second SQLite again and again", None: ""}[self.second]
        )

    @property
    def waits(self) -> bool:
        """Whether an answer may be 503: readers of WAL never wait for a writer, but for a store that is opened."""
        return self.journal is None or self.closes or self.second is not None


JOURNALS: Final[tuple[Literal["wal"] | None, ...]] = ("wal", None)
WAYS: Final = tuple(
    replace(way, journal=journal, wal_index=wal_index)
    for way in (
        Way(),
        Way(threads=THREADS),
        Way(threads=THREADS, closes=True),
        Way(second="first"),
        Way(second="again"),
        Way(second="again", threads=THREADS),
    )
    for journal in JOURNALS
    for wal_index in (True, False)
    # Without WAL one run had 247 wrong answers of 321,159. A reader whose lock was taken away may see half of a commit;
    # that this was the cause is likely and not proven. Nobody is promised anything there.
    if journal == "wal" or way.second != "again"
)


class SecondSQLite:
    """Another copy of SQLite in this process that reads ``path`` on a thread of its own.

    Args:
        again: open the file anew for each read, and close it. Otherwise it is opened now, and closed at the end.
    """

    def __init__(self, path: Path, *, again: bool) -> None:
        self._path = str(path)
        self._kept = None if again else self._open()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read_for_ever)
        #: How often it has read.
        self.reads: int = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        if self._kept is not None:
            self._kept.close()
        if not self.reads:
            raise RuntimeError("the second SQLite has read nothing")

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(self._path)
        connection.set_busy_timeout(100)
        connection.execute("select count(*) from sqlite_master").fetchall()
        return connection

    def _read_for_ever(self) -> None:
        while not self._end.wait(0.002):
            connection = self._kept
            try:
                connection = connection or self._open()
                connection.execute("select token_status from _datasette_auth_tokens where id = 1").fetchall()
                self.reads += 1
            except apsw.Error:
                # It waits for writers, and what it finds without its locks is not what is judged here.
                continue
            finally:
                if connection is not None and connection is not self._kept:
                    connection.close()


class _OnlyReading(TokenStore):
    """A store that notes no uses.

    Beside a second copy of SQLite whoever writes may find his locks gone amid a transaction, so the file is damaged, by
    our process as by any other. What is judged here is what is read.
    """

    def note_use(self, token_id: int, when: int, address: str | None) -> None:
        pass


def judge(way: Way, folder: Path, seconds: float) -> Judgement:
    """Ask in this way for so long, and compare every answer with the states of the token."""
    path, notes = folder / "tokens.db", Notes(folder)
    token = asyncio.run(_issue(path, way.journal))
    try:
        with Writers(path, notes, rest=rest(way.journal)):
            if way.second is None:
                answers = _in_threads(path, way, token, time.monotonic() + seconds)
            else:
                with SecondSQLite(path, again=way.second == "again"):
                    answers = _in_threads(path, way, token, time.monotonic() + seconds)
        return notes.judge(answers)
    finally:
        notes.close()


async def _issue(path: Path, journal: Literal["wal"] | None) -> str:
    async with TokenStore(SQLite(path, journal_mode=journal), secret=SECRET) as store:
        issued = await store.issue("bot")
        assert issued.record.id == 1
        return issued.token


def _in_threads(path: Path, way: Way, token: str, end: float) -> list[tuple[int, int, int]]:
    """Ask with one store, from an event loop in each thread."""
    kind = TokenStore if way.second is None else _OnlyReading
    store = kind(SQLite(path, journal_mode=way.journal, wal_index=way.wal_index), secret=SECRET)
    app = TokenAuthMiddleware(_bare, sources=[ManagedTokens(store)])
    found: list[list[tuple[int, int, int]]] = []
    failed: list[BaseException] = []

    async def open_and_ask() -> list[tuple[int, int, int]]:
        async with store:
            return await _ask(app, token, end, store if way.closes else None)

    def ask() -> None:
        try:
            found.append(asyncio.run(open_and_ask()))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(way.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [answer for answers in found for answer in answers]


async def _ask(app: App, token: str, end: float, closing: TokenStore | None) -> list[tuple[int, int, int]]:
    answers: list[tuple[int, int, int]] = []
    status = 0

    async def send(message: Scope) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    clock = time.monotonic_ns
    close_at = time.monotonic() + _CLOSING_INTERVAL
    while (now := time.monotonic()) < end:
        for _ in range(_WITHOUT_A_TURN if len(answers) % 3_000 < 2_000 else 10):
            scope = http([bearer(token)])
            began = clock()
            await app(scope, None, send)
            answers.append((began, clock(), status))
        if closing is not None and now >= close_at:
            close_at = now + _CLOSING_INTERVAL
            await closing.close()
        await asyncio.sleep(0)
    return answers


async def _bare(scope: Scope, receive: object, send: Callable[[Scope], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
