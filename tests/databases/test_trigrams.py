"""The index of SQLite for searches finds what reading every row finds, whoever wrote, and whatever became of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_token_auth import ANY_OWNER, StorageError, TokenStore
from asgi_token_auth.databases.protocol import ReadingSteps, Steps
from asgi_token_auth.databases.sqlite import SQLite, search_index
from asgi_token_auth.storage.values import is_text
from asgi_token_auth.tokens.record import AnyOwner
from tests.support.asgi import SECRET, Clock

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
        "\ufb05\u0149",
        "\u00ff\u00fe",
        "\ud7ff\ue000\U0010ffff",
        "\x01\x01\x01",
    ],
]
#: One character, one that belongs to several or is changed by case, or any.
CHARACTERS = st.sampled_from(sorted({*"".join(PIECES), *"sStTxX"})) | st.characters(exclude_categories=["Cs"])
#: What a column may hold: text, text that goes on after what ends it for SQLite, none, bytes, and text that is none.
VALUES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
    st.text(CHARACTERS, max_size=4),
    st.sampled_from(["a\0deploy", "\0", "ab\0", None]),
    st.binary(max_size=3),
    st.sampled_from(["deploy\udcc3", "\udcff", "a\udc80", "\udced\udca0\udc80"]),
)
ACTORS = st.sampled_from(["ann", "ann", "production", "7", None, "", "a_c%"]) | VALUES
SEARCHES = st.text(CHARACTERS, min_size=1, max_size=3).filter(is_text)


@pytest.fixture
async def store(tmp_path: Path, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, clock=Clock()) as store:
        yield store


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes tables of a test's size large enough for the index to be asked."""
    monkeypatch.setattr(search_index, "_FEW", 2)
    monkeypatch.setattr(search_index, "_SOME", 12)
    monkeypatch.setattr(search_index, "_NEWEST", 4)


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


class Question(NamedTuple):
    search: str
    owner: str | AnyOwner
    status: str | None
    cursor: int | None
    limit: int


async def assert_same(store: TokenStore, path: Path, question: Question) -> None:
    search, owner, status, cursor, limit = question
    page = await store.list(owner=owner, search=search, status=status, cursor=cursor, limit=limit)
    expected = read_every_row(path, search, owner, status, cursor or 1 << 60, limit + 1)
    assert [item.id for item in page.items] == expected[:limit], question
    assert page.next_cursor == (expected[limit - 1] if len(expected) > limit else None), question


def questions(search: str) -> st.SearchStrategy[Question]:
    return st.builds(
        Question,
        st.just(search),
        st.sampled_from([ANY_OWNER, ANY_OWNER, "ann", "production"]),
        st.sampled_from([None, None, "active", "revoked"]),
        st.sampled_from([None, None, None, 60, 40, 1]),
        st.sampled_from([1, 1, 2, 30]),
    )


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_a_search_finds_what_reading_every_row_finds(tmp_path: Path, few: None, encoding: str) -> None:
    path = tmp_path / "t.db"
    run_script(path, f"pragma encoding = '{encoding}'; create table made_first (id)")
    store = TokenStore(SQLite(path), secret=SECRET, clock=Clock())
    connection = sqlite3.connect(path, isolation_level=None)

    async def compare(questions: Sequence[Question]) -> None:
        async with store:
            assert store._search._usable
            for question in questions:
                await assert_same(store, path, question)

    @settings(max_examples=200, deadline=None)
    @given(
        values=st.lists(st.tuples(VALUES, ACTORS), min_size=1, max_size=12),
        again=st.integers(0, 20),
        searches=st.lists(SEARCHES, max_size=4),
        data=st.data(),
    )
    def check(values: list[tuple[Any, Any]], again: int, searches: list[str], data: st.DataObject) -> None:
        connection.execute(f"delete from {TABLE}")
        # The first one as often as it needs to be frequent, and in the newest rows little is found.
        for pair in [*[values[0]] * again, *values, *[(None, "ann"), (None, None)] * 20]:
            kinds = ["blob" if isinstance(value, bytes) else "text" for value in pair]
            raw = [value.encode(errors="surrogateescape") if isinstance(value, str) else value for value in pair]
            casts = "cast(? as {}), cast(? as {})".format(*kinds)
            connection.execute(f"insert into {TABLE} (token_status, description, actor_id) values ('A', {casts})", raw)
        connection.execute(f"update {TABLE} set token_status = 'R' where id % 3 = 0")
        held = [value for pair in values for value in pair if isinstance(value, str) and value]
        for whole in data.draw(st.lists(st.sampled_from(held), max_size=4)) if held else []:
            start = data.draw(st.integers(0, len(whole) - 1))
            part = whole[start : start + data.draw(st.integers(1, 3) | st.integers(4, 12))]
            searches += [each for each in (part, part.upper(), part.lower()) if is_text(each)]
        asyncio.run(compare([data.draw(questions(each)) for each in searches]))

    async def make() -> None:
        async with store:
            pass

    asyncio.run(make())
    check()
    connection.close()
    assert run_sql(path, "pragma encoding") == [(encoding,)]


