"""The version that is told without a system call: it is used where it is sound, and nowhere else.

Where anything is odd SQLite itself is asked, as on every other system.
"""

from __future__ import annotations

import logging
import mmap
import os
import random
import shutil
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite, wal_index
from asgi_token_auth.databases.sqlite import reader as readers
from asgi_token_auth.databases.sqlite.file import File
from asgi_token_auth.databases.sqlite.lookup import SQLiteLookup
from asgi_token_auth.databases.sqlite.reader import Reader
from asgi_token_auth.errors import ConfigurationError
from tests.support.asgi import SECRET, status_of
from tests.support.sqlite_files import ROW, child, other, run, served, sql

pytestmark = pytest.mark.anyio

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is described in /proc")


def looking(database: SQLite) -> tuple[SQLiteLookup, Reader]:
    """A lookup, and the connection that it reads on here."""
    lookup = database.lookup("t", ROW)
    lookup.version()
    return lookup, next(iter(lookup._readers.values()))


def checked_again(reader: Reader) -> None:
    """Make the look that is due ten times a second due now."""
    reader.check_at = 0.0
    reader._find_again_at = 0.0


def word(lookup: SQLiteLookup) -> str:
    found = lookup.fetch_now(1)
    assert found is not None
    assert found[1] is not None
    return str(found[1][1])


async def seen(lookup: SQLiteLookup, path: Path, *ways: Any) -> None:
    """Every change that ``ways`` or a plain connection make is seen at once."""
    for number, way in enumerate((sql, *ways, sql)):
        version, _, _ = await lookup.fetch(1)
        assert lookup.version() == version
        way(path, f"update t set word = 'change {number}'")
        assert lookup.version() != version
        assert word(lookup) == f"change {number}"


@only_linux
@pytest.mark.parametrize("after", ["passive", "full", "restart", "truncate", "vacuum"])
async def test_changes_are_seen_by_the_header_after_checkpoints(path: Path, database: SQLite, after: str) -> None:
    lookup, reader = looking(database)
    for _ in range(3):
        assert reader.header is not None
        sql(path, "vacuum" if after == "vacuum" else f"pragma wal_checkpoint({after})")
        await seen(lookup, path)
    checked_again(reader)
    lookup.version()
    assert reader.header is not None


@only_linux
async def test_sqlite_is_not_asked_while_the_header_stays_the_same(path: Path, database: SQLite) -> None:
    lookup, reader = looking(database)
    statements: list[str] = []
    reader.connection.set_trace_callback(statements.append)
    reader.check_at = time.monotonic() + 3_600
    for _ in range(100):
        assert lookup.version() == reader.counted
    assert statements == []
    await seen(lookup, path)
    assert not [statement for statement in statements if "data_version" in statement]
    checked_again(reader)
    lookup.version()
    assert "pragma data_version" in statements


@only_linux
async def test_a_commit_is_counted_once(path: Path, database: SQLite) -> None:
    """Or every token would be read twice for it."""
    lookup, reader = looking(database)
    for number in range(3):
        sql(path, f"update t set word = 'change {number}'")
        version = lookup.version()
        for _ in range(3):
            checked_again(reader)
            assert lookup.version() == version


async def test_it_can_be_switched_off(path: Path) -> None:
    database = SQLite(path, wal_index=False)
    assert not database.for_reading()._wal_index
    lookup, reader = looking(database)
    assert reader.header is None
    await seen(lookup, path)
    assert reader.header is None
    await database.close()
    with pytest.raises(ConfigurationError, match="wal_index is True or False"):
        SQLite(path, wal_index="no")  # type: ignore[arg-type]


async def test_what_is_rolled_back_changes_nothing(path: Path, database: SQLite) -> None:
    lookup, _ = looking(database)
    version, _, _ = await lookup.fetch(1)
    with other(path) as connection:
        connection.execute("begin immediate")
        connection.execute("update t set word = 'never'")
        assert lookup.version() == version
        connection.execute("rollback")
    assert lookup.version() == version
    assert word(lookup) == "one"


# Where there is no header


