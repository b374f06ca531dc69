"""Writers of one process: first come, first served, and nobody is stuck behind anybody for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from asgi_token_auth import StorageError, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite import database as databases
from asgi_token_auth.databases.sqlite import file as files
from asgi_token_auth.databases.sqlite.writers import TURNS
from tests.support import ROOT
from tests.support.sqlite_files import other, run, sql

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert TURNS._lines == {}


def writes(word: str, begun: list[str] | None = None) -> Any:
    """A transaction that adds a row."""
    if begun is not None:
        begun.append(word)
    yield "insert into t (word) values (:word)", {"word": word}


async def words(database: SQLite) -> list[str]:
    return [word for (word,) in (await database.query("select word from t where id > 1 order by id", {})).rows]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another process writes."""
    with other(path) as connection:
        connection.execute("begin immediate")
        try:
            yield
        finally:
            connection.execute("rollback")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def people() -> int:
    """How many write or wait."""
    return sum(line.people for line in TURNS._lines.values())


async def test_writers_are_served_in_the_order_in_which_they_came(path: Path, database: SQLite) -> None:
    came = [f"{number}" for number in range(50)]
    with locked(path):
        waiting = [asyncio.create_task(database.transaction(writes(word))) for word in came]
        await until(lambda: people() == 50)
    await asyncio.gather(*waiting)
    assert await words(database) == came


