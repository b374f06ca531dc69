"""The -wal and -shm files belong to whoever has the database open; when they go, no answer is what was true before.

What another process has committed by then is neither overlooked nor undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import shutil
import sqlite3
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ManagedTokens, SQLTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite, companions
from asgi_token_auth.databases.sqlite.companions import companions_of, is_open, were_replaced
from asgi_token_auth.errors import StorageError
from tests.support.asgi import SECRET, App, status_of
from tests.support.sqlite_files import ROW, other, run, served, sql

pytestmark = pytest.mark.anyio

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process has to be started again")

REVOKE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("update _datasette_auth_tokens set token_status = 'R' where id = 1")
print(connection.execute("select token_status from _datasette_auth_tokens where id = 1").fetchone()[0])
connection.close()
"""

READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("select * from t").fetchall()
connection.close()
"""

WAYS = ["delete -shm", "delete -wal", "delete both", "replace -shm", "replace -wal", "replace both", "move both away"]


def disturb(path: Path, way: str) -> None:
    """Do what somebody does who takes the two files for leftovers."""
    what, _, which = way.partition(" ")
    for ending in ("-shm", "-wal"):
        file = Path(f"{path}{ending}")
        if ending not in which and "both" not in which:
            continue
        if what == "delete":
            file.unlink()
        elif what == "move":
            file.rename(f"{file}.old")
        else:
            copy = Path(f"{file}.copy")
            shutil.copyfile(file, copy)
            copy.replace(file)


def stored(path: Path) -> str:
    """What a process that knows of nothing finds."""
    return run(REVOKE.replace("update", "-- update"), str(path)).strip()


async def eventually(app: TokenAuthMiddleware, token: str, expected: int) -> list[int]:
    """Every answer until the one that is waited for."""
    answers: list[int] = []
    deadline = time.monotonic() + 30
    while not answers or answers[-1] != expected:
        assert time.monotonic() < deadline, answers[-20:]
        answers.append(await status_of(app, token))
        await asyncio.sleep(0.001)
    return answers


@only_linux
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_revocation_of_another_process_is_seen_and_stays(
    tmp_path: Path, way: str, checkpointed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        issued = [await store.issue("ann") for _ in range(3)]
        with served(store) as app:
            for _ in range(3):
                assert [await status_of(app, one.token) for one in issued] == [200] * 3
            await store.flush()
            if checkpointed:
                sql(path, "pragma wal_checkpoint(restart)")
            disturb(path, way)
            try:
                told = run(REVOKE, str(path)).strip()
            except AssertionError:
                # With the -wal alone gone SQLite may say that it cannot; then nothing was promised to anybody.
                told = ""
            began = time.monotonic()
            if told == "R":
                answers = await eventually(app, issued[0].token, 401)
                assert set(answers) <= {200, 401, 503}
                assert [await status_of(app, one.token) for one in issued] == [401, 200, 200]
                assert await eventually(app, issued[0].token, 401) == [401]
            else:
                while time.monotonic() < began + 0.3:
                    assert await status_of(app, issued[0].token) in (200, 503)
    if told == "R":
        assert "its -wal or -shm file was deleted or replaced while it was in use" in caplog.text
        assert stored(path) == "R", "closing undid what another process had committed"
        with other(path) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


@only_linux
async def test_nothing_is_accepted_a_tenth_of_a_second_later(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        issued = await store.issue("ann")
        with served(store) as app:
            for _ in range(3):
                assert await status_of(app, issued.token) == 200
            disturb(path, "delete -shm")
            assert run(REVOKE, str(path)).strip() == "R"
            (reader,) = (reader for lookup in _lookups(store) for reader in lookup._readers.values())
            # What the clock would do.
            reader.check_at = 0.0
            assert await status_of(app, issued.token) in (401, 503)


def _lookups(store: TokenStore) -> Any:
    assert isinstance(store.database, SQLite)
    return store.database._lookups


@only_linux
@pytest.mark.parametrize("way", ["delete -shm", "delete both", "replace -shm"])
async def test_a_change_of_this_process_undoes_nothing(tmp_path: Path, way: str) -> None:
    """It is refused, or made on top of what the other process has committed."""
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        issued = [await store.issue("ann") for _ in range(2)]
        with served(store) as app:
            assert [await status_of(app, one.token) for one in issued] == [200, 200]
            await store.flush()
            # What stood in the -wal alone would be gone with it.
            sql(path, "pragma wal_checkpoint")
            disturb(path, way)
            assert run(REVOKE, str(path)).strip() == "R"
            revoked = False
            deadline = time.monotonic() + 30
            while not revoked:
                assert time.monotonic() < deadline
                with contextlib.suppress(StorageError):
                    await store.revoke(issued[1].record.id, owner="ann")
                    revoked = True
                await asyncio.sleep(0.001)
            assert await eventually(app, issued[0].token, 401)
            assert await status_of(app, issued[1].token) == 401
    assert stored(path) == "R"
    with other(path) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        statuses = connection.execute("select token_status from _datasette_auth_tokens order by id").fetchall()
        assert statuses == [("R",), ("R",)]


@only_linux
async def test_a_change_amid_which_they_go_is_not_acknowledged(path: Path, database: SQLite) -> None:
    def steps() -> Any:
        yield "update t set word = 'two'", {}
        disturb(path, "delete -shm")
        yield "update t set word = 'three'", {}

    assert database.lookup("t", ROW).fetch_now(1) is not None
    with pytest.raises(StorageError, match="Look whether it was made before you try again"):
        await database.transaction(steps())
    assert database._file.companions.losses == 1
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        with contextlib.suppress(StorageError):
            await database.transaction(one_step("update t set word = 'four'"))
            break
        await asyncio.sleep(0.001)
    assert (await database.query("select word from t", {})).rows == [("four",)]


def one_step(statement: str) -> Any:
    yield statement, {}


@only_linux
async def test_while_somebody_else_in_the_process_holds_the_old_files_nothing_is_answered(
    path: Path, database: SQLite
) -> None:
    with other(path) as held:
        held.execute("select * from t").fetchall()
        lookup = database.lookup("t", ROW)
        assert lookup.fetch_now(1) is not None
        old = {one for one in companions_of(path) if one is not None}
        disturb(path, "delete -shm")
        assert is_open(old)
        deadline = time.monotonic() + 30
        while lookup.version() is not None:
            assert time.monotonic() < deadline
        for _ in range(3):
            with pytest.raises(StorageError, match="start this process again if this does not end by itself"):
                await lookup.fetch(1)
            with pytest.raises(StorageError, match="was deleted or replaced"):
                await database.query("select 1", {})
            await asyncio.sleep(0.05)
    deadline = time.monotonic() + 30
    while lookup.fetch_now(1) is None:
        assert time.monotonic() < deadline
    assert not is_open(old.difference(companions_of(path)))
    assert (await database.query("select word from t", {})).rows == [("one",)]


@only_linux
async def test_all_that_open_the_same_path_let_go_of_it(path: Path, database: SQLite) -> None:
    others = [SQLite(path), database.for_reading()]
    lookup = database.lookup("t", ROW)
    for one in others:
        assert one.lookup("t", ROW).fetch_now(1) is not None
        assert (await one.query("select word from t", {})).rows == [("one",)]
    assert lookup.fetch_now(1) is not None
    disturb(path, "delete both")
    deadline = time.monotonic() + 30
    while database._file.companions.losses == 0:
        assert time.monotonic() < deadline
        lookup.version()
    # The threads of pooled connections end by themselves.
    while lookup.fetch_now(1) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    for one in others:
        assert (await one.query("select word from t", {})).rows == [("one",)]
        await one.close()


@only_linux
async def test_queries_for_tokens_in_tables_of_the_operator_notice_it_too(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    sql(
        path,
        "pragma journal_mode = wal",
        "create table _datasette_auth_tokens (id text, token_status text, secret text)",
        "insert into _datasette_auth_tokens values ('1', 'A', 'secret-of-some-length')",
    )
    query = (
        "select secret as token_secret, id as actor_id from _datasette_auth_tokens "
        "where id = :token_id and token_status = 'A'"
    )
    source = SQLTokens(SQLite(path), query)
    app = TokenAuthMiddleware(App(), sources=[source])
    assert await status_of(app, "1-secret-of-some-length") == 200
    assert await status_of(app, "1-secret-of-some-length") == 200
    disturb(path, "delete -shm")
    assert run(REVOKE, str(path)).strip() == "R"
    answers = await eventually(app, "1-secret-of-some-length", 401)
    # What is remembered is good for a tenth of a second more.
    assert set(answers) <= {200, 401, 503}
    await source.close()
    assert stored(path) == "R"


@only_linux
async def test_a_connection_that_was_used_once_notices_it_too(path: Path, database: SQLite) -> None:
    assert (await database.query("select word from t", {})).rows == [("one",)]
    disturb(path, "delete -shm")
    run(WRITE, str(path))
    assert await _eventually_read(database) == ("two",)


@only_linux
async def test_a_file_that_is_opened_by_a_link_has_them_beside_itself(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    database = SQLite(link)
    lookup = database.lookup("t", ROW)
    assert lookup.fetch_now(1) is not None
    (reader,) = lookup._readers.values()
    assert reader.header is not None
    disturb(path, "delete -shm")
    run(WRITE, str(path))
    reader.check_at = 0.0
    lookup.version()
    assert database._file.companions.losses == 1
    assert await _eventually_read(database) == ("two",)
    await database.close()


WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("update t set word = 'two'")
connection.close()
"""


