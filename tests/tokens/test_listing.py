"""Lists of tokens: filters, searches, cursors, and that damaged rows hurt nobody."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from asgi_token_auth import (
    ANY_OWNER,
    InvalidInput,
    Restrictions,
    TokenStore,
)
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.listing import MAX_LIMIT, MAX_PAGE_PERMISSIONS, MAX_SEARCH
from asgi_token_auth.tokens.record import MAX_PERMISSIONS, Family
from tests.support import postgres
from tests.support.asgi import Clock
from tests.support.places import only_sqlite, run_sql
from tests.support.tokens import issue, listed, only

pytestmark = pytest.mark.anyio


VT, IR, ES = "view-table", "insert-row", "execute-sql"


# List


async def test_a_list_holds_the_tokens_of_its_owner_only_newest_first(store: TokenStore) -> None:
    for actor_id in ("ann", "bob", "ann"):
        await issue(store, actor_id)
    assert await listed(store, owner="ann") == [3, 1]
    assert await listed(store, owner="bob") == [2]
    assert await listed(store, owner="eve") == []
    assert await listed(store) == [3, 2, 1]


@pytest.mark.parametrize(("newest", "proposed"), [(500, 1_000), (1, 1_000), (1, 2), (1, 1)])
async def test_a_list_by_status_agrees_with_the_status_of_every_token(
    store: TokenStore, clock: Clock, newest: int, proposed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_token_auth.tokens.listing._NEWEST", newest)
    monkeypatch.setattr("asgi_token_auth.tokens.listing._PROPOSED", proposed)
    await issue(store)
    await store.revoke(await issue(store), owner="ann")
    await issue(store, expires_after=10)
    ended_then_expired = await issue(store, expires_after=15)
    clock.now += 5
    await store.revoke(ended_then_expired, owner="ann")
    for change in (
        "token_status = 'E'",
        "ended_timestamp = 5",
        "token_status = 'R'",
        "expires_after_seconds = 0",
        "token_status = null",
    ):
        run_sql(store, f"update {store.table} set {change} where id = ?", await issue(store, expires_after=1_000))
    for seconds in (0, 5, 10, 1_000):
        clock.now += seconds
        by_status = {token.id: token.status for token in (await store.list(owner=ANY_OWNER)).items}
        for status in ("active", "revoked", "expired"):
            expected = [token_id for token_id, known in by_status.items() if known == status]
            for owner in (ANY_OWNER, "ann"):
                assert await listed(store, status=status, owner=owner) == expected, (status, seconds)
            page = await store.list(owner=ANY_OWNER, status=status, limit=1)
            seen = [token.id for token in page.items]
            while page.next_cursor is not None:
                page = await store.list(owner=ANY_OWNER, status=status, limit=1, cursor=page.next_cursor)
                seen += [token.id for token in page.items]
            assert seen == expected


@pytest.mark.parametrize(("newest", "proposed"), [(500, 1_000), (1, 1_000), (1, 4), (1, 1)])
async def test_filters_together_leave_what_each_of_them_leaves(
    store: TokenStore, clock: Clock, newest: int, proposed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_token_auth.tokens.listing._NEWEST", newest)
    monkeypatch.setattr("asgi_token_auth.tokens.listing._PROPOSED", proposed)
    for number in range(36):
        token_id = await issue(store, "bob" if number % 5 == 0 else "ann", description="xy" if number % 4 else "xyz")
        if number % 3 == 0:
            await store.revoke(token_id, owner=ANY_OWNER)
        if number % 7:
            run_sql(store, f"update {store.table} set last_used_timestamp = ? where id = ?", number % 6, token_id)
    tokens = (await store.list(owner=ANY_OWNER, limit=MAX_LIMIT)).items

    def fits(token: Any, question: dict[str, Any]) -> bool:
        used, before, after = token.last_used_at, question["used_before"], question["used_after"]
        return (
            question["owner"] in (ANY_OWNER, token.actor_id)
            and question["status"] in (None, token.status)
            and question["search"] in (None, *("z", "xyz")[: 2 * (token.description == "xyz")])
            and (before is None or used is None or used < before)
            and (after is None or (used is not None and used >= after))
            and (question["cursor"] is None or token.id < question["cursor"])
        )

    randomly = random.Random(proposed)
    for _ in range(150):
        question: dict[str, Any] = {
            "owner": randomly.choice([ANY_OWNER, "ann", "bob", "eve"]),
            "status": randomly.choice([None, "active", "revoked", "expired"]),
            "search": randomly.choice([None, "z", "xyz"]),
            "used_before": randomly.choice([None, 0, 1, 3, 6]),
            "used_after": randomly.choice([None, 0, 2, 5, 6]),
            "cursor": randomly.choice([None, 2, 9, 20, 37]),
        }
        limit = randomly.choice([1, 2, 30])
        expected = [token.id for token in tokens if fits(token, question)]
        page = await store.list(**question, limit=limit)
        assert [token.id for token in page.items] == expected[:limit], question
        assert page.next_cursor == (expected[limit - 1] if len(expected) > limit else None), question


@pytest.mark.parametrize("owner", ["ann", ANY_OWNER])
@pytest.mark.parametrize("cursor", [None, 3])
@pytest.mark.parametrize(
    ("filters", "index"),
    [
        *(({"status": status}, "(_actor)?_end") for status in ("active", "revoked", "expired")),
        *(({name: 5}, "_used") for name in ("used_before", "used_after")),
        ({"used_before": 9, "used_after": 5}, "_used"),
    ],
    ids=str,
)
async def test_what_few_tokens_fit_is_found_by_an_index(
    store: TokenStore,
    filters: dict[str, Any],
    index: str,
    cursor: int | None,
    owner: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it a hundred thousand rows are read to find none. Ratios are in the benchmarks."""
    monkeypatch.setattr("asgi_token_auth.tokens.listing._NEWEST", 1)
    for _ in range(3):
        await issue(store)
    asked: list[str] = []
    query = store.database.query

    async def heard(sql: str, parameters: Any, **more: Any) -> Any:
        sql = re.sub(r":(now|limit|cursor|used_before|used_after)", "1700000000", sql)
        asked.append(sql.replace(":owner", "'ann'"))
        return await query(sql, parameters, **more)

    monkeypatch.setattr(store.database, "query", heard)
    found = (await store.list(owner=owner, **filters, cursor=cursor, limit=30)).items
    if index == "_used" and isinstance(store.database, Postgres):
        assert [sql for sql in asked if "count" in sql] == [], "it has no index of uses"
        return
    assert len(asked) == (2 if found else 1), "how many the index proposes, and which of them fit"
    # Of two indexes PostgreSQL may take the other one while a table is small.
    counting = plan(store, asked[0])
    assert re.search(rf"\b{store.table}{index}\b", counting)
    if index == "_used":
        ranges = 1 if "used_after" in filters else 2
        assert counting.count(f"COVERING INDEX {store.table}_used") == ranges, "no row is read"


