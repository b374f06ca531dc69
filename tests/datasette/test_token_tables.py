"""The tables of the tokens are for nobody's table page, write API or write SQL, unless exposed on purpose."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from datasette.database import Database
from datasette.plugins import pm

from asgi_token_auth import ANY_OWNER
from asgi_token_auth.databases.sqlite import search_index
from asgi_token_auth.datasette import hooks as plugin
from asgi_token_auth.datasette import token_store
from tests.support.sites import (
    BOT,
    IS_1_0,
    TABLE,
    bearer,
    cookie,
    demo_files,
    full_block,
    issue,
    make,
    needs_1_0,
    registered,
    serving,
    wrapped,
)

pytestmark = pytest.mark.anyio

SEARCH = f"{TABLE}_search"
INDEX = (SEARCH, *(f"{SEARCH}_{part}" for part in ("data", "idx", "config")))
TABLES = (TABLE, f"{TABLE}_events", f"{TABLE}_migrations", *INDEX)

#: All that an operator could grant by mistake, at every level.
GENEROUS: dict[str, Any] = {
    "allow": True,
    "permissions": dict.fromkeys(
        [
            "view-table",
            "insert-row",
            "update-row",
            "delete-row",
            "alter-table",
            "drop-table",
            "set-column-type",
            "create-table",
            "execute-write-sql",
            "create-view",
            "store-query",
            "drop-view",
        ],
        True,
    ),
    "databases": {
        "tokens": {
            "allow": True,
            "permissions": {"execute-write-sql": True, "create-table": True, "create-view": True},
            "tables": {
                name: {
                    "allow": True,
                    "permissions": {"insert-row": True, "update-row": True, "delete-row": True, "drop-table": True},
                }
                for name in TABLES
            },
        }
    },
}

READS = [
    f"/tokens/{TABLE}",
    f"/tokens/{TABLE}.json",
    f"/tokens/{TABLE}.csv",
    f"/tokens/{TABLE}/1",
    f"/tokens/{TABLE}/1.json",
    f"/tokens/{TABLE.upper()}.json",
    f"/tokens/{TABLE}.json?_where=1=1",
    f"/tokens/{TABLE}_events.json",
    f"/tokens/{TABLE}_events/1.json",
    f"/tokens/{TABLE}_migrations.json",
    f"/tokens/{TABLE}/-/fragment",
    f"/tokens/{TABLE}/-/autocomplete?q=a",
    f"/tokens/{SEARCH}",
    f"/tokens/{SEARCH}/1.json",
    f"/tokens/{SEARCH}.json?_search=description",
    f"/tokens/{SEARCH}/-/fragment",
    *(f"/tokens/{name}.json" for name in INDEX),
    f"/tokens/{SEARCH}_terms",
    f"/tokens/{SEARCH}_data/1.json",
    f"/tokens/{SEARCH}_config/version.json",
    "/tokens.db",
]

POSTS: list[tuple[str, dict[str, Any]]] = [
    (f"/tokens/{TABLE}/-/count", {}),
    (f"/tokens/{TABLE}/-/insert", {"row": {"actor_id": "root", "permissions": "null"}}),
    (f"/tokens/{TABLE}/-/upsert", {"rows": [{"id": 1, "actor_id": "root"}]}),
    (f"/tokens/{TABLE.upper()}/-/upsert", {"rows": [{"id": 1, "actor_id": "root"}]}),
    (f"/tokens/{TABLE}/1/-/update", {"update": {"actor_id": "root", "permissions": "null"}}),
    (f"/tokens/{TABLE}/1/-/delete", {}),
    (f"/tokens/{TABLE}/-/drop", {"confirm": True}),
    (f"/tokens/{TABLE}/-/alter", {"operations": [{"op": "rename_column", "args": {"name": "actor_id", "to": "x"}}]}),
    (f"/tokens/{TABLE}/-/set-column-type", {"column": "actor_id", "column_type": {"type": "url"}}),
    (f"/tokens/{TABLE}_events/1/-/delete", {}),
    (f"/tokens/{TABLE}_migrations/-/drop", {"confirm": True}),
    (f"/tokens/{SEARCH}/-/insert", {"row": {SEARCH: "delete-all"}}),
    *((f"/tokens/{name}/-/insert", {"row": {"k": 1, "v": 1, "id": 1}, "ignore": True}) for name in INDEX),
    *((f"/tokens/{name}/-/drop", {"confirm": True}) for name in INDEX),
    (f"/tokens/{SEARCH}_config/version/-/delete", {}),
    ("/tokens/-/execute-write", {"sql": f"insert into {SEARCH} ({SEARCH}) values ('delete-all')"}),
    ("/tokens/-/create", {"table": TABLE, "rows": [{"id": 1, "actor_id": "root"}], "replace": True, "pk": "id"}),
    ("/tokens/-/create", {"table": TABLE, "row": {"id": 2, "actor_id": "root"}, "alter": True}),
    ("/tokens/-/execute-write", {"sql": f"update {TABLE} set actor_id = 'root'"}),
    ("/tokens/-/execute-write", {"sql": f"create view seen as select * from {TABLE}"}),
    ("/tokens/-/execute-write", {"sql": "create table notes_2 (id integer)"}),
    ("/tokens/-/execute-write", {"sql": f"drop table {TABLE}"}),
]


def _everybody(datasette: Any, token: str) -> list[dict[str, str]]:
    return [{}, bearer(BOT), bearer(token), cookie(datasette, {"id": "root"}), cookie(datasette, {"id": "ann"})]


def _dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [line for line in connection.iterdump() if "last_used" not in line.split("VALUES")[0]]


@pytest.mark.parametrize("granted", [{}, GENEROUS], ids=["default", "granted by mistake"])
async def test_nobody_reads_the_token_tables_by_their_pages(granted: dict[str, Any], tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), config=granted)
    datasette.root_enabled = True
    async with wrapped(datasette, full_block()) as client:
        token = (await issue(datasette, "root", description="a description")).token
        for headers in _everybody(datasette, token):
            assert (await client.get("/tokens/notes.json", headers=headers)).status_code == 200
            for path in READS:
                answer = await client.get(path, headers=headers)
                assert answer.status_code in (403, 404), path
                assert "a description" not in answer.text


@needs_1_0
@pytest.mark.parametrize("granted", [{}, GENEROUS], ids=["default", "granted by mistake"])
async def test_nobody_writes_the_token_tables_by_api_or_sql(granted: dict[str, Any], tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files, config=granted)
    datasette.root_enabled = True
    async with wrapped(datasette, full_block(tokens=[{"token": BOT, "actor": {"id": "root"}}])) as client:
        token = (await issue(datasette, "root")).token
        for headers in _everybody(datasette, token):
            before = _dump(files[1])
            for path, body in POSTS:
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status_code in (403, 404), (path, body, answer.text[:200])
            assert _dump(files[1]) == before
        root = cookie(datasette, {"id": "root"})
        written = await client.post("/tokens/notes/-/insert", json={"row": {"note": "hello"}}, headers=root)
        assert written.status_code == 201, "the rest of the database stays as it was"


@needs_1_0
async def test_a_stored_query_does_not_write_the_token_tables(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files, config=GENEROUS)
    datasette.root_enabled = True
    async with wrapped(datasette, full_block()) as client:
        await issue(datasette, "ann")
        before = _dump(files[1])
        root = cookie(datasette, {"id": "root"})
        query = {"name": "wipe", "sql": f"delete from {TABLE}"}
        stored = await client.post("/tokens/-/queries/store", json={"query": query}, headers=root)
        ran = await client.post("/tokens/wipe.json", json={}, headers=root)
        assert stored.status_code == 403
        assert ran.status_code in (403, 404, 405)
        assert _dump(files[1]) == before


async def test_another_plugin_that_allows_everything_does_not_open_the_tables(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))

    def permission_allowed() -> bool:
        return True

    def permission_resources_sql(datasette: Any, action: str) -> Any:
        from datasette.permissions import PermissionSQL

        return PermissionSQL.allow(reason="a careless plugin")

    hooks: dict[str, Any] = (
        {"permission_resources_sql": permission_resources_sql} if IS_1_0 else {"permission_allowed": permission_allowed}
    )
    for tryfirst in (True, False):
        with registered(tryfirst=tryfirst, **hooks):
            # Loaded after the careless one, as entry points may be: 0.65 takes the word of the plugin asked last.
            pm.unregister(plugin)
            pm.register(plugin, name="asgi_token_auth")
            async with wrapped(make(demo_files_in(tmp_path, tryfirst)), full_block()) as client:
                for path in READS:
                    assert (await client.get(path)).status_code in (403, 404)
                assert (await client.get("/tokens/notes.json")).status_code == 200
    assert datasette


async def test_exposed_on_purpose_the_tables_are_there(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    datasette.root_enabled = True
    async with wrapped(datasette, full_block(expose_token_tables=True)) as client:
        await issue(datasette, description="a description")
        # What is inside of the index, Datasette itself hides from everybody.
        for name in TABLES[: -len(INDEX) + 1]:
            assert (await client.get(f"/tokens/{name}.json")).status_code == 200, name
        assert "a description" in (await client.get(f"/tokens/{TABLE}")).text
        if IS_1_0:
            root = cookie(datasette, {"id": "root"})
            update = {"update": {"description": "changed"}}
            assert (await client.post(f"/tokens/{TABLE}/1/-/update", json=update, headers=root)).status_code == 200


async def test_the_tables_of_an_instance_without_managed_tokens_are_its_own_affair(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    async with wrapped(make(files), full_block()):
        pass
    bare = make(files, {"tokens": [{"token": BOT, "actor": {"id": "bot"}}]})
    async with wrapped(bare) as client:
        assert (await client.get(f"/tokens/{TABLE}.json")).status_code == 200


@pytest.mark.parametrize("action", ["view-table", "insert-row"])
async def test_other_databases_and_tables_are_not_touched(action: str, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    with closing(sqlite3.connect(files[0])) as connection:
        connection.execute(f"create table {TABLE} (id integer primary key)")
        connection.commit()
    datasette = make(files, config={"permissions": {"insert-row": True}})
    async with wrapped(datasette, full_block()) as client:
        if action == "view-table":
            assert (await client.get(f"/demo/{TABLE}.json")).status_code == 200
            assert (await client.get("/demo/foo.json")).status_code == 200
        elif IS_1_0:
            answer = await client.post(f"/demo/{TABLE}/-/insert", json={"row": {"id": 5}}, headers=bearer(BOT))
            assert answer.status_code == 201


def demo_files_in(folder: Path, tryfirst: bool) -> list[Path]:
    inner = folder / f"tryfirst-{tryfirst}"
    inner.mkdir()
    return demo_files(inner)


async def test_the_same_file_under_another_name_is_protected_too(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    tokens = next(file for file in files if file.stem == "tokens")
    other = tmp_path / "other.db"
    other.symlink_to(tokens)
    datasette = make([*files, other], full_block())
    async with serving(datasette.app()) as client:
        await issue(datasette)
        for name in ("tokens", "other"):
            answer = await client.get(f"/{name}/{TABLE}.json", headers=cookie(datasette, {"id": "root"}))
            assert answer.status_code == 403, name


@pytest.mark.parametrize("kept", ["attached", "in memory", pytest.param("internal", marks=needs_1_0)])
async def test_searches_have_their_index_in_every_database_of_datasettes(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "_FEW", 1)
    monkeypatch.setattr(search_index, "_NEWEST", 1)
    datasette = make(demo_files(tmp_path))
    if kept == "in memory":
        datasette.add_database(Database(datasette, memory_name="tokens_of_the_search_test"), name="memory")
    names = {"attached": "tokens", "in memory": "memory"}
    block = {"manage_tokens": True, **({"manage_tokens_database": names[kept]} if kept in names else {})}
    async with wrapped(datasette, block):
        for number in range(30):
            await issue(datasette, "ann", description=f"deploy number {number}")
        store = token_store(datasette)
        assert len((await store.list(owner=ANY_OWNER, search="Number 2")).items) == 11
        assert len((await store.list(owner="ann", search="nowhere")).items) == 0
        assert len((await store.list(owner=ANY_OWNER, search="29", limit=1)).items) == 1
        assert len((await store.list(owner=ANY_OWNER, search="Q", limit=1)).items) == 0
        assert store._search._usable
        await store.revoke_all(owner="ann")
        found = await store.database.query(f"select 1 from {SEARCH} where {SEARCH} match '\"ber\"'", {})
        assert len(found.rows) == 30
