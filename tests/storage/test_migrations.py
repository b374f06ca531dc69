"""Tables of every age are brought up to date in place, once, and by however many processes at a time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import ANY_OWNER, Authenticated, Credential, ManagedTokens, StorageError, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.storage.migrations import migrate
from tests.support.asgi import SECRET

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000

# datasette-auth-tokens 0.4a0: no ended_timestamp, L for live, no bookkeeping.
FIRST = """
CREATE TABLE _datasette_auth_tokens (
   id INTEGER PRIMARY KEY,
   token_status TEXT DEFAULT 'L',
   description TEXT,
   actor_id TEXT,
   permissions TEXT,
   created_timestamp INTEGER,
   last_used_timestamp INTEGER,
   expires_after_seconds INTEGER,
   secret_version INTEGER DEFAULT 0
);
INSERT INTO _datasette_auth_tokens (id, token_status, actor_id, permissions, created_timestamp, expires_after_seconds)
VALUES (1, 'L', 'ann', 'null', 1700000000, null), (2, 'R', 'bob', 'null', 1700000000, null),
       (3, 'E', 'eve', 'null', 1600000000, 60), (4, 'L', 'old', 'null', 1600000000, 60);
"""
# 0.4a3 to 0.4a12: the column was added, the rows were meant to be rewritten and were not.
SKIPPED = """
CREATE TABLE "_datasette_auth_tokens" (
   [id] INTEGER PRIMARY KEY,
   [token_status] TEXT DEFAULT 'A',
   [description] TEXT,
   [actor_id] TEXT,
   [permissions] TEXT,
   [created_timestamp] INTEGER,
   [last_used_timestamp] INTEGER,
   [expires_after_seconds] INTEGER,
   [ended_timestamp] INTEGER,
   [secret_version] INTEGER DEFAULT '0'
);
CREATE TABLE [_sqlite_migrations] (
   [migration_set] TEXT, [name] TEXT, [applied_at] TEXT, PRIMARY KEY ([migration_set], [name])
);
INSERT INTO _sqlite_migrations VALUES
 ('datasette_auth_tokens', 'm001_create_table', '2024-01-22 01:02:52.002983+00:00'),
 ('datasette_auth_tokens', 'm002_rename_live_to_active', '2024-01-22 01:02:52.002983+00:00'),
 ('datasette_auth_tokens', 'm003_add_ended_timestamp', '2024-01-22 01:02:52.002983+00:00');
INSERT INTO _datasette_auth_tokens (id, token_status, actor_id, permissions, created_timestamp, expires_after_seconds)
VALUES (1, 'L', 'ann', 'null', 1700000000, null), (2, 'R', 'bob', 'null', 1700000000, null),
       (3, 'E', 'eve', 'null', 1600000000, 60), (4, 'L', 'old', 'null', 1600000000, 60);
"""
# 0.4a13 with sqlite-utils 4, in a database where Datasette keeps its own bookkeeping in the same table.
LATEST = """
CREATE TABLE "_datasette_auth_tokens" ("id" INTEGER PRIMARY KEY, "token_status" TEXT DEFAULT 'A', "description" TEXT,
 "actor_id" TEXT, "permissions" TEXT, "created_timestamp" INTEGER, "last_used_timestamp" INTEGER,
 "expires_after_seconds" INTEGER, "ended_timestamp" INTEGER, "secret_version" INTEGER DEFAULT '0');
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES
 ('datasette_internal', '0001_initial', '2026-11-22 01:02:52.002983+00:00'),
 ('datasette_auth_tokens', 'm001_create_table', '2026-11-22 01:02:52.002983+00:00'),
 ('datasette_auth_tokens', 'm002_rename_live_to_active', '2026-11-22 01:02:52.002983+00:00'),
 ('datasette_auth_tokens', 'm003_add_ended_timestamp', '2026-11-22 01:02:52.002983+00:00');
INSERT INTO _datasette_auth_tokens
 (id, token_status, actor_id, permissions, created_timestamp, expires_after_seconds, ended_timestamp)
VALUES (1, 'A', 'ann', 'null', 1700000000, null, null), (2, 'R', 'bob', 'null', 1700000000, null, 1700000005),
       (3, 'E', 'eve', 'null', 1600000000, 60, 1600000060), (4, 'A', 'old', 'null', 1600000000, 60, null);
