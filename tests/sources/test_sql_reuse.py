"""The operator's query is not run again while its answer can be no other: nothing but the file decides it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import SQLTokens, StaticTokens, TokenAuthMiddleware
from asgi_token_auth.databases.protocol import Parameters, Result
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite.repeatable import is_repeatable
from tests.support.asgi import App, status_of
from tests.support.sqlite_files import sql

pytestmark = pytest.mark.anyio

TOKEN = "1-secret-of-some-length"
QUERY = "select secret as token_secret, name as actor_id from people where id = :token_id"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    sql(
        path,
        "pragma journal_mode = wal",
        "create table people (id text primary key, secret text, name text, ends integer, teams text)",
        "insert into people values ('1', 'secret-of-some-length', 'Ann', 4000000000, '[1, 2]')",
        "create view plain as select * from people",
        "create view timed as select * from people where ends > strftime('%s', 'now')",
        "create virtual table words using fts5 (name)",
    )
    return path


class Counting(SQLite):
    """Counts queries, and does something before each of them."""

    queries = 0
    before: Any = None

    async def query(self, sql: str, parameters: Parameters, *, timeout: float = 5.0) -> Result:
        if not sql.startswith("explain") and "as checked" not in sql:
            self.queries += 1
            if self.before is not None:
                self.before()
        return await super().query(sql, parameters, timeout=timeout)


def protected(path: Path, query: str = QUERY) -> tuple[TokenAuthMiddleware, Counting, SQLTokens]:
    source = SQLTokens(SQLite(path), query)
    database = Counting(path, journal_mode=None, create=False)
    source._database = database
    source._schema = database.schema_lookup()
    return TokenAuthMiddleware(App(), sources=[StaticTokens({"x" * 32: {"id": "bot"}}), source]), database, source


async def test_the_query_is_run_once_while_nothing_is_committed(path: Path) -> None:
    app, database, source = protected(path)
    for _ in range(5):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 1
    for number, statement in enumerate(
        (
            "insert into people values ('2', 's', 'Bob', 0, '[]')",
            "create table other (a)",
            "update people set name = 'B'",
        )
    ):
        sql(path, statement)
        for _ in range(3):
            assert await status_of(app, TOKEN) == 200
        assert database.queries == number + 2
    sql(path, "update people set secret = 'another-one-than-before'")
    for _ in range(2):
        assert await status_of(app, TOKEN) == 401
    sql(path, "update people set secret = 'secret-of-some-length'")
    assert await status_of(app, TOKEN) == 200
    sql(path, "delete from people")
    assert await status_of(app, TOKEN) == 401
    await source.close()


@pytest.mark.parametrize(
    "query",
    [
        QUERY.replace("people", "timed"),
        QUERY + " and ends > strftime('%s', 'now')",
        QUERY + " and current_timestamp > ''",
        QUERY + " and abs(random()) >= 0",
        QUERY + " and exists (select 1 from json_each(teams) where value = 1)",
        QUERY + " and (select count(*) from words) = 0",
        QUERY + " and (select count(*) from pragma_table_info('people')) > 0",
        QUERY + " and last_insert_rowid() = 0",
    ],
)
async def test_a_query_that_depends_on_more_is_run_each_time(path: Path, query: str) -> None:
    app, database, source = protected(path, query)
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 3
    await source.close()


@pytest.mark.parametrize(
    "query",
    [
        QUERY.replace("people", "plain"),
        QUERY + " and ends > 5 and lower(name) = 'ann' and name like 'a%' order by name limit 1",
        "with found as (select * from people) select secret as token_secret, name || 'now(1)' as actor_id, "
        "(select count(*) from plain) as actor_count from found where id = :token_id "
        "union select secret, name, json_array_length(teams) from people where 0",
        "select max(secret) as token_secret, group_concat(distinct name) as actor_id from people where id = :token_id",
    ],
)
async def test_a_query_that_depends_on_the_file_alone_is_not(path: Path, query: str) -> None:
    app, database, source = protected(path, query)
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 1
    await source.close()


async def test_a_view_that_is_another_by_now_is_looked_at_again(path: Path) -> None:
    app, database, source = protected(path, QUERY.replace("people", "plain"))
    for _ in range(2):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 1
    sql(path, "drop view plain", "create view plain as select * from people where ends > strftime('%s', 'now')")
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 4
    sql(path, "drop view plain", "create view plain as select * from people")
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 5
    await source.close()


async def test_a_view_of_another_file_that_takes_the_place_is_looked_at_again(path: Path, tmp_path: Path) -> None:
    app, database, source = protected(path, QUERY.replace("people", "plain"))
    for _ in range(2):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 1
    # Such as a backup, or what is built anew every night. Its schema was changed as often.
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("vacuum into ?", (str(other),))
        (changes,) = connection.execute("pragma schema_version").fetchone()
    sql(
        other,
        "drop view plain",
        "create view plain as select * from people where ends > strftime('%s', 'now')",
        f"pragma schema_version = {changes}",
        "pragma journal_mode = wal",
    )
    await database.close()
    other.replace(path)
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 4
    await source.close()


async def test_a_commit_between_the_version_and_the_query_makes_it_run_again(path: Path) -> None:
    app, database, source = protected(path)
    database.before = lambda: sql(path, "update people set name = name || '!'")
    for _ in range(2):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 2
    database.before = None
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 3
    await source.close()


async def test_without_wal_too(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    sql(path, "create table people (id text, secret text, name text)")
    sql(path, "insert into people values ('1', 'secret-of-some-length', 'Ann')")
    app, database, source = protected(path)
    for _ in range(3):
        assert await status_of(app, TOKEN) == 200
    assert database.queries == 1
    sql(path, "delete from people")
    assert await status_of(app, TOKEN) == 401
    await source.close()


def test_what_is_not_known_is_not_repeatable() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("mine", 1, lambda value: value)
        connection.execute("attach ':memory:' as other")
        connection.execute("create table other.t (a)")
        connection.execute("create table t (a)")
        connection.execute("create temp table u (a)")
        for statement, expected in {
            "select a from main.t where a = 1": True,
            "select mine(a) from main.t": False,
            "select a from other.t": False,
            "select a from temp.u": False,
            "select row_number() over (order by a) from main.t": False,
            "select date(a) from main.t": False,
        }.items():
            assert is_repeatable(connection.execute(f"explain {statement}").fetchall()) is expected, statement
    assert not is_repeatable([(0, "Function", 0, 0, 0, None, 0, None)])
    assert not is_repeatable([(0, None, 0, 0, 0, None, 0, None)])