def plan(store: TokenStore, sql: str) -> str:
    """How the database would answer, if it minded reading every row of a small table as it does of a large one."""
    if isinstance(store.database, SQLite):
        return str(run_sql(store, f"explain query plan {sql}"))
    assert isinstance(store.database, Postgres)
    dsn = f"{store.database._server._dsn}&search_path={store.database._schema}&enable_seqscan=off&enable_sort=off"
    return str(postgres.run(dsn, f"explain {sql}"))


@only_sqlite
async def test_noting_a_use_writes_one_index(store: TokenStore) -> None:
    sql = f"explain update {store.table} set last_used_timestamp = 5, last_used_address = 'x' where id = 1"
    assert len([row for row in run_sql(store, sql) if row[1] == "IdxInsert"]) == 1
    ending = run_sql(store, f"explain update {store.table} set token_status = 'R' where id = 1")
    assert len([row for row in ending if row[1] == "IdxInsert"]) == 4, "two of them of children only"


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("ci", [1]),
        ("CI JOB", [1]),
        ("100%", [2]),
        ("0%x", []),
        ("a_b", [3]),
        ("a!b", [4]),
        ("%", [2]),
        ("_", [3]),
        ("!", [4]),
        ("zoë", [5]),
        ("CAFÉ", [6]),
        ("bob", [6]),
        ("'; drop table x", []),
        (" ", [5, 1]),
        ("\\", []),
    ],
)
async def test_a_search_takes_every_character_for_itself(store: TokenStore, search: str, found: list[int]) -> None:
    for description in ("CI job", "100%", "a_b", "a!b", "axb zoë"):
        await issue(store, description=description)
    await issue(store, "bob", description="CAFÉ")
    assert await listed(store, search=search, owner=ANY_OWNER) == found