async def test_a_rollback_journal_that_becomes_wal_later(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sql(path, "create table t (id integer primary key, word text)", "insert into t values (1, 'one')")
    database = SQLite(path, journal_mode=None)
    lookup, reader = looking(database)
    assert reader.header is None
    await seen(lookup, path)
    sql(path, "pragma journal_mode = wal")
    await seen(lookup, path)
    checked_again(reader)
    await seen(lookup, path)
    assert (reader.header is not None) == (sys.platform == "linux")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sql(path, "pragma journal_mode = delete")
    await database.close()


async def test_an_index_in_the_memory_of_one_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = File.connect_here

    def alone(file: File) -> sqlite3.Connection:
        made = connect(file)
        made.execute("pragma locking_mode = exclusive").fetchall()
        return made

    monkeypatch.setattr(File, "connect_here", alone)
    database = SQLite(path)
    lookup, reader = looking(database)
    assert word(lookup) == "one"
    assert reader.header is None
    await database.close()


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
print(connection.execute("select count(*) from t").fetchone()[0], flush=True)
for line in sys.stdin:
    connection.execute("update t set word = ?", [line.strip()])
    print("written", flush=True)
"""


@only_linux
async def test_an_index_that_may_only_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = File._uri
    monkeypatch.setattr(File, "_uri", lambda file, mode: uri(file, "ro") + "&readonly_shm=1")
    with child(HOLDER, str(path)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        database = SQLite(path)
        lookup, reader = looking(database)
        assert word(lookup) == "one"
        assert " r--s " in next(line for line in Path("/proc/self/maps").read_text().splitlines() if "t.db-shm" in line)
        assert reader.header is None
        process.stdin.write("two\n")
        process.stdin.flush()
        assert process.stdout.readline() == "written\n"
        assert word(lookup) == "two"
        await database.close()


async def test_a_vfs_without_shared_memory_reads_no_wal_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(File, "_uri", lambda file, mode: f"file:{file.path}?mode={mode}&vfs=unix-none")
    database = SQLite(path)
    lookup = database.lookup("t", ROW)
    assert lookup.version() is None
    assert lookup.fetch_now(1) is None
    await database.close()


MAP = "7f0000000000-7f0000008000 {rights} {offset} {device} {inode} {path}\n"


@only_linux
@pytest.mark.parametrize("odd", ["", "twice", "r--s", "offset", "device", "inode", "short", "no number", "no /proc"])
async def test_what_the_kernel_says_is_taken_only_where_it_is_plain(
    path: Path, database: SQLite, odd: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, reader = looking(database)
    shm = Path(f"{path}-shm").stat()
    identity = (shm.st_dev, shm.st_ino)
    assert wal_index.find(identity) is not None
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    mine = next(line for line in lines if f" {shm.st_ino} " in line)
    changed = {
        "": mine,
        "twice": mine * 2,
        "r--s": mine.replace("rw-s", "r--s"),
        "offset": mine.replace("rw-s 00000000", "rw-s 00008000"),
        "device": MAP.format(rights="rw-s", offset="00000000", device="00:01", inode=shm.st_ino, path=path),
        "inode": mine.replace(f" {shm.st_ino} ", f" {shm.st_ino + 1} "),
        "short": "7f00-7f01 rw-s\n" + mine,
        "no number": mine.replace("rw-s 00000000", "rw-s offset"),
        "no /proc": "",
    }[odd]
    maps = tmp_path / "maps"
    if odd != "no /proc":
        maps.write_text("".join([*(line for line in lines if line != mine), changed]))
    monkeypatch.setattr(wal_index, "_MAPS", maps)
    assert (wal_index.find(identity) is not None) == (odd == "")
    lookup, reader = looking(SQLite(path))
    assert (reader.header is not None) == (odd == "")
    await seen(lookup, path)
    lookup.close()


@only_linux
async def test_a_mapping_of_somebody_elses_beside_sqlites_own(path: Path, database: SQLite) -> None:
    looking(database)
    descriptor = os.open(f"{path}-shm", os.O_RDWR)
    with mmap.mmap(descriptor, 0):
        lookup, reader = looking(SQLite(path))
        assert reader.header is None
        await seen(lookup, path)
        lookup.close()
    # Not closed before: that takes away the locks of this process.
    database._lookups[0].close()
    os.close(descriptor)


def header(**parts: int) -> bytes:
    fields = {"version": 3_007_000, "unused": 0, "change": 7, "flags": 1, "frames": 3, "pages": 4}
    fields |= {"frame_1": 5, "frame_2": 6, "salt_1": 0xFFFFFFFF, "salt_2": 0xFFFFFFF0}
    words = [fields[name] if name not in parts else parts[name] for name in fields]
    first = second = 0
    for one, two in zip(words[0::2], words[1::2], strict=True):
        first = (first + one + second) % 2**32
        second = (second + two + first) % 2**32
    return struct.pack("=12I", *words, parts.get("sum_1", first), parts.get("sum_2", second))


def test_a_header_is_known_by_its_version_its_mark_and_its_checksum() -> None:
    little = sys.byteorder == "little"
    assert wal_index._is_known(header(flags=1 if little else 1 << 24))
    assert not wal_index._is_known(header(flags=0))
    assert not wal_index._is_known(header(version=3_008_000, flags=1 if little else 1 << 24))
    assert not wal_index._is_known(header(sum_1=1, flags=1 if little else 1 << 24))
    assert not wal_index._is_known(header(sum_2=1, flags=1 if little else 1 << 24))
    assert not wal_index._is_known(bytes(48))


@only_linux
async def test_a_real_header_is_known(path: Path, database: SQLite) -> None:
    looking(database)
    assert wal_index._is_known(Path(f"{path}-shm").read_bytes()[:48])


# Should SQLite do otherwise one day


@only_linux
async def test_a_header_that_shows_no_commit_is_believed_for_a_tenth_of_a_second_at_most(
    path: Path, database: SQLite, caplog: pytest.LogCaptureFixture
) -> None:
    assert readers.CHECK_INTERVAL <= 0.1

    class Frozen:
        raw = b"as it was" * 5 + b"..."

    lookup, reader = looking(database)
    reader.header, reader.seen, reader._compared = Frozen(), Frozen.raw, Frozen.raw
    version = lookup.version()
    sql(path, "update t set word = 'two'")
    deadline = time.monotonic() + 30
    with caplog.at_level(logging.WARNING):
        while lookup.version() == version:
            assert time.monotonic() < deadline
    assert word(lookup) == "two"
    assert "its wal-index did not show a commit that SQLite knows of" in caplog.text
    assert reader.header is None
    checked_again(reader)
    await seen(lookup, path)
    assert reader.header is None, "once is enough"


@only_linux
async def test_commits_at_every_moment_raise_no_false_alarm(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = SQLite(path)
    lookup, reader = looking(database)
    with child(WRITER, str(path), "0") as process:
        assert process.stdout is not None
        process.stdout.readline()
        until = time.monotonic() + 1
        changes = 0
        version = lookup.version()
        while time.monotonic() < until:
            reader.check_at = 0.0
            changes += version != (version := lookup.version())
        process.kill()
        assert changes > 10
    assert reader.header is not None
    assert not caplog.records
    await database.close()


# Another SQLite in the process


async def test_a_second_sqlite_that_had_the_file_open_first(path: Path) -> None:
    foreign = apsw.Connection(str(path))
    assert foreign.execute("select word from t").fetchall() == [("one",)]
    database = SQLite(path)
    lookup, reader = looking(database)
    assert reader.header is None, "there are two mappings"
    await seen(lookup, path, lambda _, statement: foreign.execute(statement))
    foreign.close()
    checked_again(reader)
    await seen(lookup, path)
    await database.close()


async def test_a_second_sqlite_that_opens_the_file_later(path: Path, database: SQLite) -> None:
    lookup, reader = looking(database)
    assert (reader.header is not None) == (sys.platform == "linux")
    foreign = apsw.Connection(str(path))
    await seen(lookup, path, lambda _, statement: foreign.execute(statement))
    # Its closing takes away the locks of ours, which SQLite warns of; the answers stay right.
    foreign.close()
    await seen(lookup, path)


# Files that are not what they were


@only_linux
@pytest.mark.parametrize("leave_wal", [False, True])
async def test_another_file_has_another_header(path: Path, database: SQLite, leave_wal: bool) -> None:
    lookup, reader = looking(database)
    old = reader.header
    fresh = path.with_name("fresh.db")
    with other(fresh) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (id integer primary key, word text)")
        connection.execute("insert into t values (1, 'fresh')")
    if not leave_wal:
        for ending in ("-wal", "-shm"):
            Path(f"{path}{ending}").unlink()
    fresh.replace(path)
    deadline = time.monotonic() + 30
    while (found := lookup.fetch_now(1)) is None or found[1] != (1, "fresh"):
        assert time.monotonic() < deadline
    (now,) = lookup._readers.values()
    assert now is not reader
    assert reader.header is None
    assert now.header is not old
    version = lookup.version()
    sql(path, "update t set word = 'newer'")
    assert lookup.version() != version
    assert word(lookup) == "newer"


async def test_a_deleted_file_answers_nothing(path: Path, database: SQLite) -> None:
    lookup, reader = looking(database)
    path.unlink()
    checked_again(reader)
    assert lookup.version() is None
    assert lookup.fetch_now(1) is None


FORKED = """
import asyncio, os, sys
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    database = SQLite(sys.argv[1])
    lookup = database.lookup("t", "id, word")
    await lookup.fetch(1)
    assert lookup.version() is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if lookup.version() is None and lookup.fetch_now(1) is None else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lookup.version() is not None)
    await database.close()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_a_forked_child_reads_nothing_and_the_parent_goes_on(path: Path) -> None:
    assert run(FORKED, str(path)).split() == ["0", "True"]


