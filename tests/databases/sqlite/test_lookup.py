"""A lookup never answers what was true before: the traps, by their numbers in the notes on performance."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite import lookup as lookups
from asgi_token_auth.databases.sqlite.reader import CHECK_INTERVAL, Reader
from tests.support.asgi import SECRET, ask, bearer, http, status_of
from tests.support.sqlite_files import ROW, child, other, served, sql

pytestmark = pytest.mark.anyio


async def test_trap_1_commits_of_this_very_process_change_the_version(path: Path, database: SQLite) -> None:
    lookup = database.lookup("t", ROW)
    version, row, _ = await lookup.fetch(1)
    assert lookup.version() == version
    assert row == (1, "one")

    def steps(roll_back: bool) -> Any:
        yield "update t set word = 'two'", {}
        if roll_back:
            raise LookupError

    with pytest.raises(LookupError):
        await database.transaction(steps(True))
    assert lookup.version() == version
    await database.transaction(steps(False))
    assert lookup.version() != version
    assert (await lookup.fetch(1))[1] == (1, "two")


async def test_trap_2_a_lookup_pins_no_snapshot(path: Path, database: SQLite) -> None:
    sql(path, "create table twins (id integer, word text)", "insert into twins values (1, 'one'), (1, 'unfetched')")
    lookup = database.lookup("twins", "id, word")
    version, _, _ = await lookup.fetch(1)
    for word in ("a", "b", "c"):
        sql(path, f"update twins set word = '{word}' where word <> 'unfetched'")
        assert lookup.version() != version
        version, row, _ = await lookup.fetch(1)
        assert row == (1, word)
    # An open snapshot would keep the checkpoint from finishing.
    with other(path) as connection:
        assert connection.execute("pragma wal_checkpoint(truncate)").fetchall() == [(0, 0, 0)]


@pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
async def test_trap_3_a_change_is_seen_after_every_kind_of_checkpoint(path: Path, database: SQLite, mode: str) -> None:
    lookup = database.lookup("t", ROW)
    await lookup.fetch(1)
    for word in ("two", "three"):
        sql(path, f"pragma wal_checkpoint({mode})")
        version, _, _ = await lookup.fetch(1)
        assert lookup.version() == version
        sql(path, f"update t set word = '{word}'")
        assert lookup.version() != version
        assert (await lookup.fetch(1))[1] == (1, word)


async def test_trap_4_a_replaced_file_is_seen_within_a_tenth_of_a_second(
    path: Path, database: SQLite, tmp_path: Path
) -> None:
    assert CHECK_INTERVAL <= 0.1
    lookup = database.lookup("t", ROW)
    version, _, _ = await lookup.fetch(1)
    await database.query("select 1", {})
    for word in ("new", "newer"):
        sql(
            tmp_path / "new.db",
            "create table t (id integer primary key, word text)",
            f"insert into t values (1, '{word}')",
        )
        (tmp_path / "new.db").replace(path)
        deadline = time.monotonic() + 30
        while lookup.version() == version:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        version, row, _ = await lookup.fetch(1)
        assert row == (1, word)
        assert (await database.query("select word from t", {})).rows == [(word,)]


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
connection.execute("rollback")
connection.close()
"""


async def test_trap_9_readers_of_wal_wait_for_nobody(path: Path, database: SQLite) -> None:
    lookup = database.lookup("t", ROW)
    with child(LOCKER, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        version, row, _ = await lookup.fetch(1)
        assert row == (1, "one")
        assert lookup.version() == version


async def test_trap_9_an_exclusive_lock_is_waited_for_and_then_503_and_answers_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "LOOKUP_TIMEOUT", 0.2)
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path, journal_mode=None), secret=SECRET) as store:
        issued = await store.issue("ann")
        with served(store) as app:
            assert await status_of(app, issued.token) == 200
            with child(LOCKER, str(path)) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "locked\n"
                answer = await ask(app, http([bearer(issued.token)]))
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                assert (await ask(app, http())).status == 200
            assert await status_of(app, issued.token) == 200


async def test_trap_9_the_event_loop_turns_while_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path, journal_mode=None), secret=SECRET) as store:
        issued = await store.issue("ann")
        with served(store) as app:
            blocker = sqlite3.connect(path, isolation_level=None)
            blocker.execute("begin exclusive")
            waiting = asyncio.ensure_future(status_of(app, issued.token))
            turns = 0
            while turns < 20:
                await asyncio.sleep(0.001)
                turns += 1
            assert not waiting.done()
            blocker.execute("rollback")
            blocker.close()
            assert await waiting == 200


async def test_trap_10_a_lookup_never_opens_a_file_as_immutable_nor_read_only(path: Path, database: SQLite) -> None:
    connection = database._file.connect_here()
    try:
        assert "immutable" not in database._file._uri("rw")
        assert connection.execute("pragma query_only").fetchall() == [(1,)]
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("update t set word = 'x'")
    finally:
        connection.close()


async def test_trap_10_a_journal_of_a_crashed_writer_is_rolled_back_by_a_lookup(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    crash = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("create table t (id integer primary key, word text)")
connection.execute("insert into t values (1, 'one')")
connection.execute("pragma cache_size = 1")
connection.execute("pragma cache_spill = 1")
connection.execute("begin immediate")
connection.execute("update t set word = 'half done'")
connection.execute("insert into t select value + 1, printf('%.*c', 2000, 'x') from (with recursive c(value) as "
    "(select 1 union all select value + 1 from c limit 500) select value from c)")
print("crashing", flush=True)
os._exit(9)
"""
    with child(crash, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "crashing\n"
        process.wait(timeout=30)
    assert (tmp_path / "t.db-journal").stat().st_size > 0
    database = SQLite(path, journal_mode=None)
    assert (await database.lookup("t", ROW).fetch(1))[1] == (1, "one")
    await database.close()


async def test_trap_11_the_version_is_read_before_the_row(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = database.lookup("t", ROW)
    order: list[str] = []
    version_of = Reader.version

    def version(reader: Reader) -> int:
        # A commit between the two reads must cost a second read and never keep the older row.
        counted = version_of(reader)
        if not order:
            order.append("version")
            sql(path, "update t set word = 'two'")
        return counted

    monkeypatch.setattr(Reader, "version", version)
    tag, row, _ = await lookup.fetch(1)
    assert row == (1, "two")
    assert lookup.version() != tag


async def test_trap_13_a_bad_signature_touches_no_database(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    with served(store) as app:
        assert await status_of(app, "dsatok_WzEsIm4iXQ." + "x" * 43) == 401
    assert list(tmp_path.iterdir()) == []
    await store.close()
