"""The index of SQLite for searches finds what reading every row finds, whoever wrote, and whatever became of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asgi import SECRET, Clock

from asgi_token_auth import ANY_OWNER, StorageError, TokenStore
from asgi_token_auth.databases import trigrams
from asgi_token_auth.databases.protocol import ReadingSteps, Steps
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.records import AnyOwner

pytestmark = pytest.mark.anyio

TABLE = "_datasette_auth_tokens"
INDEX = f"{TABLE}_search"

#: Pieces that descriptions are made of, and that are searched for.
PIECES = [
    *[
        "deploy",
        "Deploy",
        "DEPLOY",
        "production",
        "ann",
        "a",
        "I",
        "k",
        "%",
        "_",
        "!",
        "%%",
        "a_c",
        "abc",
        "100%",
        "!%",
    ],
    *[
        "'",
        '"',
        '"""',
        "''",
        '" OR "',
        "NEAR(",
        "*",
        "^abc",
        "a AND b",
        "description:",
        "{}",
        "--",
        ";",
        "\\",
        "\n",
        "\t  ",
    ],
    *[
        "\u202e\u05d0\u05d1\u05d2",
        "\u200f",
        "\U0001f511\U0001f512\U0001f513",
        "\U0001f468\u200d\U0001f469",
        "e\u0301e\u0301",
    ],
    *[
        "\u00e4\u00f6\u00fc",
        "\u00c4\u00d6\u00dc",
        "\u0130\u0131I",
        "\u212a\u212bK",
        "\u00df\u1e9e",
        "\u03a3\u03c3\u03c2",
        "\u672c\u756a\u74b0\u5883",
        "\ufffd",
        "\uffff",
    ],
]


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, clock=Clock()) as store:
        yield store


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tables of a test's size large enough for the index to be asked."""
    monkeypatch.setattr(trigrams, "_FEW", 2)
    monkeypatch.setattr(trigrams, "_SOME", 12)


