"""A SQLite file under everything that happens to files: other processes, forks, replacement, damage, full disks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from asgi_token_auth import ConfigurationError, ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite, connections
from asgi_token_auth.databases.sqlite import database as databases
from asgi_token_auth.databases.sqlite import file as files
from asgi_token_auth.databases.sqlite import lookup as lookups
from tests.support import ROOT
from tests.support.asgi import SECRET, App, ask, bearer, http, status_of

pytestmark = pytest.mark.anyio

ROW = "id, word"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in WAL with one row."""
    path = tmp_path / "t.db"
    with other(path) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (id integer primary key, word text)")
        connection.execute("insert into t values (1, 'one')")
    return path


@pytest.fixture
async def database(path: Path, anyio_backend: str) -> AsyncIterator[SQLite]:
    database = SQLite(path)
    yield database
    await database.close()


@contextmanager
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def sql(path: Path, *statements: str) -> None:
    with other(path) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def served(store: TokenStore, app: App | None = None) -> Iterator[TokenAuthMiddleware]:
    yield TokenAuthMiddleware(app or App(), sources=[ManagedTokens(store)])


@contextmanager
def child(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, which says when it is ready and stops when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# The ordinary


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
        with pytest.raises(StorageError, match="cannot be opened"):
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


@pytest.mark.parametrize("act", ["open", "transaction", "close"])
def test_a_loop_that_ends_while_a_connection_closes_waits_for_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    database = SQLite(tmp_path / "t.db")
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
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(10)


# Traps, by their numbers in the notes on performance


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
    assert lookups._SAME_FILE_INTERVAL <= 0.1
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


FORK = """
import asyncio, logging, os, sys
logging.disable()
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

path, secret, mode = sys.argv[1], sys.argv[2], sys.argv[4]
store = TokenStore(SQLite(path), secret=secret)
app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])

async def status(token):
    return (await ask(app, http([bearer(token)]))).status

async def parent():
    issued = await store.issue("ann")
    assert await status(issued.token) == 200
    if mode == "opened after the fork":
        await store.close()
    return issued

async def in_child(issued):
    seen = [await status(issued.token)]
    if mode == "opened after the fork":
        await store.revoke(issued.record.id, owner="ann")
        seen.append(await status(issued.token))
    else:
        fresh = SQLite(path)
        for attempt in (
            lambda: store.revoke(issued.record.id, owner="ann"), store.ping, store.open,
            lambda: fresh.query("select 1", {}), fresh.open, lambda: fresh.lookup("t", "id").fetch(1),
        ):
            try:
                await attempt()
            except StorageError as error:
                assert "forked" in str(error), error
                seen.append("refused")
            else:
                seen.append("done")
    await store.close()
    return seen

loop = asyncio.new_event_loop()
issued = loop.run_until_complete(parent())
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(reading)
    try:
        seen = asyncio.run(asyncio.wait_for(in_child(issued), 20))
    except BaseException as error:
        seen = repr(error)
    os.write(writing, repr(seen).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    print(pipe.read())
os.waitpid(pid, 0)
expected = 401 if mode == "opened after the fork" else 200
assert loop.run_until_complete(status(issued.token)) == expected
loop.run_until_complete(store.close())
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [("opened before the fork", repr([503, *["refused"] * 6])), ("opened after the fork", repr([200, 401]))],
)
def test_trap_5_a_file_that_was_open_at_a_fork_is_refused_in_the_child(
    tmp_path: Path, mode: str, expected: str
) -> None:
    output = run(FORK, str(tmp_path / "t.db"), SECRET, str(ROOT), mode)
    assert output.strip() == expected


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


AS_NOBODY = """
import asyncio, logging, os, sys
logging.disable()
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

# Not earlier: the packages may lie where only their owner reads.
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

async def main():
    store = TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2])
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    print((await ask(app, http([bearer(sys.argv[4])]))).status)
    try:
        await store.revoke(1, owner="ann")
    except StorageError as error:
        print(str(error).partition(": ")[2])
    await store.close()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no such rights on this system")