async def test_a_search_reaches_no_token_of_somebody_else(store: TokenStore) -> None:
    await issue(store, "ann", description="x")
    await issue(store, "bob", description="x")
    assert await listed(store, owner="ann", search="x") == [1]
    assert await listed(store, owner="ann", search="bob") == []


async def test_a_list_can_be_limited_by_last_use(store: TokenStore) -> None:
    for used in (None, 100, 200):
        run_sql(store, f"update {store.table} set last_used_timestamp = ? where id = ?", used, await issue(store))
    assert await listed(store, used_before=200) == [2, 1]
    assert await listed(store, used_after=200) == [3]
    assert await listed(store, used_after=100, used_before=101) == [2]
    assert await listed(store, used_after=0) == [3, 2]


async def test_a_cursor_never_loops_nor_skips_while_others_issue_and_end(store: TokenStore) -> None:
    for _ in range(10):
        await issue(store)
    seen: list[int] = []
    cursor, pages = None, 0
    while True:
        page = await store.list(owner="ann", cursor=cursor, limit=3)
        seen += [token.id for token in page.items]
        await issue(store)
        await store.revoke(page.items[-1].id, owner="ann")
        cursor, pages = page.next_cursor, pages + 1
        if cursor is None:
            break
        assert pages < 10
    assert seen == list(range(10, 0, -1))


async def test_the_last_page_of_a_list_has_no_cursor(store: TokenStore) -> None:
    for _ in range(3):
        await issue(store)
    assert (await store.list(owner="ann", limit=3)).next_cursor is None
    assert (await store.list(owner="ann", limit=2)).next_cursor == 2
    assert (await store.list(owner="ann", cursor=1)).items == []
    assert len((await store.list(owner="ann", limit=MAX_LIMIT)).items) == 3


async def test_a_page_of_long_restrictions_is_shorter_and_the_next_one_goes_on(store: TokenStore) -> None:
    long = only(*(f"action-{number:04}" for number in range(1_000)))
    assert 12_000 < len(json.dumps(long.to_wire())) <= MAX_PERMISSIONS
    ids = [await issue(store, restrictions=long if number % 2 else None) for number in range(40)]
    seen: list[int] = []
    cursor = None
    while True:
        page = await store.list(owner="ann", cursor=cursor, limit=MAX_LIMIT)
        held = [len(json.dumps(token.restrictions.to_wire())) for token in page.items if token.restrictions]
        assert sum(held) <= MAX_PAGE_PERMISSIONS
        seen += [token.id for token in page.items]
        if (cursor := page.next_cursor) is None:
            break
        assert sum(held) > MAX_PAGE_PERMISSIONS - 2 * MAX_PERMISSIONS
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "texts",
    [("ann", "\U0001f600" * 1_000, None), ("ann", None, "9" * 1_000), ("\U0001f600" * 500, "d" * 500, None)],
    ids=["descriptions", "addresses of an older release", "actors and descriptions"],
)
async def test_a_page_of_long_texts_is_shorter_and_the_next_one_goes_on(
    store: TokenStore, texts: tuple[str, str | None, str | None]
) -> None:
    ids = [await issue(store) for _ in range(210)]
    actor, description, address = ("null" if text is None else f"'{text}'" for text in texts)
    run_sql(
        store,
        f"update {store.table} set actor_id = {actor}, description = {description}, last_used_address = {address}",
    )
    first = await store.list(owner=texts[0], limit=MAX_LIMIT)
    assert 190 < len(first.items) <= 200
    second = await store.list(owner=texts[0], limit=MAX_LIMIT, cursor=first.next_cursor)
    assert [token.id for token in [*first.items, *second.items]] == ids[::-1]
    assert second.next_cursor is None


