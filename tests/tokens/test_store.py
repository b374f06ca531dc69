"""Managed tokens as rows: issued, found, revoked; by whom, for whom and until when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import (
    ANY_OWNER,
    Authenticated,
    ConfigurationError,
    Credential,
    InvalidInput,
    IssuedToken,
    ManagedTokens,
    Rejected,
    Restrictions,
    StorageError,
    TokenNotFound,
    TokenStore,
)
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.record import MAX_DESCRIPTION, MAX_EXPIRES_AFTER
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, only_sqlite, run_sql

pytestmark = pytest.mark.anyio


async def count(store: TokenStore) -> int:
    total: int = run_sql(store, f"select count(*) from {store.table}")[0][0]
    return total


# Issue


async def test_an_issued_token_is_described_by_its_record(store: TokenStore, clock: Clock) -> None:
    limited = Restrictions().allow_resource("db", "t", "view-table")
    issued = await store.issue("ann", by="bob", description="CI", expires_after=60, restrictions=limited)
    record = issued.record
    assert (record.actor_id, record.status, record.description) == ("ann", "active", "CI")
    assert (record.created_at, record.expires_at) == (clock.now, clock.now + 60)
    assert (record.last_used_at, record.last_used_address, record.ended_at, record.parent_id) == (None,) * 4
    assert record.restrictions == limited
    assert await store.get(record.id, owner="ann") == record


async def test_the_text_is_shown_once_and_kept_nowhere(store: TokenStore) -> None:
    issued = await store.issue("ann")
    nonce = store.text.read(issued.token)
    assert nonce is not None
    assert issued.token not in repr(issued)
    kept = str(run_sql(store, f"select * from {store.table}"))
    if isinstance(store.database, SQLite):
        kept += "".join(file.read_bytes().decode("latin-1") for file in store.database.path.parent.iterdir())
    assert issued.token not in kept
    assert nonce[1] not in kept


async def test_a_text_that_cannot_be_delivered_is_not_kept(store: TokenStore) -> None:
    seen: list[IssuedToken] = []

    def lose(issued: IssuedToken) -> None:
        seen.append(issued)
        raise ConnectionError("the reader has gone")

    with pytest.raises(ConnectionError):
        await store.issue("ann", deliver=lose)
    assert await count(store) == 0
    assert run_sql(store, f"select * from {store.table}_events") == []
    delivered: list[IssuedToken] = []
    kept = await store.issue("ann", deliver=delivered.append)
    assert delivered == [kept]
    with pytest.raises(ConnectionError):
        await store.rotate(kept.record.id, owner="ann", deliver=lose)
    source = ManagedTokens(store)
    assert isinstance(await source.authenticate(Credential(kept.token)), Authenticated)
    for lost in seen:
        assert isinstance(await source.authenticate(Credential(lost.token)), Rejected)
    assert [event.name for event in await store.events(kept.record.id, owner="ann")] == ["created"]


async def test_a_table_of_something_else_is_no_state(store: TokenStore) -> None:
    assert await store.state() == "ready"
    run_sql(store, f"alter table {store.table} rename column permissions to wishes")
    with pytest.raises(StorageError, match="not one of tokens, which would have a column permissions"):
        await store.state()


async def test_two_tokens_never_share_a_text(store: TokenStore) -> None:
    texts = {(await store.issue("ann")).token for _ in range(20)}
    assert len(texts) == 20


async def test_an_empty_set_of_restrictions_stays_one(store: TokenStore) -> None:
    nothing = await store.issue("ann", restrictions=Restrictions())
    everything = await store.issue("ann")
    assert nothing.record.restrictions == Restrictions()
    assert everything.record.restrictions is None
    assert run_sql(store, f"select permissions from {store.table} order by id") == [("{}",), ("null",)]


@pytest.mark.parametrize("given", [90, 90.0, timedelta(seconds=90)], ids=repr)
async def test_an_expiry_is_seconds_or_a_timedelta(store: TokenStore, clock: Clock, given: Any) -> None:
    assert (await store.issue("ann", expires_after=given)).record.expires_at == clock.now + 90


BAD: list[dict[str, Any]] = [
    {"actor_id": ""},
    {"actor_id": None},
    {"actor_id": 5},
    {"actor_id": b"ann"},
    {"actor_id": ["ann"]},
    {"actor_id": "x" * 501},
    {"actor_id": "a\0b"},
    {"actor_id": "\ud800"},
    {"by": ""},
    {"by": 5},
    {"by": "\udfff"},
    {"description": 5},
    {"description": b"x"},
    {"description": "x" * (MAX_DESCRIPTION + 1)},
    {"description": "a\0b"},
    {"description": "\ud800"},
    {"expires_after": 0},
    {"expires_after": -1},
    {"expires_after": 0.5},
    {"expires_after": True},
    {"expires_after": "60"},
    {"expires_after": float("nan")},
    {"expires_after": float("inf")},
    {"expires_after": MAX_EXPIRES_AFTER + 1},
    {"expires_after": 10**400},
    {"expires_after": timedelta(0)},
    {"expires_after": timedelta(days=-1)},
    {"restrictions": {}},
    {"restrictions": {"a": ["vt"]}},
    {"restrictions": "vt"},
]


@pytest.mark.parametrize("arguments", BAD, ids=lambda value: repr(value)[:60])
async def test_an_unusable_argument_creates_nothing(store: TokenStore, arguments: dict[str, Any]) -> None:
    given = {"actor_id": "ann", **arguments}
    with pytest.raises(InvalidInput):
        await store.issue(given.pop("actor_id"), **given)
    assert await count(store) == 0


async def test_what_is_just_within_the_limits_is_accepted(store: TokenStore) -> None:
    issued = await store.issue("x" * 500, description="é" * MAX_DESCRIPTION, expires_after=MAX_EXPIRES_AFTER)
    assert issued.record.description == "é" * MAX_DESCRIPTION
    assert (await store.issue("ann'; drop table x; --")).record.actor_id == "ann'; drop table x; --"


# Owners


async def test_nobody_gets_at_the_tokens_of_somebody_else(store: TokenStore) -> None:
    token_id = (await store.issue("ann")).record.id
    for action in (store.get, store.revoke):
        with pytest.raises(TokenNotFound):
            await action(token_id, owner="bob")
    assert (await store.get(token_id, owner=ANY_OWNER)).status == "active"
    assert (await store.revoke(token_id, owner=ANY_OWNER)).status == "revoked"


@pytest.mark.parametrize("owner", [None, "", 5, True, b"ann", "\ud800", ["ann"]], ids=repr)
async def test_an_owner_is_an_actor_id_or_any_owner(store: TokenStore, owner: Any) -> None:
    token_id = (await store.issue("5")).record.id
    for action in (store.get, store.revoke):
        with pytest.raises(InvalidInput):
            await action(token_id, owner=owner)
    assert (await store.get(token_id, owner="5")).status == "active"


@pytest.mark.parametrize("token_id", [0, -1, 2, 2**63, 2**70, True, 1.0, "1", None, [1]], ids=repr)
async def test_what_is_no_id_of_a_token_is_not_found(store: TokenStore, token_id: Any) -> None:
    await store.issue("ann")
    for action in (store.get, store.revoke):
        with pytest.raises(TokenNotFound):
            await action(token_id, owner=ANY_OWNER)
    with pytest.raises(TokenNotFound):
        await store.issue("ann", parent=token_id if token_id is not None else 2)


# Revoke


async def test_revoking_again_changes_nothing_and_the_first_end_stays(store: TokenStore, clock: Clock) -> None:
    token_id = (await store.issue("ann")).record.id
    clock.now += 10
    first = await store.revoke(token_id, owner="ann", by="bob")
    clock.now += 10
    second = await store.revoke(token_id, owner="ann", by="eve")
    assert first == second
    assert second.ended_at == clock.now - 10
    events = run_sql(store, f"select event, by_actor_id, at_timestamp from {store.table}_events order by id")
    assert events == [("created", None, clock.now - 20), ("revoked", "bob", clock.now - 10)]


async def test_revoking_an_expired_token_rewrites_nothing(store: TokenStore, clock: Clock) -> None:
    token_id = (await store.issue("ann", expires_after=10)).record.id
    clock.now += 11
    before = run_sql(store, f"select * from {store.table}")
    assert (await store.revoke(token_id, owner="ann")).status == "expired"
    assert run_sql(store, f"select * from {store.table}") == before


async def test_looking_at_a_token_writes_nothing(store: TokenStore, clock: Clock) -> None:
    token_id = (await store.issue("ann", expires_after=10)).record.id
    await store.revoke(token_id, owner="ann")
    clock.now += 1_000
    before = run_sql(store, f"select * from {store.table}")
    assert (await store.get(token_id, owner="ann")).status == "revoked"
    assert run_sql(store, f"select * from {store.table}") == before


async def test_a_refused_revocation_ends_nothing_and_leaves_no_event(store: TokenStore) -> None:
    token_id = (await store.issue("ann")).record.id
    with pytest.raises(InvalidInput):
        await store.revoke(token_id, owner="ann", by="\ud800")
    assert (await store.get(token_id, owner="ann")).status == "active"
    assert run_sql(store, f"select event from {store.table}_events") == [("created",)]


async def test_revoking_a_parent_ends_its_children_and_theirs(store: TokenStore) -> None:
    parent = (await store.issue("ann")).record.id
    child = (await store.issue("ann", parent=parent)).record.id
    grandchild = (await store.issue("ann", parent=child)).record.id
    other = (await store.issue("ann")).record.id
    await store.revoke(parent, owner="ann")
    statuses = [(await store.get(i, owner="ann")).status for i in (parent, child, grandchild, other)]
    assert statuses == ["revoked", "revoked", "revoked", "active"]


async def test_revoking_a_child_leaves_its_parent_alone(store: TokenStore) -> None:
    parent = (await store.issue("ann")).record.id
    child = (await store.issue("ann", parent=parent)).record.id
    await store.revoke(child, owner="ann")
    assert (await store.get(parent, owner="ann")).status == "active"


async def test_a_ring_of_parents_does_not_loop_for_ever(store: TokenStore) -> None:
    one = (await store.issue("ann")).record.id
    two = (await store.issue("ann", parent=one)).record.id
    run_sql(store, f"update {store.table} set parent_id = ? where id = ?", two, one)
    await store.revoke(one, owner="ann")
    assert (await store.get(two, owner="ann")).status == "revoked"


@pytest.mark.parametrize(
    "damage", ["expires_after_seconds = 'abc'", "created_timestamp = null", "permissions = '{'", "token_status = 'Z'"]
)
@only_sqlite
async def test_a_damaged_row_can_be_revoked_and_stays_so_when_it_is_repaired(store: TokenStore, damage: str) -> None:
    token_id = (await store.issue("ann", expires_after=1_000)).record.id
    run_sql(store, f"update {store.table} set {damage} where id = {token_id}")
    assert (await store.get(token_id, owner="ann")).status == "damaged"
    await store.revoke(token_id, owner="ann")
    now = int(store.clock())
    run_sql(
        store,
        f"update {store.table} set expires_after_seconds = 1000, created_timestamp = {now}, permissions = 'null'",
    )
    assert (await store.get(token_id, owner="ann")).status == "revoked"


# Parents


@pytest.mark.parametrize(
    ("of_parent", "of_child"),
    [
        ({"restrictions": Restrictions()}, {}),
        ({"restrictions": Restrictions().allow_all("vt")}, {}),
        ({"restrictions": Restrictions().allow_all("vt")}, {"restrictions": Restrictions().allow_all("es")}),
        ({"restrictions": Restrictions().allow_database("a", "vt")}, {"restrictions": Restrictions().allow_all("vt")}),
        ({"expires_after": 60}, {}),
        ({"expires_after": 60}, {"expires_after": 61}),
    ],
    ids=repr,
)
async def test_a_token_never_creates_one_that_reaches_further(
    store: TokenStore, of_parent: dict[str, Any], of_child: dict[str, Any]
) -> None:
    parent = (await store.issue("ann", **of_parent)).record.id
    with pytest.raises(InvalidInput):
        await store.issue("ann", parent=parent, **of_child)
    assert await count(store) == 1


async def test_a_child_may_have_all_that_its_parent_has(store: TokenStore) -> None:
    limited = Restrictions().allow_database("a", "view-table")
    parent = (await store.issue("ann", restrictions=limited, expires_after=60)).record.id
    narrower = Restrictions().allow_resource("a", "t", "vt")
    child = (await store.issue("ann", parent=parent, restrictions=narrower, expires_after=60)).record
    assert child.parent_id == parent


async def test_only_an_active_token_of_the_same_actor_is_a_parent(store: TokenStore, clock: Clock) -> None:
    of_bob = (await store.issue("bob")).record.id
    revoked = (await store.issue("ann")).record.id
    await store.revoke(revoked, owner="ann")
    expired = (await store.issue("ann", expires_after=1)).record.id
    clock.now += 1
    damaged = (await store.issue("ann")).record.id
    run_sql(store, f"update {store.table} set permissions = '[1]' where id = {damaged}")
    for parent in (of_bob, revoked, expired, damaged):
        with pytest.raises(TokenNotFound):
            await store.issue("ann", parent=parent)


# Status


@pytest.mark.parametrize(("after", "status"), [(59, "active"), (59.999, "active"), (60, "expired"), (61, "expired")])
async def test_a_token_expires_at_its_second(store: TokenStore, clock: Clock, after: float, status: str) -> None:
    token_id = (await store.issue("ann", expires_after=60)).record.id
    clock.now += after
    assert (await store.get(token_id, owner="ann")).status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("token_status = 'L'", "damaged"),
        ("token_status = 'Z'", "damaged"),
        ("token_status = null", "damaged"),
        ("token_status = 'R '", "damaged"),
        ("token_status = 'a'", "damaged"),
        ("token_status = x'41'", "damaged"),
        ("token_status = 1", "damaged"),
        ("token_status = 'E'", "expired"),
        ("token_status = 'R'", "revoked"),
        ("ended_timestamp = 1", "revoked"),
        ("ended_timestamp = 'soon'", "revoked"),
        ("actor_id = ''", "damaged"),
        ("actor_id = null", "damaged"),
        ("actor_id = x'ff'", "damaged"),
    ],
)
@only_sqlite
async def test_only_the_letter_a_is_active(store: TokenStore, change: str, status: str) -> None:
    token_id = (await store.issue("ann")).record.id
    run_sql(store, f"update {store.table} set {change}")
    assert (await store.get(token_id, owner=ANY_OWNER)).status == status


@only_sqlite
async def test_a_damaged_row_is_shown_without_hurting_anybody(store: TokenStore) -> None:
    token_id = (await store.issue("ann")).record.id
    run_sql(
        store,
        f"update {store.table} set description = cast(x'ff' as text), last_used_address = x'00', permissions = '[1]', "
        "created_timestamp = 'abc', last_used_timestamp = x'00', parent_id = 'x'",
    )
    record = await store.get(token_id, owner="ann")
    assert record.status == "damaged"
    assert record.restrictions == Restrictions()
    assert (record.description, record.last_used_address, record.created_at, record.last_used_at) == (None,) * 4


# Construction, opening, closing


@pytest.mark.parametrize(
    "options",
    [{"secret": "short"}, {"secret": ""}, {"table": "a b"}, {"table": "x;"}, {"prefix": "x"}, {"prefix": "a b_"}],
    ids=repr,
)
def test_a_store_that_cannot_work_is_refused_at_construction(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TokenStore(SQLite(tmp_path / "t.db"), **{"secret": SECRET, **options})
    assert list(tmp_path.iterdir()) == []


def test_without_a_secret_the_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATASETTE_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="DATASETTE_SECRET"):
        TokenStore(SQLite(tmp_path / "t.db"))
    monkeypatch.setenv("DATASETTE_SECRET", SECRET)
    TokenStore(SQLite(tmp_path / "t.db"))


@only_sqlite
async def test_the_last_user_of_a_store_closes_it(place: Place) -> None:
    store = TokenStore(place.database(), secret=SECRET)
    async with store:
        async with store:
            await store.issue("ann")
        assert isinstance(store.database, SQLite)
        assert store.database._pools
        await store.ping()
    assert not store.database._pools


async def test_a_closed_store_can_be_opened_again(place: Place) -> None:
    store = TokenStore(place.database(), secret=SECRET)
    async with store:
        token_id = (await store.issue("ann")).record.id
    async with store:
        assert (await store.get(token_id, owner="ann")).status == "active"


async def test_a_store_that_cannot_open_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"this is no database" * 100)
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    with pytest.raises(StorageError, match="not a SQLite database"):
        await store.open()
    assert isinstance(store.database, SQLite)
    assert not store.database._pools


async def test_ping_says_when_the_table_is_gone(store: TokenStore) -> None:
    await store.ping()
    run_sql(store, f"drop table {store.table}")
    with pytest.raises(StorageError, match=r"no such table|does not exist"):
        await store.ping()


async def test_a_table_and_a_prefix_of_its_own_make_a_second_store_in_one_file(place: Place) -> None:
    database = place.database()
    async with (
        TokenStore(database, secret=SECRET) as one,
        TokenStore(database, secret=SECRET, table="my_tokens", prefix="my_") as two,
    ):
        first, second = await one.issue("ann"), await two.issue("bob")
        assert first.token.startswith("dsatok_")
        assert second.token.startswith("my_")
        assert two.text.read("my_" + first.token.removeprefix("dsatok_")) is None
        assert (await two.get(second.record.id, owner="bob")).actor_id == "bob"


async def test_a_cancelled_caller_leaves_nothing_half_done(store: TokenStore) -> None:
    import asyncio

    tasks = [asyncio.ensure_future(store.issue("ann")) for _ in range(10)]
    for turns, task in enumerate(tasks):
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.issue("bob")
    rows = run_sql(store, f"select count(*) from {store.table}")[0][0]
    events = run_sql(store, f"select count(*) from {store.table}_events where event = 'created'")[0][0]
    assert rows == events


async def test_eight_writers_at_once_all_get_through(store: TokenStore) -> None:
    import asyncio

    issued = await asyncio.gather(*(store.issue("ann") for _ in range(8)))
    assert len({token.record.id for token in issued}) == 8