async def test_only_the_one_whose_turn_it_is_asks_for_the_lock_of_the_file(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = databases._begin
    asking: list[int] = []

    async def counted(*arguments: Any) -> None:
        asking.append(database._writing)
        await begin(*arguments)

    monkeypatch.setattr(databases, "_begin", counted)
    await asyncio.gather(*(database.transaction(writes("x")) for _ in range(20)))
    assert asking == [1] * 20


async def test_two_hundred_tokens_that_are_issued_at_once_are_all_there(store: TokenStore) -> None:
    issued = await asyncio.gather(*(store.issue(f"actor-{number}") for number in range(200)))
    assert [one.record.id for one in issued] == list(range(1, 201))
    assert [one.record.actor_id for one in issued] == [f"actor-{number}" for number in range(200)]


async def test_databases_of_the_same_file_wait_in_the_same_line(path: Path, database: SQLite, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    all_of_it = [database, SQLite(path), SQLite(tmp_path / "link.db")]
    came = [f"{number}" for number in range(30)]
    with locked(path):
        waiting = [
            asyncio.create_task(all_of_it[number % 3].transaction(writes(word))) for number, word in enumerate(came)
        ]
        await until(lambda: people() == 30)
        assert len(TURNS._lines) == 1
    await asyncio.gather(*waiting)
    assert await words(database) == came


async def test_databases_of_different_files_do_not_wait_for_each_other(
    path: Path, database: SQLite, tmp_path: Path
) -> None:
    sql(tmp_path / "u.db", "create table t (id integer primary key, word text)")
    with locked(path):
        waiting = asyncio.create_task(database.transaction(writes("waits")))
        await until(lambda: people() == 1)
        await SQLite(tmp_path / "u.db").transaction(writes("goes on"))
        assert not waiting.done()
    await waiting


async def test_whoever_is_cancelled_while_waiting_leaves_the_line_and_changes_nothing(
    path: Path, database: SQLite
) -> None:
    begun: list[str] = []
    with locked(path):
        waiting = [asyncio.create_task(database.transaction(writes(word, begun))) for word in "abcd"]
        await until(lambda: people() == 4)
        waiting[1].cancel()
        waiting[2].cancel()
        await asyncio.wait(waiting[1:3])
        assert people() == 2
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [False, True, True, False]
    assert (begun, await words(database)) == (["a", "d"], ["a", "d"])


async def test_a_writer_that_is_cancelled_at_its_turn_finishes_before_the_next_one_begins(database: SQLite) -> None:
    happened: list[str] = []

    def first() -> Any:
        yield "insert into t (word) values ('one')", {}
        tasks[0].cancel()
        yield "insert into t (word) values ('two')", {}
        happened.append("first is done")

    def second() -> Any:
        happened.append("second begins")
        yield "insert into t (word) values ('three')", {}

    tasks = [asyncio.create_task(database.transaction(first())), asyncio.create_task(database.transaction(second()))]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await tasks[1]
    assert happened == ["first is done", "second begins"]
    assert await words(database) == ["one", "two", "three"]


async def test_a_writer_that_is_cancelled_while_another_process_writes_keeps_its_turn(
    path: Path, database: SQLite
) -> None:
    with locked(path):
        waiting = [asyncio.create_task(database.transaction(writes(word))) for word in "ab"]
        await until(lambda: database._writing == 1)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert people() == 2
    await waiting[1]
    assert await words(database) == ["a", "b"]


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_at_any_moment_ends_no_turn_twice_and_none_never(database: SQLite, turns: int) -> None:
    tasks = [asyncio.create_task(database.transaction(writes(f"{number}"))) for number in range(12)]
    for task in tasks[::2]:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: people() == 0)
    there = await words(database)
    assert there == sorted(there, key=int)
    assert {f"{number}" for number in range(1, 12, 2)} <= set(there)


@pytest.mark.parametrize("error", [LookupError, KeyError, StorageError])
async def test_what_fails_ends_its_turn(database: SQLite, error: type[Exception]) -> None:
    def fails() -> Any:
        yield "insert into t (word) values ('no')", {}
        raise error("no")

    def wrong() -> Any:
        yield "insert into nothing values (1)", {}

    results = await asyncio.gather(
        database.transaction(fails()),
        database.transaction(wrong()),
        database.transaction(writes("yes")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [error, StorageError, type(None)]
    assert await words(database) == ["yes"]


async def test_everybody_behind_a_lock_that_stays_is_told_so_and_nothing_is_written(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.WRITE_TIMEOUT == 10
    monkeypatch.setattr(databases, "WRITE_TIMEOUT", 0.05)
    with locked(path):
        results = await asyncio.gather(*(database.transaction(writes("no")) for _ in range(10)), return_exceptions=True)
    assert {str(result) for result in results} == {
        f"SQLite file {path}: another writer holds its lock; it is safe to try again."
    }
    assert {type(result) for result in results} == {StorageError}
    await database.transaction(writes("yes"))
    assert await words(database) == ["yes"]


async def test_nobody_waits_for_ever_behind_a_transaction_that_is_stuck(
    database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = await TURNS.take(database._who(), patience=1)
    begun: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(databases, "WRITE_TIMEOUT", 0.05)
        for attempt in (
            database.transaction(writes("no", begun)),
            database.run_many("delete from t", [{}]),
        ):
            with pytest.raises(StorageError, match="another writer holds its lock; it is safe to try again"):
                await attempt
    end()
    await database.transaction(writes("yes", begun))
    assert (begun, await words(database)) == (["yes"], ["yes"])


async def test_the_wait_for_a_turn_counts_as_a_wait_for_the_lock(
    database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []

    async def begin(connection: aiosqlite.Connection, deadline: float) -> None:
        deadlines.append(deadline)
        await databases_begin(connection, deadline)

    databases_begin = databases._begin
    monkeypatch.setattr(databases, "_begin", begin)
    end = await TURNS.take(database._who(), patience=1)
    waiting = asyncio.create_task(database.transaction(writes("a")))
    await until(lambda: people() == 2)
    waited = time.monotonic()
    await until(lambda: time.monotonic() > waited)
    end()
    await waiting
    assert deadlines[0] <= waited + files.WRITE_TIMEOUT


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_event_loops_of_several_threads_write_to_one_file(path: Path, journal_mode: str) -> None:
    sql(path, f"pragma journal_mode = {journal_mode}")
    database = SQLite(path, journal_mode=None)
    failures: list[BaseException] = []

    async def write() -> None:
        await asyncio.gather(*(database.transaction(writes("x")) for _ in range(25)))

    def work() -> None:
        try:
            asyncio.run(write())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with other(path) as connection:
        assert connection.execute("select count(*) from t").fetchall() == [(101,)]


async def test_those_who_wait_while_the_file_is_replaced_write_to_the_new_one(
    path: Path, database: SQLite, tmp_path: Path
) -> None:
    sql(tmp_path / "new.db", "create table t (id integer primary key, word text)", "insert into t values (1, 'new')")
    end = await TURNS.take(database._who(), patience=1)
    waiting = [asyncio.create_task(database.transaction(writes(word))) for word in "ab"]
    await until(lambda: people() == 3)
    (tmp_path / "new.db").replace(path)
    # It begins a line of its own, at another file.
    await database.transaction(writes("c"))
    end()
    await asyncio.gather(*waiting)
    assert await words(database) == ["c", "a", "b"]


async def test_those_who_wait_while_the_file_is_deleted_are_told_so(path: Path, database: SQLite) -> None:
    end = await TURNS.take(database._who(), patience=1)
    waiting = [asyncio.create_task(database.transaction(writes(word))) for word in "ab"]
    await until(lambda: people() == 3)
    path.unlink()
    end()
    for task in [*waiting, asyncio.create_task(database.transaction(writes("c")))]:
        with pytest.raises(StorageError, match="it is not there"):
            await task
    assert list(path.parent.iterdir()) == []


FORK = """
import asyncio, os, sys
sys.path[:0] = [sys.argv[2]]
from asgi_token_auth import StorageError
from asgi_token_auth.databases.sqlite import SQLite, writers

path = sys.argv[1]
database = SQLite(path)

async def write():
    try:
        await database.run_many("insert into t (word) values ('x')", [{}])
    except StorageError as error:
        return "forked" if "forked" in str(error) else str(error)
    return "written"

def in_child():
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        # The parent's loop is running here, as far as this thread knows.
        asyncio.events._set_running_loop(None)
        try:
            seen = repr([asyncio.run(asyncio.wait_for(write(), 20)), writers.TURNS._lines])
        except BaseException as error:
            seen = repr(error)
        os.write(writing, seen.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        seen = pipe.read()
    os.waitpid(pid, 0)
    return seen

def amid():
    yield "insert into t (word) values ('y')", {}
    print(in_child())

async def parent():
    end = await writers.TURNS.take(database._who(), patience=1)
    waiting = asyncio.ensure_future(write())
    await asyncio.sleep(0)
    print(in_child())
    end()
    print(await waiting)
    await database.transaction(amid())

asyncio.run(parent())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_takes_no_turn_along(path: Path) -> None:
    assert run(FORK, str(path), str(ROOT)).splitlines() == ["['written', {}]", "written", "['forked', {}]"]


def test_a_loop_that_is_closed_while_somebody_waits_leaves_nobody_behind(path: Path) -> None:
    database = SQLite(path)
    loop = asyncio.new_event_loop()
    # Nobody hears of it: a task that is left behind is reported to its loop.
    loop.set_exception_handler(lambda *_: None)

    async def begin() -> Any:
        await TURNS.take(database._who(), patience=60)
        tasks = [asyncio.create_task(database.transaction(writes("no"))) for _ in range(3)]
        await until(lambda: people() == 4)
        return tasks

    left = loop.run_until_complete(begin())
    loop.close()
    asyncio.run(database.transaction(writes("yes")))
    assert TURNS._lines == {}
    assert not any(task.done() for task in left)
    del left
    with other(path) as connection:
        assert connection.execute("select word from t where id > 1").fetchall() == [("yes",)]


@pytest.mark.parametrize("turns", range(6))
def test_a_loop_that_ends_at_any_moment_of_its_writers_ends_their_turns(path: Path, turns: int) -> None:
    database = SQLite(path)

    async def main() -> None:
        tasks = [asyncio.create_task(database.transaction(writes("x"))) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        assert tasks

    asyncio.run(main())
    assert TURNS._lines == {}
    asyncio.run(database.transaction(writes("yes")))