# Writers that are killed


WRITER = """
import random, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("pragma synchronous = off")
random.seed(int(sys.argv[2]))
print("writing", flush=True)
number = 0
while True:
    number += 1
    connection.execute("begin immediate")
    connection.execute("update t set word = ? where id = 1", [f"{sys.argv[2]}-{number}"])
    connection.execute("insert into t (word) values (?)", ["x" * random.randrange(20_000)])
    connection.execute("delete from t where id > 20")
    connection.execute("commit")
    if random.random() < 0.2:
        connection.execute("pragma wal_checkpoint(%s)" % random.choice(["passive", "full", "restart", "truncate"]))
"""

KILLS = int(os.environ.get("TEST_KILLS", "25"))


@only_linux
async def test_writers_that_are_killed_amid_a_commit(path: Path, database: SQLite) -> None:
    """The header and the pragma are compared at every look: the header never says less. TEST_KILLS makes it longer."""
    lookup, reader = looking(database)
    compared = moved = 0
    random.seed(3)
    version = lookup.version()
    last = reader.connection.execute("pragma data_version").fetchone()[0]
    for number in range(KILLS):
        with child(WRITER, str(path), str(number)) as process:
            assert process.stdout is not None
            process.stdout.readline()
            until = time.monotonic() + random.random() * 0.05
            killer = threading.Timer(max(0.0, until - time.monotonic()), process.kill)
            killer.start()
            while process.poll() is None or time.monotonic() < until:
                before = lookup.version()
                asked = reader.connection.execute("pragma data_version").fetchone()[0]
                compared += 1
                if asked != last:
                    moved += 1
                    assert lookup.version() != version
                version, last = before, asked
            killer.join()
        with other(path) as connection:
            (expected,) = connection.execute("select word from t where id = 1").fetchone()
        assert word(lookup) == expected
        version = lookup.version()
        last = reader.connection.execute("pragma data_version").fetchone()[0]
    assert reader.header is not None
    assert compared > KILLS
    assert moved > 0
    print(f"{KILLS} writers killed, {compared} looks, {moved} changes")