"""
SHAPES = {"0.4a0": FIRST, "0.4a3 to 0.4a12": SKIPPED, "0.4a13": LATEST}


def legacy(row_id: int) -> str:
    return "dsatok_" + str(URLSafeSerializer(SECRET, salt="dsatok").dumps(row_id))


def make(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def open_store(path: Path) -> TokenStore:
    return TokenStore(SQLite(path), secret=SECRET, clock=lambda: NOW + 100.0)


def test_the_predecessors_text_is_what_the_record_of_its_format_says() -> None:
    # Worked out by hand from HMAC-SHA1 with the secret "s3cret", see Datasette.sign().
    assert URLSafeSerializer("s3cret", salt="dsatok").dumps(1) == "MQ.WfOAU9AMz24lxLyYZv1UCAIoNGI"


@pytest.mark.parametrize("script", SHAPES.values(), ids=SHAPES)
async def test_a_table_of_the_predecessor_is_taken_over_in_place(tmp_path: Path, script: str) -> None:
    path = tmp_path / "t.db"
    make(path, script)
    bookkeeping = "select * from _sqlite_migrations order by 1, 2"
    kept = rows(path, bookkeeping) if "_sqlite_migrations" in script else None
    async with open_store(path) as store:
        source = ManagedTokens(store)
        outcomes = [await source.authenticate(Credential(legacy(row_id))) for row_id in (1, 2, 3, 4)]
        assert isinstance(outcomes[0], Authenticated)
        assert outcomes[0].actor() == {"id": "ann", "token": "dsatok", "token_id": 1}
        assert [str(getattr(outcome, "reason", None)) for outcome in outcomes[1:]] == ["revoked", "expired", "expired"]
        assert [(await store.get(row_id, owner=ANY_OWNER)).status for row_id in (1, 2, 3, 4)] == [
            "active",
            "revoked",
            "expired",
            "expired",
        ]
        issued = await store.issue("new")
        assert issued.record.id == 5
        await store.revoke(1, owner="ann")
        assert not isinstance(await source.authenticate(Credential(legacy(1))), Authenticated)
    if kept is not None:
        assert rows(path, bookkeeping) == kept


@pytest.mark.parametrize("script", SHAPES.values(), ids=SHAPES)
async def test_a_table_that_was_taken_over_stays_readable_by_the_predecessor(tmp_path: Path, script: str) -> None:
    path = tmp_path / "t.db"
    make(path, script)
    async with open_store(path) as store:
        await store.revoke(1, owner="ann")
    # Its own query, with the columns that its latest release names.
    assert rows(
        path,
        "select id, token_status, description, actor_id, permissions, created_timestamp, last_used_timestamp, "
        "expires_after_seconds, ended_timestamp, secret_version from _datasette_auth_tokens where id = 1",
    ) == [(1, "R", None, "ann", "null", 1_700_000_000, None, None, NOW + 100, 0)]


@pytest.mark.parametrize("script", ["", *SHAPES.values()], ids=["nothing", *SHAPES])
async def test_migrating_twice_changes_nothing(tmp_path: Path, script: str) -> None:
    path = tmp_path / "t.db"
    make(path, script)
    dumps = []
    for _ in range(2):
        async with open_store(path):
            pass
        connection = sqlite3.connect(path)
        dumps.append(list(connection.iterdump()))
        connection.close()
    assert dumps[0] == dumps[1]


async def test_an_l_that_comes_back_later_is_not_made_active_by_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    make(path, FIRST)
    async with open_store(path):
        pass
    make(path, "update _datasette_auth_tokens set token_status = 'L' where id = 1")
    async with open_store(path) as store:
        assert (await store.get(1, owner="ann")).status == "damaged"


START = """
import asyncio, sys
from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    async with TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2]) as store:
        await store.issue("ann")

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


@pytest.mark.parametrize("script", [None, FIRST], ids=["a new file", "a table of 0.4a0"])
async def test_eight_processes_that_start_at_once_all_start(tmp_path: Path, script: str | None) -> None:
    path = tmp_path / "t.db"
    if script is not None:
        make(path, script)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(path), SECRET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert rows(path, "select count(*) from _datasette_auth_tokens where token_digest is not null") == [(8,)]
    assert rows(path, "select name from _datasette_auth_tokens_migrations order by name") == [
        ("0001_predecessor",),
        ("0002_nonces",),
        ("0003_events",),
        ("0004_search",),
        ("0005_ends",),
        ("0006_uses",),
        ("0007_requests",),
        ("0008_families",),
    ]


async def test_a_database_of_a_newer_release_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with open_store(path):
        pass
    make(path, "insert into _datasette_auth_tokens_migrations values ('0999_future', 1)")
    store = open_store(path)
    with pytest.raises(StorageError, match=r"0999_future.*install the newer release"):
        await store.open()


async def test_a_change_that_fails_leaves_none_of_itself_behind(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    make(path, "create table _datasette_auth_tokens (id integer primary key, token_status text)")
    before = rows(path, "select sql from sqlite_master")
    with pytest.raises(StorageError, match="actor_id"):
        await open_store(path).open()
    assert rows(path, "select sql from sqlite_master") == before


async def test_a_lost_bookkeeping_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with open_store(path) as store:
        issued = await store.issue("ann")
    make(path, "drop table _datasette_auth_tokens_migrations")
    async with open_store(path) as store:
        assert isinstance(await ManagedTokens(store).authenticate(Credential(issued.token)), Authenticated)


async def test_only_what_has_not_run_is_run_and_named(tmp_path: Path) -> None:
    database = SQLite(tmp_path / "t.db")
    await database.open()
    ran: list[str] = []

    def change(name: str):  # type: ignore[no-untyped-def]
        def steps():  # type: ignore[no-untyped-def]
            ran.append(name)
            yield f"create table {name} (x)", {}

        return name, steps

    assert await migrate(database, "book", [change("one")], 1) == ["one"]
    assert await migrate(database, "book", [change("one"), change("two")], 2) == ["two"]
    assert await migrate(database, "book", [change("one"), change("two")], 3) == []
    assert ran == ["one", "two"]
    await database.close()
