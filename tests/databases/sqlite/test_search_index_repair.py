"""The index of SQLite for searches, damaged, missing, copied or full of what was deleted: no search is wrong."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ANY_OWNER, StorageError, TokenStore
from asgi_token_auth.databases.protocol import ReadingSteps
from asgi_token_auth.databases.sqlite import SQLite, search_index
from tests.support.asgi import SECRET, Clock
from tests.support.search_index import INDEX, TABLE, fill, read_every_row, run_script, run_sql

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, clock=Clock()) as store:
        yield store


# What only reading all of the index could tell while it is in use.
SILENT = {
    "its pages overwritten": f"update {INDEX}_data set block = zeroblob(5)",
    "another trigger in the place of one": f"drop trigger {INDEX}_insert; "
    f"create trigger {INDEX}_insert after insert on {TABLE} begin select 1; end",
}


# What may become of the index, and whether searches can go on with it until the next start.
ACCIDENTS = {
    "its table made anew": f"""
        create table new (id integer primary key, {{columns}}); insert into new select * from {TABLE};
        drop table {TABLE}; alter table new rename to {TABLE}""",
    "its table kept under another name": f"""
        create table new (id integer primary key, {{columns}}); insert into new select * from {TABLE};
        alter table {TABLE} rename to kept; alter table new rename to {TABLE}""",
    "one trigger gone": f"drop trigger {INDEX}_insert",
    "all triggers gone": f"drop trigger {INDEX}_insert; drop trigger {INDEX}_update; drop trigger {INDEX}_delete",
    "the index gone": f"drop table {INDEX}",
    "its data gone": f"drop table {INDEX}_data",
    "its configuration gone": f"drop table {INDEX}_config",
    "all inside of it gone": f"drop table {INDEX}_data; drop table {INDEX}_idx; drop table {INDEX}_config",
    **SILENT,
    "emptied": f"insert into {INDEX} ({INDEX}) values ('delete-all')",
    "filled by FTS5, with the texts as they are": f"insert into {INDEX} ({INDEX}) values ('rebuild')",
    "its terms gone": f"drop table {INDEX}_terms",
    "its pages emptied": f"delete from {INDEX}_data",
    "the list of its pages emptied": f"delete from {INDEX}_idx",
    "of an unknown format": f"update {INDEX}_config set v = 99 where k = 'version'",
}


def columns(path: Path) -> str:
    return ", ".join(
        f"{name} {kind}"
        for name, kind in run_sql(path, f"select name, type from pragma_table_info('{TABLE}') where name <> 'id'")
    )


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
async def test_an_index_that_was_damaged_is_made_anew_by_the_next_start(
    tmp_path: Path, few: None, accident: str
) -> None:
    path = tmp_path / "t.db"
    store = TokenStore(SQLite(path), secret=SECRET, clock=Clock())
    async with store:
        await fill(store, [(f"deploy number {number}", "ann") for number in range(50)])
    run_script(path, accident.replace("{columns}", columns(path)))
    with suppress(sqlite3.DatabaseError):  # Some of these accidents make writing fail until the next start.
        run_sql(
            path, f"insert into {TABLE} (token_status, description, actor_id) values ('A', 'written between', 'ann')"
        )
    async with store:
        assert store._search._usable
        await store.issue("ann", description="written after")
        between = read_every_row(path, "written between", ANY_OWNER, None, 1 << 60, 5)
        assert [token.id for token in (await store.list(owner=ANY_OWNER, search="between")).items] == between
        assert len((await store.list(owner=ANY_OWNER, search="written after")).items) == 1
        assert len((await store.list(owner="ann", search="number 4")).items) == 11
        assert len((await store.list(owner="ann", search="r 4")).items) == 11
        assert len((await store.list(owner="ann", search=" 4")).items) == 11
        assert len((await store.list(owner="ann", search="49")).items) == 1
    assert run_sql(path, f"insert into {INDEX} ({INDEX}) values ('integrity-check')") == []


@pytest.mark.parametrize("accident", [name for name in ACCIDENTS if name not in SILENT])
async def test_an_index_that_is_damaged_while_it_is_in_use_makes_no_search_wrong(
    store: TokenStore, tmp_path: Path, few: None, accident: str
) -> None:
    path = tmp_path / "t.db"
    await fill(store, [(f"deploy number {number}", "ann") for number in range(50)])
    assert len((await store.list(owner=ANY_OWNER, search="number 4")).items) == 11
    run_script(path, ACCIDENTS[accident].replace("{columns}", columns(path)))
    with suppress(sqlite3.DatabaseError):
        run_sql(path, f"insert into {TABLE} (token_status, description, actor_id) values ('A', 'a zebra', 'ann')")
    zebras = read_every_row(path, "zebra", ANY_OWNER, None, 1 << 60, 5)
    for _ in range(2):
        assert [token.id for token in (await store.list(owner=ANY_OWNER, search="zebra", limit=1)).items] == zebras
        assert len((await store.list(owner=ANY_OWNER, search="number 4")).items) == 11
        assert len((await store.list(owner="ann", search="Number 49")).items) == 1
        assert len((await store.list(owner="ann", search="49")).items) == 1
        assert [token.id for token in (await store.list(owner=ANY_OWNER, search="z", limit=1)).items] == zebras


async def test_where_nothing_is_wrong_opening_writes_nothing(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, [("deploy", "ann")])

    async def refuse(self: SQLite, steps: Any) -> None:
        raise AssertionError("a transaction")

    monkeypatch.setattr(SQLite, "transaction", refuse)
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as second:
        assert second._search._usable
        assert len((await second.list(owner=ANY_OWNER, search="deploy")).items) == 1


async def test_where_the_index_cannot_be_made_a_search_reads_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, few: None
) -> None:
    path = tmp_path / "t.db"
    store = TokenStore(SQLite(path), secret=SECRET, clock=Clock())
    async with store:
        await fill(store, [(f"deploy number {number}", "ann") for number in range(50)])
    run_script(path, f"drop trigger {INDEX}_delete")
    before = run_sql(path, "select * from sqlite_master")

    async def read_only(self: SQLite, steps: Any) -> None:
        raise StorageError("it can only be read.")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(SQLite, "transaction", read_only)
        async with store:
            assert not store._search._usable
            assert len((await store.list(owner=ANY_OWNER, search="number 4")).items) == 11
    assert "it can only be read." in caplog.text
    assert run_sql(path, "select * from sqlite_master") == before


async def test_without_fts5_there_is_no_index_and_what_needs_one_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.db"
    store = TokenStore(SQLite(path), secret=SECRET, clock=Clock())
    async with store:
        await store.issue("ann", description="deploy")

    def cannot(self: Any, table: str, columns: Sequence[str]) -> ReadingSteps[bool]:
        yield "select * from a_module_that_is_not_there", {}
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(search_index, "_HAS_FTS5", "select 1 where 0")
        patched.setattr(search_index.TrigramIndex, "is_complete", cannot)
        for _ in range(2):
            async with store:
                assert not store._search._usable
                assert len((await store.list(owner=ANY_OWNER, search="epl")).items) >= 1
                await store.issue("ann", description="deploy again")
        assert run_sql(path, "select name from sqlite_master where type = 'trigger'") == []
        fresh = TokenStore(SQLite(tmp_path / "fresh.db"), secret=SECRET)
        async with fresh:
            await fresh.issue("ann", description="deploy")
            assert len((await fresh.list(owner=ANY_OWNER, search="epl")).items) == 1
        assert [
            name for (name,) in run_sql(tmp_path / "fresh.db", "select name from sqlite_master") if INDEX in name
        ] == []
    # A SQLite that has it makes the index when it comes.
    async with store:
        assert store._search._usable
        assert len((await store.list(owner=ANY_OWNER, search="again")).items) == 2
    assert caplog.records == []


async def test_last_uses_cost_the_index_nothing(store: TokenStore, tmp_path: Path) -> None:
    issued = await store.issue("ann", description="deploy")
    inside = f"select id, block from {INDEX}_data"
    before = run_sql(tmp_path / "t.db", inside)
    store.note_use(issued.record.id, 1_800_000_000, None)
    await store.flush()
    await store.rotate(issued.record.id, owner="ann")
    await store.revoke(issued.record.id, owner="ann")
    assert run_sql(tmp_path / "t.db", inside) == before
    assert (await store.get(issued.record.id, owner="ann")).last_used_at is not None


async def test_what_is_deleted_is_gone_from_the_index(store: TokenStore, tmp_path: Path) -> None:
    await store.issue("ann", description="the plan for xyzzy")
    await store.issue("ann", description="another")
    await store.edit(1, owner="ann", description="nothing")
    words = f"select count(*) from {INDEX} where {INDEX} match ?"
    assert run_sql(tmp_path / "t.db", words, '"xyz"') == [(0,)]
    assert run_sql(tmp_path / "t.db", words, '"hin"') == [(1,)]
    await store.revoke(1, owner="ann")
    store.clock.now += 60  # type: ignore[attr-defined]
    assert await store.prune(ended_before=10**12) == 1
    assert run_sql(tmp_path / "t.db", words, '"hin"') == [(0,)]
    assert run_sql(tmp_path / "t.db", words, '"ann"') == [(1,)]


async def test_python_can_still_dump_the_file(store: TokenStore, tmp_path: Path) -> None:
    await store.issue("ann", description="the plan")
    connection = sqlite3.connect(tmp_path / "t.db")
    dumped = "\n".join(connection.iterdump())
    connection.close()
    assert "the plan" in dumped


@pytest.mark.parametrize("how", ["vacuum", "vacuum into", "backup"])
async def test_a_copy_of_the_file_has_the_index(
    store: TokenStore, tmp_path: Path, few: None, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, [(f"deploy number {number}", "ann") for number in range(50)])
    path, copy = tmp_path / "t.db", tmp_path / "copy.db"
    if how == "backup":
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    elif how == "vacuum":
        run_sql(path, "vacuum")
        copy = path
    else:
        run_sql(path, "vacuum into ?", str(copy))

    async def refuse(self: SQLite, steps: Any) -> None:
        raise AssertionError("a transaction")

    monkeypatch.setattr(SQLite, "transaction", refuse)
    async with TokenStore(SQLite(copy), secret=SECRET) as second:
        assert second._search._usable
        for search, found in (("number 49", 1), ("49", 1), ("q", 0)):
            assert len((await second.list(owner=ANY_OWNER, search=search, limit=1)).items) == found, search


async def test_eight_stores_that_find_the_index_damaged_at_once_all_start(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        await fill(store, [(f"deploy number {number}", "ann") for number in range(500)])
    run_script(path, ACCIDENTS["all triggers gone"])
    stores = [TokenStore(SQLite(path), secret=SECRET) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    try:
        assert all(store._search._usable for store in stores)
    finally:
        for store in stores:
            await store.close()