# Threads


@only_linux
async def test_each_thread_has_a_header_of_its_own_connection(path: Path, database: SQLite) -> None:
    lookup, _ = looking(database)
    kept: list[Reader] = []
    turn = threading.Event()

    def read() -> None:
        lookup.version()
        kept.append(lookup._readers[threading.get_ident()])
        turn.wait(30)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(kept) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    await seen(lookup, path)
    assert len({id(reader.connection) for reader in kept}) == 4
    turn.set()
    for thread in threads:
        thread.join()


async def test_a_copy_of_the_file_is_another_file(path: Path, database: SQLite, tmp_path: Path) -> None:
    """Inodes are compared, and not names."""
    lookup, reader = looking(database)
    sql(path, "pragma wal_checkpoint(truncate)")
    shutil.copy(path, tmp_path / "copy.db")
    twin = SQLite(tmp_path / "copy.db")
    twin_lookup, twin_reader = looking(twin)
    assert twin_reader.header is not reader.header or reader.header is None
    version = twin_lookup.version()
    await seen(lookup, path)
    assert twin_lookup.version() == version
    await twin.close()


async def test_a_token_store_uses_it(tmp_path: Path) -> None:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as store:
        issued = await store.issue("ann")
        with served(store) as app:
            for _ in range(3):
                assert await status_of(app, issued.token) == 200
            assert isinstance(store.database, SQLite)
            (reader,) = store.database._lookups[-1]._readers.values()
            assert (reader.header is not None) == (sys.platform == "linux")
            sql(tmp_path / "t.db", "update _datasette_auth_tokens set token_status = 'R'")
            assert await status_of(app, issued.token) == 401