@pytest.mark.parametrize("journal_mode", ["wal", None], ids=["wal", "rollback journal"])
async def test_trap_10_a_file_that_can_only_be_read_authenticates_or_fails_closed(journal_mode: Any) -> None:
    here = str(ROOT)
    # Not in tmp_path, whose parents are closed to the user without rights.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "t.db"
        async with TokenStore(SQLite(path, journal_mode=journal_mode), secret=SECRET) as store:
            issued = await store.issue("ann")
        path.chmod(0o444)
        folder.chmod(0o555)
        try:
            lines = run(AS_NOBODY, str(path), SECRET, here, issued.token).splitlines()
        finally:
            folder.chmod(0o755)
    # Without the -shm file, which this user may not make there, WAL cannot be read.
    status = "503" if journal_mode == "wal" else "200"
    assert lines == [status, "it can only be read; give this process the right to write the file and its folder."]


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


async def test_trap_11_the_version_is_read_before_the_row(path: Path, database: SQLite) -> None:
    lookup = database.lookup("t", ROW)
    order: list[str] = []
    version_of = lookup._version

    def version(reader: Any) -> int:
        # A commit between the two reads must cost a second read and never keep the older row.
        counted = version_of(reader)
        if not order:
            order.append("version")
            sql(path, "update t set word = 'two'")
        return counted

    lookup._version = version  # type: ignore[method-assign]
    tag, row, _ = await lookup.fetch(1)
    assert row == (1, "two")
    assert lookup.version() != tag


