"""Tokens in the operator's own tables: split at the first hyphen, compared in constant time, never written."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import (
    Authenticated,
    ConfigurationError,
    Credential,
    Outcome,
    Reason,
    Rejected,
    SQLTokens,
    StorageError,
    TokenAuthMiddleware,
)
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import App, Scripted, ask, authenticated, bearer, http
from tests.support.places import Place

pytestmark = pytest.mark.anyio

SQL = "select actor_id, actor_name, token_secret from tokens where token_id = :token_id"
ENDLESS = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("create table tokens (token_id text primary key, token_secret, actor_id, actor_name)")
    connection.commit()
    connection.close()
    return path


@pytest.fixture
async def source(path: Path, anyio_backend: str) -> AsyncIterator[SQLTokens]:
    source = SQLTokens(SQLite(path), SQL)
    yield source
    await source.close()


@pytest.fixture
async def either(place: Place, anyio_backend: str) -> AsyncIterator[SQLTokens]:
    """The same table on either kind of database."""
    place.run("create table tokens (token_id text primary key, token_secret text, actor_id text, actor_name text)")
    database = place.database()
    source = SQLTokens(database, SQL.replace("from tokens", f"from {database.qualified('tokens')}"))
    yield source
    await source.close()


def add(path: Path, token_id: object, secret: object, actor_id: object = "ann", name: object = "Ann") -> None:
    connection = sqlite3.connect(path)
    connection.execute("insert into tokens values (?, ?, ?, ?)", (token_id, secret, actor_id, name))
    connection.commit()
    connection.close()


async def check(source: SQLTokens, token: str) -> object:
    """The actor, or the reason, or None."""
    outcome: Outcome = await source.authenticate(Credential(token))
    return outcome.actor() if isinstance(outcome, Authenticated) else outcome and outcome.reason


ANN = {"id": "ann", "name": "Ann"}


@pytest.mark.parametrize("secret", ["s3cret", "with-hyphen", "-", "--", "a-b-c-", "x" * 500])
async def test_the_token_is_split_at_its_first_hyphen(source: SQLTokens, path: Path, secret: str) -> None:
    add(path, "4", secret)
    assert await check(source, f"4-{secret}") == ANN
    assert await check(source, f"4-{secret}x") is Reason.WRONG_SECRET
    assert await check(source, f"4-{secret[:-1]}") is Reason.WRONG_SECRET
    assert await check(source, f"5-{secret}") is None


async def test_a_token_without_a_hyphen_runs_no_query(path: Path) -> None:
    path.unlink()
    source = SQLTokens(SQLite(path), SQL)
    assert await check(source, "nohyphen") is None


@pytest.mark.parametrize(
    ("stored", "presented", "matches"),
    [
        (None, "", False),
        (None, "None", False),
        (None, "null", False),
        ("", "", False),
        (b"", "", False),
        (123, "123", True),
        (0, "0", True),
        (123, "0123", False),
        (123, "", False),
        (b"s3cret", "s3cret", True),
        (b"\xff", "%FF", False),
        (1.5, "1.5", False),
        (1.0, "1.0", False),
        ("caf\u00e9", "caf", False),
        ("caf\u00e9", "caf?", False),
    ],
    ids=repr,
)
async def test_a_secret_of_an_odd_type_matches_itself_or_nothing(
    source: SQLTokens, path: Path, stored: object, presented: str, matches: bool
) -> None:
    add(path, "4", stored)
    assert await check(source, f"4-{presented}") == (ANN if matches else Reason.WRONG_SECRET)


async def test_a_secret_that_is_no_text_at_all_matches_nothing(source: SQLTokens, path: Path) -> None:
    add(path, "4", "x")
    connection = sqlite3.connect(path)
    connection.execute("update tokens set token_secret = cast(x'ff' as text)")
    connection.commit()
    connection.close()
    for presented in ("", "x", "?", "\ufffd"):
        assert await check(source, f"4-{presented}") is Reason.WRONG_SECRET


@pytest.mark.parametrize("actor_id", [None, "", b"ann"], ids=repr)
async def test_a_row_without_a_usable_actor_id_is_refused(
    source: SQLTokens, path: Path, actor_id: object, caplog: pytest.LogCaptureFixture
) -> None:
    add(path, "4", "s", actor_id)
    for _ in range(20):
        assert await check(source, "4-s") is Reason.DAMAGED
    # One line, however often it is asked for.
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_one_leading_actor_is_removed_and_other_columns_stay_out(path: Path) -> None:
    add(path, "4", "s")
    source = SQLTokens(
        SQLite(path), "select *, 'x' as actor_actor_x, 1 as actor_, 5 as other from tokens where token_id = :token_id"
    )
    assert await check(source, "4-s") == {"id": "ann", "name": "Ann", "actor_x": "x"}
    await source.close()


async def test_restrictions_in_a_column_that_are_none_refuse_the_token(path: Path) -> None:
    add(path, "4", "s")
    source = SQLTokens(SQLite(path), "select *, 'vt' as actor__r from tokens where token_id = :token_id")
    assert await check(source, "4-s") is Reason.DAMAGED
    await source.close()


async def test_a_change_of_the_row_counts_at_the_next_request(place: Place, either: SQLTokens) -> None:
    place.run("insert into tokens values ('4', 's', 'ann', 'Ann')")
    outcome = await either.authenticate(Credential("4-s"))
    assert isinstance(outcome, Authenticated)
    assert await outcome.auth.recheck() is True
    place.run("update tokens set token_secret = 'other'")
    assert await check(either, "4-s") is Reason.WRONG_SECRET
    assert await outcome.auth.recheck() is False


async def test_an_id_is_a_value_and_never_sql(place: Place, either: SQLTokens) -> None:
    place.run("insert into tokens values ('4', 's', 'ann', 'Ann')")
    for token_id in ("' or 1=1 --", "4' --", "%", "*", "", "4;drop table tokens", ":token_id", "$1"):
        assert await check(either, f"{token_id}-s") is None
    assert await check(either, "4-s") == ANN


# Configuration


@pytest.mark.parametrize(
    "sql",
    [
        "with t as (delete from tokens returning *) select :token_id as token_secret, 1 as actor_id",
        "delete from tokens where token_id = :token_id returning token_secret, actor_id",
        "update tokens set actor_id = :token_id returning token_secret, actor_id",
        "insert into tokens values (:token_id, 1, 2, 3) returning token_secret, actor_id",
        "pragma table_info(:token_id)",
        "attach :token_id as x",
        "select token_secret, actor_id from tokens where token_id = :token_id; delete from tokens",
        "select token_secret, actor_id from tokens) as t; delete from tokens; select * from (select :token_id",
        "selekt :token_id",
        "select token_secret, actor_id from missing where token_id = :token_id",
        "select token_secret from tokens where token_id = :token_id",
        "select actor_id from tokens where token_id = :token_id",
        "select token_secret, actor_id, actor_id from tokens where token_id = :token_id",
        "select token_secret, actor_name from tokens where token_id = :token_id",
        "select token_secret, actor_id from tokens where token_id = :token_id and x = :more",
    ],
)
async def test_a_query_that_is_not_one_select_or_lacks_a_column_does_not_start(
    place: Place, either: SQLTokens, sql: str
) -> None:
    place.run("insert into tokens values ('4', 's', 'ann', 'Ann')")
    database = place.database()
    source = SQLTokens(database, re.sub(r"\btokens\b", database.qualified("tokens"), sql))
    with pytest.raises(ConfigurationError, match=r"query\.sql"):
        await source.open()
    # Without a lifespan the first request finds out, and is not anonymous.
    app = App()
    for options in ({}, {"unknown": "pass"}):
        wrapped = TokenAuthMiddleware(app, sources=[source], **options)  # type: ignore[arg-type]
        assert (await ask(wrapped, http([bearer("4-s")]))).status == 503
    assert app.scopes == []
    await source.close()
    assert [tuple(row) for row in place.run("select token_id, actor_id from tokens")] == [("4", "ann")]


@pytest.mark.parametrize("end", [";", " ; ", " -- the end", "\n"])
async def test_a_query_may_end_as_people_write_it(place: Place, either: SQLTokens, end: str) -> None:
    place.run("insert into tokens values ('4', 's', 'ann', 'Ann')")
    source = SQLTokens(place.database(), f"\n{either._sql}{end}")
    assert await check(source, "4-s") == ANN
    await source.close()


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("", {}),
        ("   ", {}),
        (None, {}),
        ("select 1", {}),
        ("select :token_identity", {}),
        (SQL, {"timeout": 0}),
        (SQL, {"timeout": -1}),
        (SQL, {"timeout": True}),
        (SQL, {"timeout": "1"}),
        (SQL, {"timeout": float("nan")}),
        (SQL, {"timeout": 61}),
    ],
)
def test_an_argument_that_cannot_work_is_refused_at_construction(path: Path, sql: Any, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        SQLTokens(SQLite(path), sql, **options)


# Faults


async def test_a_missing_database_is_503_and_is_not_created(tmp_path: Path) -> None:
    source = SQLTokens(SQLite(tmp_path / "app.db"), SQL)
    with pytest.raises(StorageError):
        await source.open()
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=[source], unknown="pass")
    assert (await ask(wrapped, http([bearer("4-s")]))).status == 503
    assert list(tmp_path.iterdir()) == []
    assert app.scopes == []


async def test_the_operators_file_keeps_its_journal_mode(source: SQLTokens, path: Path) -> None:
    await source.open()
    await check(source, "4-s")
    connection = sqlite3.connect(path)
    assert connection.execute("pragma journal_mode").fetchall() == [("delete",)]
    connection.close()


async def test_a_query_that_takes_too_long_is_503(path: Path) -> None:
    slow = f"select 's' as token_secret, ({ENDLESS}) as actor_id from (select :token_id)"
    source = SQLTokens(SQLite(path), slow, timeout=0.05)
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=[source], unknown="pass")
    for _ in range(6):
        assert (await ask(wrapped, http([bearer("4-s")]))).status == 503
    assert app.scopes == []
    await source.close()


async def test_a_locked_database_is_503_and_answers_again(path: Path) -> None:
    add(path, "4", "s")
    source = SQLTokens(SQLite(path), SQL, timeout=0.1)
    await source.open()
    wrapped = TokenAuthMiddleware(App(), sources=[source])
    script = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
connection.close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    answer = await ask(wrapped, http([bearer("4-s")]))
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()
    assert answer.status == 503
    assert (await ask(wrapped, http([bearer("4-s")]))).status == 200
    await source.close()


async def test_a_table_that_vanishes_is_503_until_it_is_back(place: Place, either: SQLTokens) -> None:
    place.run("insert into tokens values ('4', 's', 'ann', 'Ann')")
    assert await check(either, "4-s") == ANN
    place.run("alter table tokens rename to elsewhere")
    with pytest.raises(StorageError):
        await check(either, "4-s")
    place.run("alter table elsewhere rename to tokens")
    assert await check(either, "4-s") == ANN


@pytest.mark.parametrize("token", ["dsatok_1-s", "dstok_a-b.c-d", "dsatok_-", "dstok_-", "own_1-s"])
async def test_a_token_with_a_known_prefix_never_reaches_the_sql(path: Path, token: str) -> None:
    asked: list[str] = []

    class Watched(SQLTokens):
        async def authenticate(self, credential: Credential) -> Outcome:
            asked.append(credential.token)
            return await super().authenticate(credential)

    source = Watched(SQLite(path), "select 's' as token_secret, :token_id as actor_id")
    owner = Scripted({"own_1-s": Rejected(Reason.REVOKED)}, prefixes=("own_",))
    wrapped = TokenAuthMiddleware(App(), sources=[source, owner])
    assert (await ask(wrapped, http([bearer(token)]))).status == 401
    assert asked == []
    await source.close()


async def test_a_hard_coded_or_plain_source_beside_it_still_works(source: SQLTokens, path: Path) -> None:
    add(path, "4", "s")
    app = App()

    async def plain(token: str) -> Any:
        return {"id": "plain"} if token == "9-z" else None

    wrapped = TokenAuthMiddleware(
        app, sources=[plain, source, Scripted({"own_1": authenticated("own")}, prefixes=("own_",))]
    )
    for token in ("4-s", "9-z", "own_1"):
        assert (await ask(wrapped, http([bearer(token)]))).status == 200
    assert [scope["actor"]["id"] for scope in app.scopes] == ["ann", "plain", "own"]
