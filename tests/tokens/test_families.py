"""Families cost by those who live, and whoever ends one ends all who live, however they hang together."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_token_auth import InvalidInput, TokenStore
from asgi_token_auth.tokens.changes import MAX_FAMILY
from asgi_token_auth.tokens.record import Family, TokenRecord
from tests.support.asgi import Clock
from tests.support.places import Place, only_sqlite, run_sql
from tests.support.tokens import issue, listed, only

pytestmark = pytest.mark.anyio

DEAD = 10_000
#: Ways for a token to have ended, as assignments.
ENDS = {
    "expired": "expires_after_seconds = 1",
    "revoked": "token_status = 'R', ended_timestamp = 1",
    "expired, as the predecessor writes it": "token_status = 'E', ended_timestamp = 1",
}


async def add_dead(store: TokenStore, place: Place, parent: int) -> None:
    """Many who ended long ago, created through one, and through one another."""
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)"
    if place.kind == "postgres":
        numbers = numbers.replace("?", "cast(? as int)")
    run_sql(
        store,
        f"insert into {store.table} (token_status, actor_id, permissions, created_timestamp, expires_after_seconds, "
        f"ended_timestamp, token_digest, parent_id) {numbers} select case when i % 3 = 0 then 'R' else 'A' end, 'ann', "
        f"'null', 1000, 1, case when i % 3 = 0 then 1000 end, 'x', case when i % 7 = 0 then {parent} + i % 50 "
        f"else {parent} end from n",
        DEAD,
    )
    # As a server has it after a while.
    run_sql(store, "analyze")


async def least(call: Callable[[], Awaitable[object]]) -> float:
    """The seconds of the quickest of some calls, which no other process has held up."""
    times: list[float] = []
    for _ in range(7):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return min(times)


async def test_who_has_ended_costs_the_living_nothing(store: TokenStore, place: Place) -> None:
    crowded = await issue(store)
    ids = [await issue(store, parent=crowded) for _ in range(50)]
    lonely = await issue(store)
    for _ in range(50):
        await issue(store, parent=lonely)
    await add_dead(store, place, crowded)
    restrictions = [only("a", "b"), only("a")]

    def calls(token_id: int, child: int) -> dict[str, Callable[[], Awaitable[object]]]:
        def narrow() -> Awaitable[TokenRecord]:
            restrictions.reverse()
            return store.edit(token_id, owner="ann", restrictions=restrictions[0])

        family = Family("ann", token_id)
        return {
            "a list of who lives": lambda: store.list(owner=family, status="active"),
            "a look at one": lambda: store.get(child, owner=family),
            "an edit": narrow,
            "a child": lambda: store.issue("ann", parent=token_id, restrictions=only("a"), expires_after=60),
            "the end of one": lambda: store.revoke(child, owner=family),
            "the end of all": lambda: store.revoke_all(owner=family),
            "the end": lambda: store.revoke(token_id, owner="ann"),
        }

    among_few = calls(lonely, lonely + 1)
    for what, call in calls(crowded, ids[0]).items():
        few, many = await least(among_few[what]), await least(call)
        assert many < max(10 * few, 0.02), what
    assert await listed(store, owner=Family("ann", crowded), status="active") == []


@pytest.mark.parametrize("end", ENDS)
async def test_who_lives_below_one_that_ended_alone_ends_with_the_family(store: TokenStore, end: str) -> None:
    """Another program on the same table ends one token and not its family."""
    top = await issue(store)
    first = await issue(store, parent=top)
    second = await issue(store, parent=first)
    third = await issue(store, parent=second)
    living = await issue(store, parent=third)
    run_sql(store, f"update {store.table} set {ENDS[end]}, created_timestamp = 1 where id in ({first}, {second})")
    assert living in await listed(store, owner=Family("ann", top), status="active")
    await store.edit(top, owner="ann", restrictions=only("a"))
    assert (await store.get(living, owner="ann")).restrictions == only("a")
    await store.revoke(top, owner="ann")
    assert [(await store.get(i, owner="ann")).status for i in (third, living)] == ["revoked", "revoked"]


async def test_a_living_crowd_below_the_dead_is_a_family_too(store: TokenStore, clock: Clock) -> None:
    top = await issue(store)
    for _ in range(MAX_FAMILY - 1):
        await issue(store, parent=top, expires_after=100)
    with pytest.raises(InvalidInput, match="may come from one"):
        await issue(store, parent=top)
    clock.now += 100
    assert await issue(store, parent=top)


STATES = [
    *["token_status = 'A'"] * 4,
    *ENDS.values(),
    "ended_timestamp = 5",
    "token_status = null",
    "token_status = 'Z'",
    "permissions = '{'",
    "created_timestamp = null",
    "expires_after_seconds = 1000000",
]
UNTYPED = ["created_timestamp = 'soon'", "expires_after_seconds = 'x'", "created_timestamp = 1.5"]


@pytest.mark.parametrize("seed", range(20))
async def test_an_end_reaches_exactly_whom_it_reached_by_going_through_all(
    store: TokenStore, place: Place, seed: int, clock: Clock
) -> None:
    dice = random.Random(seed)
    states = STATES + UNTYPED * (place.kind == "sqlite")
    ids = [await issue(store, expires_after=500) for _ in range(40)]
    parents: dict[int, int | None] = {}
    for token_id in ids:
        # Some are their own ancestors.
        parents[token_id] = dice.choice([None, *ids]) if dice.random() < 0.9 else None
        parent = "null" if parents[token_id] is None else parents[token_id]
        run_sql(store, f"update {store.table} set parent_id = {parent}, {dice.choice(states)} where id = {token_id}")
    top = dice.choice(ids)
    reached = {top}
    while more := {i for i in ids if parents[i] in reached} - reached:
        reached |= more
    before = {i: await store.get(i, owner="ann") for i in ids}
    rows = rows_of(store)
    await store.revoke(top, owner="ann")
    after = rows_of(store)
    for token_id in ids:
        mark, ended, _ = rows[token_id]
        ends = token_id in reached and ended is None and mark not in ("R", "E")
        alive = before[token_id].status in ("active", "damaged")
        assert after[token_id][:2] == (("R", int(clock.now)) if ends and alive else (mark, ended)), before[token_id]


def rows_of(store: TokenStore) -> dict[int, Any]:
    rows = run_sql(store, f"select id, token_status, ended_timestamp, parent_id from {store.table}")
    return {row[0]: tuple(row[1:]) for row in rows}


@only_sqlite
async def test_times_that_are_damaged_do_not_hide_a_token(store: TokenStore) -> None:
    top = await issue(store)
    child = await issue(store, parent=top, expires_after=1_000)
    run_sql(store, f"update {store.table} set created_timestamp = 'soon' where id = ?", child)
    await store.revoke(top, owner="ann")
    assert rows_of(store)[child][0] == "R"