async def test_trap_13_a_bad_signature_touches_no_database(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    with served(store) as app:
        assert await status_of(app, "dsatok_WzEsIm4iXQ." + "x" * 43) == 401
    assert list(tmp_path.iterdir()) == []
    await store.close()


# Faults of files


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
        yield store


async def settle(app: TokenAuthMiddleware, token: str, status: int) -> None:
    deadline = time.monotonic() + 30
    while await status_of(app, token) != status:
        assert time.monotonic() < deadline, f"{status} never came"
        await asyncio.sleep(0.005)


async def test_a_deleted_file_is_503_and_never_made_again(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    with served(store) as app:
        assert await status_of(app, issued.token) == 200
        for file in tmp_path.glob("tokens.db*"):
            file.unlink()
        await settle(app, issued.token, 503)
        for attempt in (store.issue("bob"), store.revoke(1, owner="ann"), store.get(1, owner="ann"), store.ping()):
            with pytest.raises(StorageError):
                await attempt
        await store.flush()
        assert await status_of(app, issued.token) == 503
        assert list(tmp_path.iterdir()) == []


async def test_a_file_replaced_under_load_counts_from_then_on(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    async with TokenStore(SQLite(tmp_path / "new.db"), secret=SECRET) as new:
        other_token = await new.issue("bob")
    with served(store) as app:
        answers: list[int] = []
        stop = False

        async def load() -> None:
            while not stop:
                answers.append(await status_of(app, issued.token))
                await asyncio.sleep(0)

        loading = asyncio.ensure_future(load())
        while len(answers) < 100:
            await asyncio.sleep(0)
        # A journal that stayed would be taken for the new file's own.
        (tmp_path / "tokens.db-wal").unlink()
        (tmp_path / "tokens.db-shm").unlink()
        (tmp_path / "new.db").replace(tmp_path / "tokens.db")
        await settle(app, other_token.token, 200)
        await settle(app, issued.token, 401)
        stop = True
        await loading
        assert set(answers) <= {200, 401, 503}
        last_good = len(answers) - 1 - answers[::-1].index(200)
        assert 401 not in answers[:last_good]


async def test_a_missing_table_is_503_and_heals(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    with served(store) as app:
        assert await status_of(app, issued.token) == 200
        sql(tmp_path / "tokens.db", f"alter table {store.table} rename to hidden")
        assert await status_of(app, issued.token) == 503
        sql(tmp_path / "tokens.db", f"alter table hidden rename to {store.table}")
        assert await status_of(app, issued.token) == 200


async def test_an_emptied_file_is_503(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann")
    await store.close()
    (tmp_path / "tokens.db").write_bytes(b"")
    store.ready = True
    with served(store) as app:
        assert await status_of(app, issued.token) == 503
    assert (tmp_path / "tokens.db").stat().st_size == 0


@pytest.mark.parametrize("where", ["header", "pages"])
async def test_a_damaged_file_is_503_and_neither_repaired_nor_served(tmp_path: Path, where: str) -> None:
    path = tmp_path / "tokens.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        issued = await store.issue("ann")
    content = bytearray(path.read_bytes())
    start, end = (0, 100) if where == "header" else (4096, len(content))
    content[start:end] = os.urandom(end - start)
    path.write_bytes(content)
    store = TokenStore(SQLite(path), secret=SECRET)
    with served(store) as app:
        assert await status_of(app, issued.token) == 503
        # As a worker sees it that had started before.
        store.ready = True
        assert await status_of(app, issued.token) == 503
    await store.close()
    assert path.read_bytes() == bytes(content)


FULL = """
import asyncio, resource, sys
sys.path[:0] = [sys.argv[3]]
from tests.support.asgi import App, bearer, ask, http
from asgi_token_auth import ManagedTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    store = TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2])
    app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
    async with store:
        acknowledged = [await store.issue("ann")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        refused = 0
        while not refused:
            try:
                acknowledged.append(await store.issue("ann", description="x" * 1000))
            except StorageError:
                refused += 1
        for issued in acknowledged:
            assert (await ask(app, http([bearer(issued.token)]))).status == 200
        try:
            await store.revoke(acknowledged[0].record.id, owner="ann")
            revoked = True
        except StorageError:
            revoked = False
        status = (await ask(app, http([bearer(acknowledged[0].token)]))).status
        assert status == (401 if revoked else 200), status
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.revoke(acknowledged[0].record.id, owner="ann")
        assert (await ask(app, http([bearer(acknowledged[0].token)]))).status == 401
        print(len(acknowledged), (await store.database.query("pragma integrity_check", {})).rows)

asyncio.run(main())
"""


def test_a_disk_that_is_full_refuses_changes_honestly_and_keeps_authenticating(tmp_path: Path) -> None:
    output = run(FULL, str(tmp_path / "t.db"), SECRET, str(ROOT))
    number, _, integrity = output.strip().partition(" ")
    assert int(number) > 1
    assert integrity == "[('ok',)]"


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


KILLED = """
import asyncio, sys
from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    async with TokenStore(SQLite(sys.argv[1]), secret=sys.argv[2]) as store:
        before = None
        while True:
            issued = await store.issue("ann")
            print("issued", issued.record.id, issued.token, flush=True)
            if before is not None:
                await store.revoke(before, owner="ann")
                print("revoked", before, "-", flush=True)
            before = issued.record.id

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    rounds = int(os.environ.get("TEST_KILL9_ROUNDS", "30"))
    tokens: dict[int, str] = {}
    revoked: set[int] = set()
    for number in range(rounds):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), SECRET], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 1 + number % 13:
                process.send_signal(signal.SIGKILL)
                break
        lines += process.stdout.readlines()
        process.wait(timeout=30)
        process.stdout.close()
        for line in lines:
            if not line.endswith("\n"):
                continue
            word, number_of_row, text = line.split()
            if word == "issued":
                tokens[int(number_of_row)] = text
            else:
                revoked.add(int(number_of_row))
    assert len(tokens) >= rounds
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        # The last of a round may have been revoked without having been told so.
        with served(store) as app:
            for row_id, token in tokens.items():
                status = await status_of(app, token)
                record = await store.get(row_id, owner="ann")
                if row_id in revoked:
                    assert (status, record.status) == (401, "revoked")
                else:
                    assert (status, record.status) in ((200, "active"), (401, "revoked"))
        assert (await store.database.query("pragma integrity_check", {})).rows == [("ok",)]
        untold = [row_id for row_id in tokens if row_id not in revoked]
        ended = [row_id for row_id in untold if (await store.get(row_id, owner="ann")).status == "revoked"]
        assert len(ended) <= rounds
        events = await store.database.query(
            f"select count(*) from {store.table} t where not exists (select 1 from {store.table}_events e "
            "where e.token_id = t.id and e.event = 'created')",
            {},
        )
        assert events.rows == [(0,)]


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
