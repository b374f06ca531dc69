"""What happened to a token is kept, in order, and in the same transaction as what it tells."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_token_auth import (
    InvalidInput,
    Restrictions,
    StorageError,
    TokenNotFound,
    TokenStore,
)
from asgi_token_auth.tokens.record import Family
from tests.support.asgi import SECRET, Clock
from tests.support.failing import Failing
from tests.support.places import Place, only_sqlite, run_sql
from tests.support.tokens import everything, issue, names_of_events

pytestmark = pytest.mark.anyio


VT, IR, ES = "view-table", "insert-row", "execute-sql"


async def test_events_are_told_in_order_to_the_owner_only(store: TokenStore, clock: Clock) -> None:
    token_id = await issue(store, by="ann")
    clock.now += 1
    await store.rotate(token_id, owner="ann", by="ann", grace=5)
    clock.now += 1
    await store.revoke(token_id, owner="ann", by="eve")
    events = await store.events(token_id, owner="ann")
    assert [(event.name, event.by, event.at) for event in events] == [
        ("created", "ann", clock.now - 2),
        ("rotated", "ann", clock.now - 1),
        ("revoked", "eve", clock.now),
    ]
    for owner in ("bob", Family("bob", token_id)):
        with pytest.raises(TokenNotFound):
            await store.events(token_id, owner=owner)


async def test_events_are_only_ever_added(store: TokenStore) -> None:
    token_id = await issue(store)
    before: list[Any] = []
    for change in (
        lambda: store.edit(token_id, owner="ann", description="x"),
        lambda: store.rotate(token_id, owner="ann"),
        lambda: store.revoke(token_id, owner="ann"),
        lambda: store.revoke(token_id, owner="ann"),
    ):
        await change()
        events = run_sql(store, f"select * from {store.table}_events order by id")
        assert events[: len(before)] == before
        before = events
    assert len(before) == 4


@only_sqlite
async def test_a_damaged_event_is_told_as_far_as_it_can_be(store: TokenStore) -> None:
    await issue(store)
    run_sql(
        store, f"update {store.table}_events set at_timestamp = 'x', event = x'ff', by_actor_id = 5, details = x'00'"
    )
    (event,) = await store.events(1, owner="ann")
    assert (event.at, event.name) == (None, "")


CHANGES: dict[str, Any] = {
    "issue": lambda store: store.issue("ann", parent=1),
    "edit": lambda store: store.edit(1, owner="ann", description="x", restrictions=Restrictions(), expires_after=5),
    "rotate": lambda store: store.rotate(1, owner="ann", grace=5),
    "revoke": lambda store: store.revoke(1, owner="ann"),
    "revoke_all": lambda store: store.revoke_all(owner="ann"),
    "prune": lambda store: store.prune(ended_before=10**12),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("error", [StorageError("cannot"), OSError(5, "I/O"), MemoryError()], ids=repr)
async def test_a_fault_in_the_middle_leaves_neither_the_change_nor_its_event(
    place: Place, name: str, error: Exception
) -> None:
    async with TokenStore(place.database(), secret=SECRET) as outside:
        parent = await issue(outside)
        await issue(outside, parent=parent)
        await outside.revoke(await issue(outside), owner="ann")
        run_sql(outside, f"update {outside.table} set ended_timestamp = 5 where id = 3")
        await issue(outside)
        before = everything(outside)
        database = Failing(place.database(), -1, error)
        async with TokenStore(database, secret=SECRET) as store:
            for nth in range(1, 100):
                database.fails_at = database.calls + nth
                try:
                    await CHANGES[name](store)
                except (type(error), StorageError):
                    assert everything(outside) == before
                else:
                    break
        assert nth > 2
        assert everything(outside) != before


async def test_changes_at_the_same_time_all_leave_their_event(store: TokenStore) -> None:
    token_id = await issue(store)
    await asyncio.gather(
        *(store.edit(token_id, owner="ann", description=f"d{n}") for n in range(4)),
        *(store.revoke(token_id, owner="ann") for _ in range(3)),
        return_exceptions=True,
    )
    names = await names_of_events(store, token_id)
    assert names.count("revoked") == 1
    assert names[-1] == "revoked"


async def test_the_latest_events_can_be_asked_for(store: TokenStore) -> None:
    token_id = await issue(store)
    for number in range(3):
        await store.edit(token_id, owner="ann", description=str(number))
    await store.revoke(token_id, owner="ann")
    names = [event.name for event in await store.events(token_id, owner="ann", latest=2)]
    assert names == ["edited", "revoked"]
    assert len(await store.events(token_id, owner="ann", latest=2**63 - 1)) == 5
    for bad in (0, -1, True, "5", 1.5, 2**63):
        with pytest.raises(InvalidInput, match="latest"):
            await store.events(token_id, owner="ann", latest=bad)  # type: ignore[arg-type]