async def test_a_row_longer_than_a_page_has_a_page_of_its_own(store: TokenStore) -> None:
    ids = [await issue(store) for _ in range(3)]
    longest = "'\"" + "x" * (MAX_PAGE_PERMISSIONS + 1) + "\"'"
    run_sql(store, f"update {store.table} set permissions = {longest} where id = {ids[1]}")
    first = await store.list(owner="ann")
    assert [token.id for token in first.items] == [ids[2]]
    second = await store.list(owner="ann", cursor=first.next_cursor)
    assert [(token.id, token.status) for token in second.items] == [(ids[1], "damaged")]
    third = await store.list(owner="ann", cursor=second.next_cursor)
    assert ([token.id for token in third.items], third.next_cursor) == ([ids[0]], None)


@only_sqlite
async def test_a_damaged_row_is_listed_beside_the_others(store: TokenStore) -> None:
    changes = [
        "permissions = '{'",
        "permissions = null",
        "permissions = '[1]'",
        "permissions = '" + "[" * 90_000 + "'",
        "created_timestamp = null, expires_after_seconds = 5",
        "expires_after_seconds = 'abc'",
        "created_timestamp = 9223372036854775807, expires_after_seconds = 9223372036854775807",
        "actor_id = null",
        "actor_id = cast(x'ff' as text)",
        "description = x'00'",
        "description = null",
        "last_used_timestamp = 'x'",
        "parent_id = 'x'",
        "token_status = null",
        "token_digest = 5",
    ]
    for change in changes:
        run_sql(store, f"update {store.table} set {change} where id = ?", await issue(store, description="d"))
    last = await issue(store)
    assert await listed(store) == list(range(last, 0, -1))
    for status in ("active", "revoked", "expired"):
        await listed(store, status=status)
    await listed(store, search="d", used_before=5)
    for token_id in range(1, last + 1):
        assert (await store.get(token_id, owner=ANY_OWNER)).id == token_id


NO_TEXT: list[Any] = [5, b"x", ["x"], {}, True, "a\0b", "\ud800"]


NO_COUNT: list[Any] = [-1, 2**63, 1.5, "1", True, [1], float("nan")]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"status": bad} for bad in ["", "A", "damaged", "Active", 5, ["active"], {"a": 1}, b"active"]),
        *({"search": bad} for bad in [*NO_TEXT, "x" * (MAX_SEARCH + 1)]),
        *({"used_before": bad} for bad in NO_COUNT),
        *({"used_after": bad} for bad in NO_COUNT),
        *({"cursor": bad} for bad in NO_COUNT),
        *({"limit": bad} for bad in [0, -1, MAX_LIMIT + 1, 1.5, "1", True, None]),
        *({"owner": bad} for bad in [None, "", 5, True, b"ann", "\ud800", ["ann"]]),
        {"owner": Family(5, 1)},  # type: ignore[arg-type]
    ],
    ids=repr,
)
async def test_an_unusable_argument_of_a_list_is_refused(store: TokenStore, arguments: dict[str, Any]) -> None:
    await issue(store)
    with pytest.raises(InvalidInput):
        await store.list(**{"owner": "ann", **arguments})


async def test_a_list_reads_the_restrictions_of_each_token_once(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await issue(store, restrictions=only(VT))
    read: list[object] = []
    original = Restrictions.from_wire

    def counted(wire: object) -> Restrictions:
        read.append(wire)
        return original(wire)

    monkeypatch.setattr(Restrictions, "from_wire", counted)
    assert len(await listed(store)) == 5
    assert len(read) == 5
