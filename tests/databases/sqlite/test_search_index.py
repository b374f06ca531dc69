"""The index of SQLite for searches finds what reading every row finds, whoever wrote, and reads few rows."""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_token_auth import ANY_OWNER, TokenStore
from asgi_token_auth.databases.sqlite import SQLite, search_index
from asgi_token_auth.storage.values import is_text
from asgi_token_auth.tokens.record import AnyOwner
from tests.support.asgi import SECRET, Clock
from tests.support.search_index import INDEX, TABLE, fill, read_every_row, run_script, run_sql

pytestmark = pytest.mark.anyio

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


def text(random: random.Random) -> str:
    return random.choice(["", " "]).join(random.choices(PIECES, k=random.randint(1, 4)))


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
