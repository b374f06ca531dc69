"""Queries and transactions on a SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ConfigurationError, StorageError
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite import database as databases
from asgi_token_auth.databases.sqlite import file as files
from tests.support.sqlite_files import ROW, other, sql

pytestmark = pytest.mark.anyio


async def test_a_query_returns_columns_and_rows(database: SQLite) -> None:
    result = await database.query("select id, word as w from t", {})
    assert (result.columns, result.rows) == (("id", "w"), [(1, "one")])


@pytest.mark.parametrize(
    "statement",
    [
        "insert into t values (2, 'two')",
        "delete from t",
        "drop table t",
        "create table u (x)",
        "vacuum",
        "update t set id = 9",
    ],
)
async def test_a_query_cannot_write(database: SQLite, statement: str) -> None:
    with pytest.raises(StorageError):
        await database.query(statement, {})
    assert (await database.query("select count(*) from t", {})).rows == [(1,)]


async def test_two_statements_are_refused(database: SQLite) -> None:
    with pytest.raises(StorageError):
        await database.query("select 1; select 2", {})


async def test_a_transaction_is_done_as_a_whole_or_not_at_all(database: SQLite) -> None:
    def steps() -> Any:
        yield "insert into t values (2, 'two')", {}
        rows = yield "select count(*) from t", {}
        assert rows == [(2,)]
        yield "insert into t values (1, 'again')", {}

    with pytest.raises(StorageError, match="UNIQUE"):
        await database.transaction(steps())
    assert (await database.query("select count(*) from t", {})).rows == [(1,)]


async def test_an_exception_of_the_steps_undoes_them_and_comes_out(database: SQLite) -> None:
    def steps() -> Any:
        yield "insert into t values (2, 'two')", {}
        raise LookupError("no")

    with pytest.raises(LookupError):
        await database.transaction(steps())
    assert (await database.query("select count(*) from t", {})).rows == [(1,)]


async def test_what_is_acknowledged_is_synced_to_disk_in_wal_too(database: SQLite) -> None:
    def steps() -> Any:
        return (yield "pragma synchronous", {})

    assert await database.transaction(steps()) == [(2,)]


async def test_a_new_file_is_made_in_wal_and_an_attached_one_keeps_its_mode(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    sql(theirs, "create table t (id integer primary key)")
    for database in (SQLite(ours), SQLite(theirs, journal_mode=None), SQLite(theirs).for_reading()):
        await database.open()
        await database.close()
    modes = []
    for file in (ours, theirs):
        with other(file) as connection:
            modes.append(connection.execute("pragma journal_mode").fetchall()[0][0])
    assert modes == ["wal", "delete"]


async def test_a_missing_file_is_made_only_where_that_is_allowed(tmp_path: Path) -> None:
    for database in (SQLite(tmp_path / "a.db", create=False), SQLite(tmp_path / "a.db").for_reading()):
        with pytest.raises(StorageError, match="it is not there; check the path"):
            await database.open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [":memory:", "", "."])
def test_a_path_that_is_no_file_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError):
        SQLite(given)


@pytest.mark.parametrize("name", ["a b.db", "a?b=1.db", "a%41#.db", "é.db", "a&mode=memory.db"])
async def test_any_name_of_a_file_works(tmp_path: Path, name: str) -> None:
    database = SQLite(tmp_path / name)
    await database.open()
    assert (tmp_path / name).exists()
    await database.query("select 1", {})
    await database.close()
    assert not list(tmp_path.glob("*-wal"))


async def test_text_that_is_no_text_is_handed_over_as_bytes(path: Path, database: SQLite) -> None:
    sql(path, "insert into t values (2, cast(x'ff' as text))")
    assert (await database.query("select word from t order by id", {})).rows == [("one",), (b"\xff",)]
    lookup = database.lookup("t", ROW)
    assert (await lookup.fetch(2))[1] == (2, b"\xff")
    assert (await lookup.fetch(1))[1] == (1, "one")


async def test_a_database_that_may_not_grow_says_that_the_disk_is_full(database: SQLite) -> None:
    def steps() -> Any:
        yield "pragma max_page_count = 3", {}
        for number in range(2, 100):
            yield "insert into t values (:n, printf('%.*c', 2000, 'x'))", {"n": number}

    with pytest.raises(StorageError, match="the disk is full; nothing was changed"):
        await database.transaction(steps())
    assert (await database.query("select count(*) from t", {})).rows == [(1,)]


async def test_a_writer_that_is_locked_out_says_that_it_may_try_again(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "WRITE_TIMEOUT", 0.05)

    def steps() -> Any:
        yield "update t set word = 'x'", {}

    with other(path) as connection:
        connection.execute("begin immediate")
        with pytest.raises(StorageError, match="safe to try again"):
            await database.transaction(steps())
        connection.execute("rollback")
    await database.transaction(steps())


async def test_what_was_overwritten_is_not_in_the_file_any_more(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = files._open

    async def opened_as_some_are_built(connection: Any) -> Any:
        await opened(connection)
        await connection.execute_fetchall("pragma secure_delete = off")
        return connection

    monkeypatch.setattr(files, "_open", opened_as_some_are_built)
    await database.transaction(
        databases.run_many_steps("insert into t values (2, :word)", [{"word": "needle" * 2_000}])
    )
    await database.transaction(databases.run_many_steps("update t set word = :word where id = 2", [{"word": ""}]))
    await database.close()
    sql(path, "pragma wal_checkpoint(truncate)")
    assert b"needle" not in path.read_bytes()


async def test_a_file_that_goes_while_a_change_begins_leaves_nothing_open(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    connect = database._file.connect

    async def go(*arguments: Any, **named: Any) -> Any:
        opened.append(await connect(*arguments, **named))
        path.rename(path.with_suffix(".gone"))
        return opened[0]

    def steps() -> Any:
        yield "insert into t values (2, 'two')", {}

    monkeypatch.setattr(database._file, "connect", go)
    with pytest.raises(StorageError, match="is gone"):
        await database.transaction(steps())
    assert not opened[0]._thread.is_alive()
    # A fork would be told that somebody writes.
    assert database._writing == 0
