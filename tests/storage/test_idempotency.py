"""A change with a key happens once, whoever is how often asked for it, and by how many processes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from asgi_token_auth import (
    ANY_OWNER,
    AlreadyDone,
    EditConflict,
    IdempotencyKey,
    IdempotencyKeyReused,
    InvalidInput,
    SecretStore,
    TokenStore,
)
from asgi_token_auth.storage import idempotency
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, run_in, run_sql
from tests.support.secret_sites import KEY
from tests.support.tokens import everything, issue, only

pytestmark = pytest.mark.anyio

Change = Callable[[Any, str], Awaitable[Any]]

#: What is done to token 1 of two, and how the answer to a repeat calls it.
TOKEN_CHANGES: dict[str, tuple[Change, str, int]] = {
    "issue": (lambda s, key: s.issue("ann", by="ann", description="d", idempotency_key=key), "created", 3),
    "edit": (lambda s, key: s.edit(1, owner="ann", by="ann", expires_after=60, idempotency_key=key), "edited", 1),
    "rotate": (lambda s, key: s.rotate(1, owner="ann", by="ann", grace=60, idempotency_key=key), "rotated", 1),
    "revoke": (lambda s, key: s.revoke(1, owner="ann", by="ann", idempotency_key=key), "revoked", 1),
    "revoke all": (lambda s, key: s.revoke_all(owner="ann", by="ann", idempotency_key=key), "revoked_all", 2),
}
SECRET_CHANGES: dict[str, tuple[Change, str, int | None]] = {
    "set": (lambda s, key: s.set("A", "value", by="ann", idempotency_key=key), "set", 2),
    "set note": (lambda s, key: s.set_note("A", "note", by="ann", idempotency_key=key), "noted", 1),
    "delete": (lambda s, key: s.delete("A", by="ann", idempotency_key=key), "deleted", None),
}


@pytest.fixture
async def secrets(place: Place, clock: Clock, anyio_backend: str) -> AsyncIterator[SecretStore]:
    async with SecretStore(place.database(), encryption_key=KEY, environ={}, clock=clock) as store:
        yield store


def all_of(store: SecretStore) -> list[Any]:
    return run_in(store.database, f"select * from {store.table} order by id")


def requests_of(store: TokenStore | SecretStore) -> list[Any]:
    return run_in(store.database, f"select * from {store.table}_requests order by id")


@pytest.mark.parametrize("name", TOKEN_CHANGES)
async def test_a_change_of_tokens_with_a_key_happens_once(store: TokenStore, clock: Clock, name: str) -> None:
    change, event, subject = TOKEN_CHANGES[name]
    await issue(store)
    await issue(store)
    await change(store, "k")
    when, done = clock.now, everything(store)
    clock.now += 100
    for _ in range(2):
        with pytest.raises(AlreadyDone) as repeat:
            await change(store, "k")
        assert (repeat.value.event, repeat.value.subject, repeat.value.at) == (event, subject, when)
    assert everything(store) == done
    assert len(requests_of(store)) == 1


@pytest.mark.parametrize("name", SECRET_CHANGES)
async def test_a_change_of_a_secret_with_a_key_happens_once(secrets: SecretStore, clock: Clock, name: str) -> None:
    change, event, subject = SECRET_CHANGES[name]
    await secrets.set("A", "first")
    await change(secrets, "k")
    when, done = clock.now, all_of(secrets)
    clock.now += 100
    with pytest.raises(AlreadyDone) as repeat:
        await change(secrets, "k")
    assert (repeat.value.event, repeat.value.subject, repeat.value.at) == (event, subject, when)
    assert all_of(secrets) == done


async def test_what_came_after_a_change_is_not_undone_by_its_repeat(store: TokenStore, secrets: SecretStore) -> None:
    await issue(store)
    await store.revoke_all(owner="ann", by="ann", idempotency_key="k")
    later = await issue(store)
    with pytest.raises(AlreadyDone):
        await store.revoke_all(owner="ann", by="ann", idempotency_key="k")
    assert (await store.get(later, owner="ann")).status == "active"
    await secrets.set("A", "one")
    await secrets.delete("A", by="ann", idempotency_key="k")
    await secrets.set("A", "two")
    with pytest.raises(AlreadyDone):
        await secrets.delete("A", by="ann", idempotency_key="k")
    assert await secrets.get_secret("A") == "two"


async def test_of_requests_that_come_at_once_one_makes_the_change(place: Place, clock: Clock) -> None:
    # Each with connections of its own, as another process has.
    stores = [TokenStore(place.database(), secret=SECRET, clock=clock) for _ in range(6)]
    others = [SecretStore(place.database(), encryption_key=KEY, environ={}, clock=clock) for _ in range(6)]
    for one in [*stores, *others]:
        await one.open()
    try:
        for name, (change, _, _) in TOKEN_CHANGES.items():
            await issue(stores[0])
            before = len(await stores[0].events(1, owner="ann"))
            answers = await asyncio.gather(*[change(one, name) for one in stores], return_exceptions=True)
            repeats = [answer for answer in answers if isinstance(answer, AlreadyDone)]
            assert len(repeats) == len(stores) - 1, (name, answers)
            assert len(await stores[0].events(1, owner="ann")) <= before + 1
        for name, (change, _, _) in SECRET_CHANGES.items():
            await others[0].set("A", "a new one")
            before = len(all_of(others[0]))
            answers = await asyncio.gather(*[change(one, name) for one in others], return_exceptions=True)
            assert sum(isinstance(answer, AlreadyDone) for answer in answers) == len(others) - 1, (name, answers)
            assert len(all_of(others[0])) <= before + 1
    finally:
        for one in [*stores, *others]:
            await one.close()


async def test_a_key_that_was_used_for_something_else_does_nothing(store: TokenStore, secrets: SecretStore) -> None:
    await issue(store)
    await store.issue("ann", by="ann", description="x", idempotency_key="k")
    before = everything(store)
    others: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.issue("ann", by="ann", description="y", idempotency_key="k"),
        lambda: store.issue("bob", by="ann", description="x", idempotency_key="k"),
        lambda: store.issue("ann", by="ann", description="x", restrictions=only("a"), idempotency_key="k"),
        lambda: store.issue("ann", by="ann", description="x", parent=1, idempotency_key="k"),
        lambda: store.rotate(1, owner="ann", by="ann", idempotency_key="k"),
        lambda: store.revoke(1, owner="ann", by="ann", idempotency_key="k"),
        lambda: store.revoke_all(owner="ann", by="ann", idempotency_key="k"),
    ]
    for other in others:
        with pytest.raises(IdempotencyKeyReused) as reused:
            await other()
        assert (reused.value.event, reused.value.subject) == ("created", 2)
        # Whoever sends it again may be another token of the same actor.
        assert "2" not in str(reused.value)
    await store.rotate(1, owner="ann", by="ann", grace=60, idempotency_key="r")
    arguments: list[dict[str, Any]] = [{"grace": 0}, {"grace": 60, "version": "x"}, {"grace": 60, "owner": ANY_OWNER}]
    for changed_ones in arguments:
        more: Any = {"owner": "ann", "by": "ann", "idempotency_key": "r", **changed_ones}
        with pytest.raises(IdempotencyKeyReused):
            await store.rotate(1, **more)
    with pytest.raises(IdempotencyKeyReused):
        await store.rotate(2, owner="ann", by="ann", grace=60, idempotency_key="r")
    assert everything(store)[0] != before[0]
    await secrets.set("A", "one", by="ann", idempotency_key="k")
    for changed in [
        secrets.set("A", "two", by="ann", idempotency_key="k"),
        secrets.set("A", "one", note="n", by="ann", idempotency_key="k"),
        secrets.set("B", "one", by="ann", idempotency_key="k"),
        secrets.set_note("A", "n", by="ann", idempotency_key="k"),
        secrets.delete("A", by="ann", idempotency_key="k"),
    ]:
        with pytest.raises(IdempotencyKeyReused):
            await changed
    assert len(all_of(secrets)) == 1


async def test_a_key_is_that_of_its_actor(store: TokenStore) -> None:
    for by in ("ann", "bob", None, "a", "nn"):
        await store.issue("ann", by=by, idempotency_key="k")
    await store.issue("ann", by="ann", idempotency_key="nk")
    await store.issue("ann", by="a", idempotency_key="nnk")
    assert len((await store.list(owner="ann")).items) == 7


async def test_a_change_that_failed_has_not_used_its_key(store: TokenStore, secrets: SecretStore) -> None:
    def refuse(_: object) -> None:
        raise OSError("the pipe is closed")

    with pytest.raises(OSError, match="pipe"):
        await store.issue("ann", by="ann", deliver=refuse, idempotency_key="k")
    with pytest.raises(InvalidInput):
        await store.issue("ann", by="ann", description="x" * 2_000, idempotency_key="k")
    assert requests_of(store) == []
    issued = await store.issue("ann", by="ann", idempotency_key="k")
    with pytest.raises(EditConflict):
        await store.rotate(issued.record.id, owner="ann", by="ann", version="old", idempotency_key="r")
    await store.rotate(issued.record.id, owner="ann", by="ann", idempotency_key="r")
    with pytest.raises(InvalidInput):
        await secrets.set("A", "", by="ann", idempotency_key="s")
    await secrets.set("A", "x", by="ann", idempotency_key="s")


async def test_a_key_is_forgotten_after_two_days_and_then_free(
    store: TokenStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.issue("ann", by="ann", idempotency_key="k")
    clock.now += idempotency.KEPT - 1
    with pytest.raises(AlreadyDone):
        await store.issue("ann", by="ann", idempotency_key="k")
    clock.now += 1
    await store.issue("ann", by="ann", idempotency_key="k")
    assert len(requests_of(store)) == 1
    # A clock that was set back keeps no key from being found.
    clock.now -= 10 * idempotency.KEPT
    with pytest.raises(AlreadyDone):
        await store.issue("ann", by="ann", idempotency_key="k")

    monkeypatch.setattr(idempotency, "KEPT_PER_ACTOR", 3)
    await store.issue("bob", by="bob", idempotency_key="of bob")
    for number in range(10):
        await store.issue("ann", by="ann", idempotency_key=f"k{number}")
    rows = run_sql(store, f"select actor_id, count(*) from {store.table}_requests group by 1 order by 1")
    assert [tuple(row) for row in rows] == [("ann", 3), ("bob", 1)]
    with pytest.raises(AlreadyDone):
        await store.issue("ann", by="ann", idempotency_key="k7")
    await store.issue("ann", by="ann", idempotency_key="k0")


async def test_neither_keys_nor_values_can_be_read_from_what_is_kept(store: TokenStore, secrets: SecretStore) -> None:
    content = b"a value of four digits: 4711"
    issued = await store.issue("ann", by="ann", idempotency_key="the-key-itself")
    await secrets.set("A", "4711", by="ann", idempotency_key=IdempotencyKey("the-key-itself", content))
    kept = repr([requests_of(store), requests_of(secrets)])
    for text in ("the-key-itself", "4711", issued.token, issued.token[-20:]):
        assert text not in kept
    # Whoever gets the file could try ten thousand values, if the digests were nothing but digests.
    for guess in (content, repr(("4711", None)).encode()):
        assert hashlib.blake2b(guess, digest_size=32).hexdigest() not in kept
    assert "4711" not in repr(IdempotencyKey("the-key-itself", content))
    assert "key-itself" not in repr(IdempotencyKey("the-key-itself", content))


@pytest.mark.parametrize("text", ["", "x" * 256, "é", "a\nb", "\x7f", "\0", 7, b"k", ["k"]])
async def test_what_cannot_be_a_key_is_refused(store: TokenStore, text: Any) -> None:
    for change, _, _ in TOKEN_CHANGES.values():
        with pytest.raises(InvalidInput, match="idempotency key"):
            await change(store, text)
    assert everything(store) == [[], []]


async def test_the_longest_names_have_room_for_their_tables(place: Place) -> None:
    async with TokenStore(place.database(), secret=SECRET, table="t" * 50) as store:
        await store.issue("ann", idempotency_key="x" * 255)
        with pytest.raises(AlreadyDone):
            await store.issue("ann", idempotency_key="x" * 255)


async def test_a_token_that_has_changed_is_rotated_and_revoked_on_purpose_only(store: TokenStore) -> None:
    first = (await store.issue("ann", description="x")).record
    second = (await store.rotate(1, owner="ann", version=first.version, grace=600)).record
    assert (second.version != first.version, second.edition == first.edition) == (True, True)
    edited = await store.edit(1, owner="ann", version=first.version, description="y")
    before = everything(store)
    for version in (first.version, second.version, first.edition, edited.edition, "", "0" * 16):
        with pytest.raises(EditConflict, match="changed meanwhile"):
            await store.rotate(1, owner="ann", version=version)
        with pytest.raises(EditConflict, match="changed meanwhile"):
            await store.revoke(1, owner="ann", version=version)
    assert everything(store) == before
    assert (await store.rotate(1, owner="ann", version=edited.version)).record.previous_until is None
    now = await store.get(1, owner="ann")
    # What has ended has ended: a second wish for it is fulfilled.
    for _ in range(2):
        assert (await store.revoke(1, owner="ann", version=now.version)).status == "revoked"
