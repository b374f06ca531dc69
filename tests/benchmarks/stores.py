"""Databases full of tokens, and other processes that write to them."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NoReturn

from asgi_token_auth import Restrictions, TokenStore
from asgi_token_auth.databases.protocol import Steps
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.text import digest_nonce, new_nonce
from tests.benchmarks.apps import SECRET

#: Tokens that are presented in rotation, and rows of a table that is not large.
IN_ROTATION: Final = 100
ROWS: Final = 1_000
#: What a token may be limited to by whoever makes one for a script.
RESTRICTIONS: Final = Restrictions.from_wire({"a": ["view-instance"], "r": {"data": {"log": ["insert-row"]}}})


async def managed_tokens(
    stack: AsyncExitStack,
    path: Path,
    *,
    rows: int = ROWS,
    known: int = IN_ROTATION,
    wal: bool = True,
    restrictions: Restrictions | None = None,
    database: SQLite | None = None,
) -> tuple[TokenStore, list[str]]:
    """An open store with ``rows`` tokens, and the text of the ``known`` ones."""
    store = TokenStore(database or SQLite(path, journal_mode="wal" if wal else None), secret=SECRET)
    await stack.enter_async_context(store)
    nonces = {token_id: new_nonce() for token_id in range(1, known + 1)}
    columns = "token_status, actor_id, permissions, created_timestamp, secret_version, token_digest"
    permissions = "null" if restrictions is None else json.dumps(restrictions.to_wire())

    def fill() -> Steps[None]:
        yield (
            f"insert into {store.table} (id, {columns}) values (:id, 'A', :actor, :permissions, 1, 0, :digest)",
            [
                {"id": number, "actor": f"actor {number}", "permissions": permissions, "digest": digest_nonce(nonce)}
                for number, nonce in nonces.items()
            ],
        )
        yield (
            f"insert into {store.table} ({columns}) with recursive n(i) as (select 1 where :more > 0 union all "
            "select i + 1 from n where i < :more) select 'A', 'actor', 'null', 1, 0, hex(randomblob(32)) from n",
            {"more": rows - known},
        )

    await store.database.transaction(fill())
    return store, [store.text.build(token_id, nonce) for token_id, nonce in nonces.items()]


class Untouched(SQLite):
    """A database that turns every use into an error, and so into a status that no case expects."""

    async def open(self) -> NoReturn:
        raise RuntimeError("the database was opened")

    def lookup(self, table: str, columns: str) -> Any:
        return self

    def version(self) -> NoReturn:
        raise RuntimeError("the database was read")


class Counting(SQLite):
    """A database that counts how often a row is read."""

    reads = 0

    def lookup(self, table: str, columns: str) -> Any:
        return _CountingLookup(self, super().lookup(table, columns))


class _CountingLookup:
    def __init__(self, database: Counting, lookup: Any) -> None:
        self._database = database
        self._lookup = lookup

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lookup, name)

    def fetch(self, row_id: int) -> Any:
        self._database.reads += 1
        return self._lookup.fetch(row_id)

    def fetch_now(self, row_id: int) -> Any:
        self._database.reads += 1
        return self._lookup.fetch_now(row_id)


class Writer:
    """Another process that commits to an unrelated table of ``path``, while it is told to."""

    def __init__(self, path: Path, rate: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._running = context.Event()
        self._process = context.Process(target=_commit, args=(path, rate, self._running), daemon=True)
        self._process.start()

    def start(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _commit(path: Path, rate: int, running: Any) -> None:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.execute("pragma synchronous = off")
    connection.execute("create table if not exists unrelated (id integer primary key, value)")
    connection.execute("insert or ignore into unrelated values (1, 0)")
    parent = multiprocessing.parent_process()
    # Whoever started this may be killed, and would not end it then.
    while parent is not None and parent.is_alive():
        if not running.wait(1):
            continue
        due = time.perf_counter()
        while running.is_set() and parent.is_alive():
            connection.execute("update unrelated set value = value + 1 where id = 1")
            due += 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