async def _eventually_read(database: SQLite) -> Any:
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        with contextlib.suppress(StorageError):
            return (await database.query("select word from t", {})).rows[0]
        await asyncio.sleep(0.001)


def _lose(path: Path, lookup: Any) -> None:
    """Have a lookup notice that they are gone."""
    assert lookup.fetch_now(1) is not None
    disturb(path, "delete -shm")
    watch = lookup._file.companions
    losses = watch.losses
    for reader in lookup._readers.values():
        reader.check_at = 0.0
    lookup.version()
    assert watch.losses == losses + 1


@only_linux
async def test_the_garbage_collector_may_close_a_connection_amid_the_look_at_what_is_open(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = [SQLite(path).lookup("t", ROW)]
    assert abandoned[0].fetch_now(1) is not None
    # Its database is gone and nobody closes it when the others are closed.
    lookup = database.lookup("t", ROW)
    looked: list[bool] = []

    def looking(files: set[tuple[int, int]]) -> bool:
        abandoned.clear()
        gc.collect()
        looked.append(is_open(files))
        return looked[-1]

    monkeypatch.setattr(companions, "is_open", looking)
    # In a thread, because it would wait for ever.
    asking = threading.Thread(target=_lose, args=(path, lookup), daemon=True)
    asking.start()
    asking.join(10)
    assert not asking.is_alive()
    assert looked == [False]


COLLECTED = """
import gc, os, sys
sys.path[:0] = [sys.argv[2]]
import logging
logging.disable()
from asgi_token_auth.databases.sqlite import SQLite, wal_index

path = sys.argv[1]
abandoned = [SQLite(path).lookup("t", "id, word")]
abandoned[0].fetch_now(1)
database = SQLite(path)
lookup = database.lookup("t", "id, word")
find = wal_index.find

def found(shm):
    header = find(shm)
    if abandoned:
        os.unlink(f"{path}-shm")
        abandoned.clear()
        gc.collect()
    return header

wal_index.find = found
rows = [lookup.fetch_now(1)]
while rows[-1] is None or len(rows) == 1:
    rows.append(lookup.fetch_now(1))
print(rows[0][1], rows[-1][1], database._file.companions.losses)
"""


@only_linux
def test_the_garbage_collector_closes_no_connection_that_is_being_used(path: Path) -> None:
    # In a process of its own, which a look at memory that is gone would end.
    told = run(COLLECTED, str(path), str(Path(companions.__file__).parents[3]))
    assert told.strip() == "(1, 'one') (1, 'one') 1"


@only_linux
async def test_a_file_that_took_the_place_of_another_is_guarded_itself(path: Path, database: SQLite) -> None:
    lookup = database.lookup("t", ROW)
    _lose(path, lookup)
    assert await _eventually_read(database) == ("one",)
    restored = path.with_suffix(".new")
    sql(restored, "pragma journal_mode = wal", "create table t (id integer primary key, word text)")
    sql(restored, "insert into t values (1, 'restored')")
    await database.close()
    restored.replace(path)
    assert lookup.fetch_now(1) is not None
    _lose(path, lookup)
    status = path.stat()
    assert list(database._file.companions._guard._descriptors)[1:] == [(status.st_dev, status.st_ino)]


async def test_what_may_not_be_closed_stays_open_when_nobody_uses_the_path_any_more(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companions._ClosingGuard, "hold", lambda guard: False)
    database = SQLite(path)
    lookup = database.lookup("t", ROW)
    _lose(path, lookup)
    watched = weakref.ref(database._file.companions)
    del database, lookup
    gc.collect()
    again = watched()
    assert again is not None
    assert len(again._unclosable) == 1
    assert SQLite(path)._file.companions is again
    with pytest.raises(StorageError, match="start this process again"):
        await SQLite(path).query("select 1", {})
    # Here, where nobody committed anything.
    for kept in again._unclosable:
        assert isinstance(kept, sqlite3.Connection)
        kept.close()


async def test_where_sqlite_cannot_be_kept_from_undoing_it_nothing_is_closed(
    path: Path, database: SQLite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on systems that have no locks of this kind."""
    monkeypatch.setattr(companions._ClosingGuard, "hold", lambda guard: False)
    monkeypatch.setattr(companions, "is_open", lambda files: True)
    lookup = database.lookup("t", ROW)
    assert lookup.fetch_now(1) is not None
    (reader,) = lookup._readers.values()
    kept = reader.connection
    disturb(path, "delete -shm")
    deadline = time.monotonic() + 30
    with caplog.at_level(logging.ERROR):
        while lookup.version() is not None:
            assert time.monotonic() < deadline
    assert "for which this process has to be started again" in caplog.text
    assert lookup.fetch_now(1) is None
    assert kept.execute("select 1").fetchall() == [(1,)]
    # Here, where nobody committed anything.
    kept.close()


@pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
async def test_what_sqlite_itself_does_with_them_raises_no_alarm(path: Path, database: SQLite, mode: str) -> None:
    lookup = database.lookup("t", ROW)
    assert lookup.fetch_now(1) is not None
    for number in range(3):
        sql(path, f"update t set word = 'change {number}'", f"pragma wal_checkpoint({mode})", "vacuum")
        run(READ, str(path))
        for reader in lookup._readers.values():
            reader.check_at = 0.0
        found = lookup.fetch_now(1)
        assert found is not None
        assert found[1] == (1, f"change {number}")
        assert (await database.query("select word from t", {})).rows == [(f"change {number}",)]
    assert database._file.companions.losses == 0


async def test_files_that_come_later_are_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sql(path, "create table t (id integer primary key, word text)", "insert into t values (1, 'one')")
    database = SQLite(path, journal_mode=None)
    lookup = database.lookup("t", ROW)
    assert (await database.query("select word from t", {})).rows == [("one",)]
    for statement in ("update t set word = 'two'", "pragma journal_mode = wal", "update t set word = 'three'"):
        for reader in lookup._readers.values():
            reader.check_at = 0.0
        assert lookup.fetch_now(1) is not None
        sql(path, statement)
    assert (await database.query("select word from t", {})).rows == [("three",)]
    assert database._file.companions.losses == 0
    await database.close()


def test_what_counts_as_replaced() -> None:
    one, two = (1, 1), (1, 2)
    assert not were_replaced((None, None), (one, two))
    assert not were_replaced((one, None), (one, two))
    assert not were_replaced((one, two), (one, two))
    assert were_replaced((one, two), (two, two))
    assert were_replaced((one, two), (one, None))
    assert were_replaced((one, None), (None, None))


async def test_stores_that_are_opened_and_closed_in_turn_lose_nothing(tmp_path: Path) -> None:
    """The files come and go with the last connection, and nobody was robbed."""
    path = tmp_path / "t.db"
    tokens: list[str] = []
    for _ in range(4):
        async with TokenStore(SQLite(path), secret=SECRET) as store:
            tokens.append((await store.issue("ann")).token)
            app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
            assert [await status_of(app, token) for token in tokens] == [200] * len(tokens)
            assert isinstance(store.database, SQLite)
            assert store.database._file.companions.losses == 0
    with other(path) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
