"""Changes of many tokens: others write in between, and nothing of what a single transaction promised is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_token_auth import ANY_OWNER, AlreadyDone, IdempotencyKeyReused, StorageError, TokenStore
from asgi_token_auth.storage.parts import PartlyDone
from asgi_token_auth.tokens import changes
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, run_sql
from tests.support.tokens import issue, listed, names_of_events

pytestmark = pytest.mark.anyio

Between = Callable[[int], Awaitable[None]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PART", 2)


def between_parts(monkeypatch: pytest.MonkeyPatch, store: TokenStore, do: Between) -> None:
    """After each transaction of ``store``, whose number is given, ``do`` something."""
    run: Any = store.database.transaction
    done = 0

    async def transaction(steps: Any) -> Any:
        nonlocal done
        result = await run(steps)
        done += 1
        await do(done)
        return result

    monkeypatch.setattr(store.database, "transaction", transaction)


async def active(store: TokenStore, owner: str = "ann") -> list[int]:
    return await listed(store, owner=owner, status="active")


async def test_somebody_else_can_revoke_while_many_are_revoked(
    place: Place, store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [await issue(store) for _ in range(5)]
    urgent = await issue(store, "bob")
    seen: list[list[int]] = []

    async def revoke_the_other(number: int) -> None:
        seen.append(await active(store))
        if number == 1:
            async with TokenStore(place.database(), secret=SECRET) as other:
                await other.revoke(urgent, owner=ANY_OWNER)

    between_parts(monkeypatch, store, revoke_the_other)
    assert await store.revoke_all(owner="ann", by="eve") == 5
    assert seen == [tokens[:1:-1], tokens[:3:-1], []]
    assert await active(store, "bob") == []
    for token in tokens:
        assert await names_of_events(store, token) == ["created", "revoked"]


async def test_a_token_that_was_created_meanwhile_by_one_that_was_still_active_is_ended_too(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = [await issue(store) for _ in range(6)]

    async def create_a_child(number: int) -> None:
        if number == 1:
            monkeypatch.undo()
            monkeypatch.setattr(changes, "PART", 2)
            await issue(store, parent=last)

    between_parts(monkeypatch, store, create_a_child)
    assert await store.revoke_all(owner="ann") == 7
    assert await active(store) == []


async def test_all_are_revoked_though_whoever_asked_went_away(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await issue(store)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def tell(number: int) -> None:
        begun.set()
        if number == 3:
            ended.set()

    between_parts(monkeypatch, store, tell)
    caller = asyncio.ensure_future(store.revoke_all(owner="ann"))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await ended.wait()
    assert await active(store) == []


async def test_a_store_that_is_closed_is_not_opened_again_for_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TokenStore(place.database(), secret=SECRET) as store:
        for _ in range(3):
            await issue(store)

        async def close(number: int) -> None:
            await store.close()

        between_parts(monkeypatch, store, close)
        with pytest.raises(
            StorageError, match=r"was closed meanwhile\. 2 were done before that; ask again for the others\."
        ):
            await store.revoke_all(owner="ann")
    async with TokenStore(place.database(), secret=SECRET) as store:
        assert await active(store) == [3]


async def test_what_was_cut_off_goes_on_with_the_same_key(
    store: TokenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await issue(store)

    async def fail(number: int) -> None:
        if number == 2:
            raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        between_parts(patch, store, fail)
        with pytest.raises(PartlyDone, match="2 were done before that"):
            await store.revoke_all(owner="ann", by="ann", idempotency_key="k")
    assert await active(store) == [5]
    with pytest.raises(IdempotencyKeyReused) as reused:
        await store.revoke_all(owner="bob", by="ann", idempotency_key="k")
    assert (reused.value.event, reused.value.subject) == ("revoked_all", 4)
    assert await store.revoke_all(owner="ann", by="ann", idempotency_key="k") == 5
    later = await issue(store)
    with pytest.raises(AlreadyDone) as done:
        await store.revoke_all(owner="ann", by="ann", idempotency_key="k")
    assert (done.value.event, done.value.subject, done.value.at) == ("revoked_all", 5, clock.now)
    assert await active(store) == [later]


async def test_of_two_that_come_at_once_with_one_key_one_answers_for_both(place: Place) -> None:
    async with (
        TokenStore(place.database(), secret=SECRET) as one,
        TokenStore(place.database(), secret=SECRET) as two,
    ):
        for _ in range(9):
            await issue(one)
        answers = await asyncio.gather(
            *[store.revoke_all(owner="ann", by="ann", idempotency_key="k") for store in (one, two)],
            return_exceptions=True,
        )
        repeats = [answer.subject for answer in answers if isinstance(answer, AlreadyDone)]
        assert (repeats, 9 in answers) == ([9], True)
        assert await active(one) == []
        assert run_sql(one, f"select count(*) from {one.table}_events where event = 'revoked'") == [(9,)]


async def test_somebody_else_can_write_while_many_are_pruned(
    store: TokenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [await issue(store) for _ in range(5)]
    await store.revoke_all(owner="ann")
    newest = await issue(store)
    clock.now += 100
    seen: list[list[int]] = []

    async def look(number: int) -> None:
        seen.append(await listed(store))

    between_parts(monkeypatch, store, look)
    assert await store.prune(ended_before=clock.now, dry_run=True) == 5
    assert seen == []
    assert await store.prune(ended_before=clock.now) == 5
    assert seen == [[newest, *tokens[:1:-1]], [newest, tokens[4]], [newest]]
    assert run_sql(store, f"select distinct token_id from {store.table}_events") == [(newest,)]