def run_sql(path: Path, sql: str, *parameters: object) -> list[Any]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def run_script(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(script)
    finally:
        connection.close()


def text(random: random.Random) -> str:
    return random.choice(["", " "]).join(random.choices(PIECES, k=random.randint(1, 4)))


async def fill(store: TokenStore, rows: Sequence[tuple[Any, Any]]) -> None:
    def steps() -> Steps[None]:
        yield (
            f"insert into {TABLE} (token_status, description, actor_id, permissions, created_timestamp) "
            "values ('A', :description, :actor_id, 'null', 1)",
            [{"description": description, "actor_id": actor_id} for description, actor_id in rows],
        )

    await store.ensure_ready()
    await store.database.transaction(steps())


def read_every_row(
    path: Path, search: str, owner: str | AnyOwner, status: str | None, before: int, limit: int
) -> list[int]:
    """The promise: the substring search of SQLite itself."""
    pattern = "%" + search.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
    rows = run_sql(
        path,
        f"select id from {TABLE} where id < ? and (? is null or actor_id = ?) "
        "and (? is null or (token_status = 'A' and ended_timestamp is null) = (? = 'active')) "
        "and (description like ? escape '!' or actor_id like ? escape '!') order by id desc limit ?",
        *[before, *[None if isinstance(owner, AnyOwner) else owner] * 2, status, status, pattern, pattern, limit],
    )
    return [row[0] for row in rows]


async def assert_same(store: TokenStore, path: Path, randomly: random.Random, times: int) -> None:
    for _ in range(times):
        words = text(randomly)
        start = randomly.randrange(len(words))
        search = words if randomly.random() < 0.3 else words[start : start + randomly.randint(1, 12)]
        search = randomly.choice([search, search.upper(), search.lower()])
        owners: list[str | AnyOwner] = [ANY_OWNER, "ann", "production", "7"]
        owner = randomly.choice(owners)
        status = randomly.choice([None, None, "active", "revoked"])
        cursor = randomly.choice([None, randomly.randint(1, 300)])
        limit = randomly.choice([1, 2, 30, 1000])
        page = await store.list(owner=owner, search=search, status=status, cursor=cursor, limit=limit)
        expected = read_every_row(path, search, owner, status, cursor or 1 << 60, limit + 1)
        question = (search, owner, status, cursor, limit)
        assert [item.id for item in page.items] == expected[:limit], question
        assert page.next_cursor == (expected[limit - 1] if len(expected) > limit else None), question


@pytest.mark.parametrize("seed", range(3))
async def test_a_search_finds_what_reading_every_row_finds(
    store: TokenStore, tmp_path: Path, few: None, seed: int
) -> None:
    randomly = random.Random(seed)
    actors = ["ann", "ann", "production", "7", "\u00e4\u00f6\u00fc", '" OR "', None, "", "a_c%"]
    await fill(store, [(text(randomly), randomly.choice(actors)) for _ in range(250)])
    # What only an accident or another program writes.
    await fill(
        store, [(b"\xff\xfedeploy production", "ann"), (b"deploy", 7), (12345, "ann"), (None, None), ("a\0deploy", "7")]
    )
    run_sql(tmp_path / "t.db", f"insert into {TABLE} (description) values (cast(x'ff6465706c6f79c3' as text))")
    run_sql(tmp_path / "t.db", f"update {TABLE} set token_status = 'R' where id % 3 = 0")
    await assert_same(store, tmp_path / "t.db", randomly, 400)


async def test_the_index_follows_whoever_writes_to_the_table(store: TokenStore, tmp_path: Path, few: None) -> None:
    randomly = random.Random(1)
    path = tmp_path / "t.db"
    await fill(store, [(text(randomly), "ann") for _ in range(60)])
    connection = sqlite3.connect(path, isolation_level=None)
    for _ in range(20):
        row_id, other = randomly.randint(1, 70), randomly.randint(1, 70)
        insert = f"into {TABLE} (id, token_status, description, actor_id) values (?, 'A', ?, '7')"
        for sql, parameters in (
            (f"insert or replace {insert}", (row_id, text(randomly))),
            (
                f"insert {insert} on conflict (id) do update set description = excluded.description",
                (other, text(randomly)),
            ),
            (f"update {TABLE} set description = ?, actor_id = 'production' where id = ?", (text(randomly), row_id)),
            (f"update or ignore {TABLE} set id = ? where id = ?", (other + 100, row_id)),
            (f"delete from {TABLE} where id = ?", (randomly.randint(1, 170),)),
            (f"insert or ignore {insert}", (other, text(randomly))),
        ):
            connection.execute(sql, parameters)
        await assert_same(store, path, randomly, 20)
    connection.close()


# What only reading all of the index could tell while it is in use.
SILENT = {
    "emptied": f"insert into {INDEX} ({INDEX}) values ('delete-all')",
    "its pages overwritten": f"update {INDEX}_data set block = zeroblob(5)",
    "another trigger in the place of one": f"drop trigger {INDEX}_insert; "
    f"create trigger {INDEX}_insert after insert on {TABLE} begin select 1; end",
}
# What may become of the index, and whether searches can go on with it until the next start.
ACCIDENTS = {
    "its table made anew": f"""
        create table new (id integer primary key, {{columns}}); insert into new select * from {TABLE};
        drop table {TABLE}; alter table new rename to {TABLE}""",
    "one trigger gone": f"drop trigger {INDEX}_insert",
    "all triggers gone": f"drop trigger {INDEX}_insert; drop trigger {INDEX}_update; drop trigger {INDEX}_delete",
    "the index gone": f"drop table {INDEX}",
    "its data gone": f"drop table {INDEX}_data",
    "its configuration gone": f"drop table {INDEX}_config",
    "all inside of it gone": f"drop table {INDEX}_data; drop table {INDEX}_idx; drop table {INDEX}_config",
    **SILENT,
    "its pages emptied": f"delete from {INDEX}_data",
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
        patched.setattr(trigrams, "_CAN", "select 1 where 0")
        patched.setattr(trigrams.TrigramIndex, "is_whole", cannot)
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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty thousand tokens, three of them bob's, four of them about a needle."""
    path = tmp_path_factory.mktemp("many") / "t.db"
    rows: list[tuple[str, str]] = []
    for number in range(20_000):
        description = f"number {number} from CI to production" if number % 2 else f"number {number}"
        if number % 5_000 == 17:
            description = "the needle"
        rows.append((description, "bob" if number in (3, 7_001, 19_001) else "ann" if number % 3 else "user"))

    async def make() -> None:
        async with TokenStore(SQLite(path), secret=SECRET) as store:
            await fill(store, rows)

    asyncio.run(make())
    return path


@pytest.mark.parametrize(
    ("owner", "search", "cursor"),
    [
        (ANY_OWNER, "needle", None),
        (ANY_OWNER, "nowhere", None),
        (ANY_OWNER, "production", None),
        (ANY_OWNER, "production", 10_000),
        (ANY_OWNER, "production", 100),
        (ANY_OWNER, "number 19999", None),
        ("ann", "needle", None),
        ("ann", "production", 5_000),
        ("bob", "production", None),
        ("bob", "production", 10),
        ("bob", "nowhere", None),
        ("nobody", "production", None),
        (ANY_OWNER, "u", None),
    ],
)
async def test_a_search_reads_few_rows_of_many(
    many: Path, owner: str | AnyOwner, search: str, cursor: int | None
) -> None:
    store = TokenStore(SQLite(many), secret=SECRET)
    await store.open()
    statements: list[tuple[str, Any]] = []
    query = store.database.query

    async def noted(sql: str, parameters: Any, **more: Any) -> Any:
        statements.append((sql, parameters))
        return await query(sql, parameters, **more)

    store.database.query = noted  # type: ignore[method-assign]
    page = await store.list(owner=owner, search=search, cursor=cursor)
    await store.close()
    assert [item.id for item in page.items] == read_every_row(many, search, owner, None, cursor or 1 << 60, 31)[:30]
    assert steps_of(many, statements) <= 60_000
    reading: list[tuple[str, Any]] = [
        (f"select * from {TABLE} where description like '%nowhere%' or actor_id like '%nowhere%'", {})
    ]
    assert steps_of(many, reading) >= 120_000


def steps_of(path: Path, statements: Sequence[tuple[str, Any]]) -> int:
    """What SQLite does for them, in steps of its machine, which are the same on every computer."""
    connection = sqlite3.connect(path)
    steps = itertools.count()
    # It stops a statement where it returns anything but 0.
    connection.set_progress_handler(lambda: bool(next(steps) < 0), 100)
    for sql, parameters in statements:
        connection.execute(sql, parameters).fetchall()
    connection.close()
    return next(steps) * 100
