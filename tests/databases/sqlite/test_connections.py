"""The connections that queries share: given up, cancelled, closed, and never lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from asgi_token_auth import StorageError
from asgi_token_auth.databases.sqlite import SQLite, connections
from tests.support.sqlite_files import sql

pytestmark = pytest.mark.anyio


async def test_a_query_that_takes_too_long_is_given_up_and_its_thread_freed(path: Path, database: SQLite) -> None:
    endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"
    for _ in range(6):
        with pytest.raises(StorageError, match="no answer within"):
            await database.query(endless, {}, timeout=0.02)
    assert (await database.query("select 1", {})).rows == [(1,)]


async def test_a_statement_that_starts_after_its_deadline_does_not_run_on(database: SQLite) -> None:
    endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"
    await database.query("select 1", {})
    pool = database._pools[asyncio.get_running_loop()]
    thread = pool._idle[0].connection._thread
    with pytest.raises(StorageError):
        await database.query(endless, {}, timeout=1e-9)
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


async def test_many_queries_share_a_few_connections(database: SQLite) -> None:
    results = await asyncio.gather(*(database.query("select :n", {"n": n}) for n in range(50)))
    assert [result.rows for result in results] == [[(n,)] for n in range(50)]
    pool = database._pools[asyncio.get_running_loop()]
    assert 1 <= len(pool._idle) <= 4


async def test_clients_that_hang_up_use_up_no_connection(database: SQLite) -> None:
    slow = "with recursive c(x) as (select 1 union all select x + 1 from c limit 200000) select count(*) from c"
    tasks = [asyncio.ensure_future(database.query(slow, {})) for _ in range(20)]
    for turns, task in enumerate(tasks):
        for _ in range(turns % 7):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    results = await asyncio.gather(*(database.query("select 1", {}) for _ in range(8)))
    assert len(results) == 8


async def test_two_threads_that_find_the_same_ended_loop_both_go_on(database: SQLite) -> None:
    class Ended:
        def is_closed(self) -> bool:
            # As another thread does it between the look and the deed.
            database._pools.pop(ended)
            return True

    ended: Any = Ended()
    database._pools[ended] = connections.ReaderPool(database._file)
    assert (await database.query("select 1", {})).rows == [(1,)]


def test_closing_in_one_event_loop_forgets_nothing_that_another_one_waits_for(tmp_path: Path) -> None:
    database = SQLite(tmp_path / "t.db")
    running, ended = asyncio.new_event_loop(), asyncio.new_event_loop()
    waiting, lost = running.create_future(), ended.create_future()
    ended.close()
    database._file._closing |= {waiting, lost}
    asyncio.run(database.close())
    assert database._file._closing == {waiting}
    running.close()


def test_a_database_that_is_closed_later_leaves_no_connection_of_a_loop_that_has_ended(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    database = SQLite(tmp_path / "t.db")
    asyncio.run(database.open())
    asyncio.run(database.query("select 1", {}))
    asyncio.run(database.close())
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("act", ["open", "transaction", "close"])
def test_a_loop_that_ends_while_a_connection_closes_waits_for_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    database = SQLite(tmp_path / "t.db")
    others = set(threading.enumerate())
    ended = threading.Event()
    task: asyncio.Future[None] | None = None
    stop = aiosqlite.Connection.stop

    def stop_late(connection: aiosqlite.Connection) -> asyncio.Future[Any] | None:
        # Its thread gets to it only after a cancelled caller would have left, and the loop would have ended.
        connection._tx.put_nowait((None, partial(ended.wait, 0.2)))
        if task is not None:
            asyncio.get_running_loop().call_soon(task.cancel)
        return stop(connection)

    async def main() -> None:
        nonlocal task
        await database.open()
        if act == "close":
            await database.query("select 1", {})
        monkeypatch.setattr(aiosqlite.Connection, "stop", stop_late)
        doing: dict[str, Callable[[], Awaitable[None]]] = {
            "open": database.open,
            "transaction": partial(database.run_many, "create table t (id)", [{}]),
            "close": database.close,
        }
        # The write goes on in a task of its own when its caller is cancelled. The end of the loop cancels that.
        task = asyncio.ensure_future(doing[act]())
        await asyncio.wait([task])

    asyncio.run(main())
    ended.set()
    # A thread that reports to a loop that has ended dies, which fails this test.
    for thread in set(threading.enumerate()) - others:
        if "_connection_worker_thread" in thread.name:
            thread.join(10)


@pytest.mark.parametrize("act", ["open", "query", "transaction"])
@pytest.mark.parametrize("turns", range(5))
def test_a_loop_that_ends_while_a_connection_opens_waits_for_its_thread(path: Path, act: str, turns: int) -> None:
    database = SQLite(path)
    others = set(threading.enumerate())

    async def main() -> None:
        doing: dict[str, Callable[[], Awaitable[Any]]] = {
            "open": database.open,
            "query": partial(database.query, "select 1", {}),
            "transaction": partial(database.run_many, "delete from t", [{}]),
        }
        tasks = [asyncio.ensure_future(doing[act]()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        # What is not done is cancelled now, and what it waits for as well.
        assert tasks

    for _ in range(5):
        asyncio.run(main())
        # A thread that reports to a loop that has ended dies, which fails this test.
        for thread in set(threading.enumerate()) - others:
            if "_connection_worker_thread" in thread.name:
                thread.join(10)


async def test_trap_4_a_connection_that_was_out_when_the_file_was_replaced_is_not_used_again(
    path: Path, database: SQLite, tmp_path: Path
) -> None:
    pool = database._pool()
    out = await pool.take()
    sql(tmp_path / "new.db", "create table t (id, word)", "insert into t values (1, 'new')")
    (tmp_path / "new.db").replace(path)
    assert (await database.query("select word from t", {})).rows == [("new",)]
    pool.give_back(out)
    for _ in range(3):
        assert (await database.query("select word from t", {})).rows == [("new",)]