async def test_rows_that_only_seem_to_hold_a_text_hide_none_that_does(store: TokenStore, few: None) -> None:
    await fill(store, [("abcd", "ann"), *[("abc bcd", "ann")] * 50])
    assert [token.id for token in (await store.list(owner=ANY_OWNER, search="abcd", limit=1)).items] == [1]


async def test_the_encoding_of_the_file_makes_no_difference(tmp_path: Path, few: None) -> None:
    """In UTF-16LE the letters of this text come after those that follow them."""
    run_script(tmp_path / "t.db", "pragma encoding = 'UTF-16le'; create table made_first (id)")
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as store:
        await fill(store, [("x\u00ff", "ann"), *[("deploy", "ann")] * 50])
        for search in ("\u00ff", "x\u00ff", "X"):
            found = (await store.list(owner=ANY_OWNER, search=search, limit=1)).items
            assert [token.id for token in found] == [1], search


@pytest.mark.parametrize(
    ("beginning", "end"),
    [("a", "b"), ("xq", "xr"), ("\ud7ff", "\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff\U0010ffff", None)],
)
def test_what_begins_with_a_text_ends_before_the_next_one(beginning: str, end: str | None) -> None:
    assert search_index._after(beginning) == end


def test_every_character_is_looked_for_where_the_tokenizer_puts_it() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create virtual table held using fts5(t, content='', tokenize='trigram', detail=none)")
    connection.execute("create virtual table terms using fts5vocab(held, 'instance')")
    every = [code for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    connection.executemany("insert into held (rowid, t) values (?, ?)", [(code, chr(code) + "\1\1") for code in every])
    found = dict(connection.execute("select doc, term from terms"))
    connection.close()
    assert sorted(found) == every
    wrong = [code for code, term in found.items() if term[0] not in search_index._folded(chr(code))]
    # LIKE takes a letter of ASCII in the other case for the same, and no other character for another one.
    assert wrong == []
    assert [code for code in range(0x41, 0x5B) if found[code] != found[code + 32]] == []


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
        for _ in range(20):
            words = text(randomly)
            start = randomly.randrange(len(words))
            search = words[start : start + randomly.randint(1, 12)]
            owners: list[str | AnyOwner] = [ANY_OWNER, "production", "7"]
            question = Question(search, randomly.choice(owners), None, None, randomly.choice([1, 2, 30]))
            await assert_same(store, path, question)
    connection.close()


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
        (ANY_OWNER, "q", None),
        (ANY_OWNER, "xq", 10_000),
        (ANY_OWNER, "dl", None),
        ("ann", "dl", 6_000),
        ("ann", "Z", None),
        ("bob", "q", None),
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


async def test_an_index_of_many_pages_that_lost_the_list_of_them_makes_no_search_wrong(
    many: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(many)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    async with TokenStore(SQLite(copy), secret=SECRET) as store:
        run_sql(copy, f"delete from {INDEX}_idx")
        for search in ("needle", "dl", "number 19999"):
            found = [item.id for item in (await store.list(owner=ANY_OWNER, search=search)).items]
            assert found == read_every_row(copy, search, ANY_OWNER, None, 1 << 60, 31)[:30], search


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
