"""Edits, rotations, ends and pruning, and how far each may reach."""

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
    EditConflict,
    InvalidInput,
    ManagedTokens,
    Rejected,
    Restrictions,
    TokenNotFound,
    TokenStore,
)
from asgi_token_auth.authentication import Reason
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.signing import SigningSecrets, TokenSigner
from asgi_token_auth.tokens.changes import MAX_FAMILY
from asgi_token_auth.tokens.record import MAX_GRACE, MAX_PERMISSIONS, Family
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, only_sqlite, run_sql
from tests.support.tokens import everything, issue, listed, names_of_events, only

pytestmark = pytest.mark.anyio


VT, IR, ES = "view-table", "insert-row", "execute-sql"


async def accepts(store: TokenStore, token: str) -> bool:
    return isinstance(await ManagedTokens(store).authenticate(Credential(token)), Authenticated)


# Edit


async def test_an_edit_changes_what_it_names_and_nothing_else(store: TokenStore, clock: Clock) -> None:
    token_id = await issue(store, description="old", expires_after=100, restrictions=only(VT))
    clock.now += 10
    assert (await store.edit(token_id, owner="ann", description="new")).description == "new"
    longer = await store.edit(token_id, owner="ann", expires_after=timedelta(seconds=500), by="bob")
    assert (longer.description, longer.expires_at, longer.restrictions) == ("new", clock.now + 500, only(VT))
    wider = await store.edit(token_id, owner="ann", restrictions=only(VT, IR))
    assert wider.restrictions == only(VT, IR)
    free = await store.edit(token_id, owner="ann", description=None, expires_after=None, restrictions=None)
    assert (free.description, free.expires_at, free.restrictions) == (None, None, None)
    events = await store.events(token_id, owner="ann")
    assert [(event.name, event.by, event.details) for event in events] == [
        ("created", None, None),
        ("edited", None, "description"),
        ("edited", "bob", "expiry"),
        ("edited", None, "restrictions"),
        ("edited", None, "description, restrictions, expiry"),
    ]


async def test_an_edit_that_changes_nothing_leaves_no_event(store: TokenStore) -> None:
    token_id = await issue(store, description="x", restrictions=only(VT))
    before = everything(store)
    await store.edit(token_id, owner="ann")
    await store.edit(token_id, owner="ann", description="x", restrictions=only(VT), expires_after=None)
    assert everything(store) == before


async def test_an_edit_of_what_has_changed_meanwhile_is_refused(store: TokenStore) -> None:
    token_id = await issue(store, description="x", restrictions=only(VT, IR), expires_after=100)
    read = await store.get(token_id, owner="ann")
    changes: list[dict[str, Any]] = [{"restrictions": only(VT)}, {"description": "y"}, {"expires_after": 50}]
    for change in changes:
        seen = (await store.get(token_id, owner="ann")).version
        assert (await store.edit(token_id, owner="ann", version=seen, **change)).version != seen
        before = everything(store)
        for version in (read.version, seen, "", "0" * 16):
            with pytest.raises(EditConflict):
                await store.edit(token_id, owner="ann", description="z", version=version)
        assert everything(store) == before
    # What was there at first is there again, so it is what was read.
    await store.edit(token_id, owner="ann", description="x", expires_after=100, restrictions=only(VT, IR))
    assert (await store.edit(token_id, owner="ann", version=read.version, description="z")).description == "z"


async def test_neither_use_nor_rotation_stands_in_the_way_of_an_edit(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann", expires_after=100)
    await ManagedTokens(store).authenticate(Credential(issued.token))
    await store.flush()
    clock.now += 10
    await store.rotate(issued.record.id, owner="ann", grace=60)
    edited = await store.edit(issued.record.id, owner="ann", version=issued.record.version, description="x")
    assert edited.description == "x"


async def test_a_token_that_was_narrowed_with_its_parent_has_changed(store: TokenStore) -> None:
    parent = await issue(store)
    child = (await store.issue("ann", parent=parent, restrictions=only(VT, IR))).record
    await store.edit(parent, owner="ann", restrictions=only(VT))
    with pytest.raises(EditConflict):
        await store.edit(child.id, owner="ann", description="x", version=child.version)


async def test_an_edited_token_is_judged_anew_at_its_next_request(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    before = await source.authenticate(Credential(issued.token))
    assert isinstance(before, Authenticated)
    assert before.restrictions is None
    await store.edit(issued.record.id, owner="ann", restrictions=Restrictions(), expires_after=5)
    after = await source.authenticate(Credential(issued.token))
    assert isinstance(after, Authenticated)
    assert after.restrictions == Restrictions()
    clock.now += 5
    assert await source.authenticate(Credential(issued.token)) == Rejected(Reason.EXPIRED, 1)


async def test_narrowing_a_token_narrows_all_that_were_created_through_it(store: TokenStore, clock: Clock) -> None:
    parent = await issue(store, restrictions=only(VT, IR, ES), expires_after=1_000)
    within = Restrictions().allow_resource("d", "t", VT)
    children = [
        await issue(store, parent=parent, restrictions=only(VT, IR), expires_after=900),
        await issue(store, parent=parent, restrictions=within, expires_after=90),
    ]
    grandchild = await issue(store, parent=children[0], restrictions=only(IR), expires_after=800)
    ended = await issue(store, parent=parent, restrictions=only(IR), expires_after=900)
    await store.revoke(ended, owner="ann")
    other = await issue(store, restrictions=only(IR))
    await store.edit(parent, owner="ann", by="bob", restrictions=only(VT), expires_after=100)
    tokens = {token.id: token for token in (await store.list(owner="ann")).items}
    assert (tokens[children[0]].restrictions, tokens[children[0]].expires_at) == (only(VT), clock.now + 100)
    assert (tokens[children[1]].restrictions, tokens[children[1]].expires_at) == (within, clock.now + 90)
    assert (tokens[grandchild].restrictions, tokens[grandchild].expires_at) == (Restrictions(), clock.now + 100)
    assert (tokens[ended].restrictions, tokens[other].restrictions) == (only(IR), only(IR))
    events = await store.events(grandchild, owner="ann")
    assert [(event.name, event.by, event.details) for event in events][1:] == [
        ("edited", "bob", "narrowed with token 1")
    ]
    assert await names_of_events(store, children[1]) == ["created"]
    assert await names_of_events(store, other) == ["created"]


async def test_narrowing_ends_a_child_whose_expiry_cannot_be_written_down(store: TokenStore) -> None:
    parent = await issue(store)
    child = await issue(store, parent=parent)
    run_sql(store, f"update {store.table} set created_timestamp = null where id = ?", child)
    await store.edit(parent, owner="ann", expires_after=60)
    assert (await store.get(child, owner="ann")).status == "revoked"


async def test_widening_a_token_widens_none_of_its_children(store: TokenStore) -> None:
    parent = await issue(store, restrictions=only(VT))
    child = await issue(store, parent=parent, restrictions=only(VT))
    await store.edit(parent, owner="ann", restrictions=None)
    assert (await store.get(child, owner="ann")).restrictions == only(VT)


@pytest.mark.parametrize(
    "change", [{"restrictions": only(IR)}, {"restrictions": None}, {"expires_after": None}], ids=repr
)
async def test_widening_is_bounded_by_the_parent(store: TokenStore, change: dict[str, Any]) -> None:
    parent = await issue(store, restrictions=only(VT), expires_after=100)
    child = await issue(store, parent=parent, restrictions=Restrictions(), expires_after=10)
    before = everything(store)
    with pytest.raises(InvalidInput):
        await store.edit(child, owner="ann", **change)
    with pytest.raises(InvalidInput):
        await store.edit(child, owner="ann", expires_after=101)
    assert everything(store) == before
    wide = await store.edit(child, owner="ann", restrictions=only(VT), expires_after=100)
    assert wide.restrictions == only(VT)


@pytest.mark.parametrize("created", [-(2**63) + 1, 2**63 - 1])
async def test_a_time_that_no_calendar_has_stops_nothing_else(store: TokenStore, created: int) -> None:
    parent = await issue(store)
    child = await issue(store, parent=parent)
    expiring = await issue(store, expires_after=10)
    run_sql(store, f"update {store.table} set created_timestamp = ? where id in ({child}, {expiring})", created)
    run_sql(store, f"update {store.table} set expires_after_seconds = created_timestamp where id = {expiring}")
    newest = await issue(store)
    for status in ("active", "revoked", "expired"):
        for owner in ("ann", ANY_OWNER):
            found = await listed(store, owner=owner, status=status)
            assert (newest in found) == (status == "active"), status
            assert expiring not in found or status == ("expired" if created < 0 else "active")
    assert await store.prune(ended_before=1, dry_run=True) == (created < 0)
    if created < 0:
        with pytest.raises(InvalidInput, match="expiry cannot be changed"):
            await store.edit(child, owner="ann", expires_after=60)
        await store.edit(parent, owner="ann", expires_after=60)
        assert (await store.get(child, owner="ann")).status == "revoked", "it could not be narrowed, so it is ended"


async def test_a_token_whose_parent_is_gone_gets_a_new_description_but_no_new_limits(store: TokenStore) -> None:
    child = await issue(store, parent=await issue(store))
    run_sql(store, f"delete from {store.table} where id = 1")
    with pytest.raises(InvalidInput, match="is gone"):
        await store.edit(child, owner="ann", restrictions=only(VT))
    assert (await store.edit(child, owner="ann", description="x")).description == "x"


async def test_a_token_that_has_ended_cannot_be_edited_or_rotated(store: TokenStore, clock: Clock) -> None:
    revoked, expired, damaged = [await issue(store, expires_after=10) for _ in range(3)]
    await store.revoke(revoked, owner="ann")
    clock.now += 5
    run_sql(store, f"update {store.table} set permissions = '{{' where id = ?", damaged)
    clock.now += 5
    before = everything(store)
    for token_id, status in ((revoked, "revoked"), (expired, "expired"), (damaged, "damaged")):
        with pytest.raises(InvalidInput, match=f"This token is {status}"):
            await store.edit(token_id, owner="ann", description="x", expires_after=None)
        with pytest.raises(InvalidInput, match=f"This token is {status}"):
            await store.rotate(token_id, owner="ann")
    assert everything(store) == before


@pytest.mark.parametrize(
    "arguments",
    [
        *({"description": bad} for bad in [5, b"x", "x" * 1_001, "a\0b", "\ud800", ["x"]]),
        *({"expires_after": bad} for bad in [0, -1, True, "60", float("nan"), float("inf"), 10**30, [1]]),
        *({"restrictions": bad} for bad in [{}, "vt", [], 5, True]),
        {"restrictions": only("a\0b")},
        {"restrictions": only("x" * MAX_PERMISSIONS)},
        {"by": ""},
        {"by": 5},
        {"owner": None},
        {"owner": 5},
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_an_unusable_argument_of_an_edit_changes_nothing(store: TokenStore, arguments: dict[str, Any]) -> None:
    token_id = await issue(store, description="d")
    before = everything(store)
    with pytest.raises(InvalidInput):
        await store.edit(token_id, **{"owner": "ann", "description": "x", **arguments})
    if "restrictions" in arguments:
        with pytest.raises(InvalidInput):
            await store.issue("ann", **arguments)
    assert everything(store) == before


# Rotate


async def test_a_rotated_token_is_the_same_token_with_another_text(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann", description="d", restrictions=only(VT), expires_after=900)
    rotated = await store.rotate(issued.record.id, owner="ann", by="bob", grace=60)
    assert rotated.token != issued.token
    assert rotated.record.previous_until == clock.now + 60
    same = ("id", "actor_id", "status", "description", "restrictions", "created_at", "expires_at")
    assert all(getattr(rotated.record, name) == getattr(issued.record, name) for name in same)
    events = await store.events(1, owner="ann")
    assert [(event.name, event.by) for event in events] == [("created", None), ("rotated", "bob")]


async def test_both_texts_work_until_the_deadline_and_then_only_the_new_one(store: TokenStore, clock: Clock) -> None:
    old = await store.issue("ann")
    new = await store.rotate(1, owner="ann", grace=60)
    source = ManagedTokens(store)
    for seconds, works in ((0, True), (59.999, True), (60, False), (61, False)):
        clock.now = old.record.created_at + seconds if old.record.created_at else 0
        assert isinstance(await source.authenticate(Credential(new.token)), Authenticated)
        assert isinstance(await source.authenticate(Credential(old.token)), Authenticated) is works, seconds
        assert await accepts(store, old.token) is works, seconds


async def test_a_rotation_without_grace_ends_the_old_text_at_once_and_the_one_before_it(store: TokenStore) -> None:
    first = await store.issue("ann")
    second = await store.rotate(1, owner="ann", grace=MAX_GRACE)
    assert await accepts(store, first.token)
    third = await store.rotate(1, owner="ann", grace=0)
    assert [await accepts(store, text.token) for text in (first, second, third)] == [False, False, True]


async def test_a_second_rotation_keeps_the_last_two_texts_only(store: TokenStore) -> None:
    texts = [await store.issue("ann")]
    texts += [await store.rotate(1, owner="ann", grace=60) for _ in range(2)]
    assert [await accepts(store, text.token) for text in texts] == [False, True, True]


async def test_a_token_of_the_predecessor_can_be_rotated_too(store: TokenStore, clock: Clock) -> None:
    import hashlib

    await issue(store)
    run_sql(store, f"update {store.table} set token_digest = null")
    signer = TokenSigner(SigningSecrets([SECRET]), salt="dsatok", digest=hashlib.sha1)
    legacy = "dsatok_" + signer.sign(1)
    assert await accepts(store, legacy)
    new = await store.rotate(1, owner="ann", grace=60)
    assert [await accepts(store, legacy), await accepts(store, new.token)] == [True, True]
    clock.now += 60
    assert [await accepts(store, legacy), await accepts(store, new.token)] == [False, True]
    await store.rotate(1, owner="ann")
    assert not await accepts(store, legacy)


async def test_neither_text_outlives_the_token(store: TokenStore, clock: Clock) -> None:
    old = await store.issue("ann", expires_after=30)
    new = await store.rotate(1, owner="ann", grace=60)
    clock.now += 30
    assert [await accepts(store, text.token) for text in (old, new)] == [False, False]
    other = await store.issue("ann")
    await store.rotate(other.record.id, owner="ann", grace=60)
    await store.revoke(other.record.id, owner="ann")
    assert not await accepts(store, other.token)


@pytest.mark.parametrize(
    "grace",
    [-1, True, "60", None, float("nan"), float("inf"), MAX_GRACE + 1, timedelta(days=-1), 10**30, [1]],
    ids=repr,
)
async def test_an_unusable_grace_leaves_the_old_text_alone(store: TokenStore, grace: Any) -> None:
    issued = await store.issue("ann")
    before = everything(store)
    with pytest.raises(InvalidInput):
        await store.rotate(1, owner="ann", grace=grace)
    assert everything(store) == before
    assert await accepts(store, issued.token)


# Revoke all, prune, events


async def test_revoking_all_ends_the_active_tokens_of_one_actor(store: TokenStore, clock: Clock) -> None:
    one, two = await issue(store), await issue(store)
    expired = await issue(store, expires_after=1)
    of_bob = await issue(store, "bob")
    await store.revoke(two, owner="ann")
    clock.now += 1
    assert await store.revoke_all(owner="ann", by="eve") == 1
    assert await store.revoke_all(owner="ann", by="eve") == 0
    statuses = [(await store.get(i, owner=ANY_OWNER)).status for i in (one, two, expired, of_bob)]
    assert statuses == ["revoked", "revoked", "expired", "active"]
    assert [(e.name, e.by) for e in await store.events(one, owner="ann")] == [("created", None), ("revoked", "eve")]
    assert await store.revoke_all(owner=ANY_OWNER) == 1


@pytest.mark.parametrize(
    "arguments", [{"owner": None}, {"owner": ""}, {"owner": 5}, {"owner": "ann", "by": 5}], ids=repr
)
async def test_revoking_all_of_nobody_ends_nothing(store: TokenStore, arguments: dict[str, Any]) -> None:
    await issue(store)
    with pytest.raises(InvalidInput):
        await store.revoke_all(**arguments)
    assert (await store.get(1, owner="ann")).status == "active"


@only_sqlite
async def test_prune_deletes_what_ended_before_and_its_events_and_nothing_else(store: TokenStore, clock: Clock) -> None:
    revoked, _expired, later, active, damaged, spoilt = [
        await issue(store, expires_after=life) for life in (None, 10, 500, None, 10, None)
    ]
    await store.revoke(revoked, owner="ann")
    run_sql(store, f"update {store.table} set expires_after_seconds = 'soon' where id = ?", damaged)
    run_sql(store, f"update {store.table} set ended_timestamp = 'soon' where id = ?", spoilt)
    clock.now += 100
    newest = await issue(store)
    await store.revoke(newest, owner="ann")
    clock.now += 1_000
    before = everything(store)
    border = clock.now - 1_000
    assert await store.prune(ended_before=border, dry_run=True) == 2
    assert everything(store) == before
    assert await store.prune(ended_before=border) == 2
    assert await listed(store) == [newest, spoilt, damaged, active, later]
    events = run_sql(store, f"select distinct token_id from {store.table}_events order by 1")
    assert [token_id for (token_id,) in events] == [later, active, damaged, spoilt, newest]
    assert await store.prune(ended_before=border) == 0


async def test_prune_keeps_the_highest_id_so_that_none_is_given_twice(store: TokenStore, clock: Clock) -> None:
    for _ in range(3):
        await store.revoke(await issue(store), owner="ann")
    clock.now += 10
    assert await store.prune(ended_before=clock.now + 1_000) == 2
    assert await listed(store) == [3]
    assert await issue(store) == 4


async def test_prune_never_takes_what_ends_at_this_second_or_later(store: TokenStore, clock: Clock) -> None:
    await issue(store, expires_after=10)
    await issue(store)
    clock.now += 10
    assert await store.prune(ended_before=10**400) == 0
    clock.now += 1
    assert await store.prune(ended_before=float("inf")) == 1


@pytest.mark.parametrize("when", [None, True, "5", float("nan"), float("-inf"), -1, -(10**400), [5]], ids=repr)
async def test_an_unusable_time_prunes_nothing(store: TokenStore, clock: Clock, when: Any) -> None:
    await store.revoke(await issue(store), owner="ann")
    await issue(store)
    clock.now += 10
    with pytest.raises(InvalidInput):
        await store.prune(ended_before=when)
    assert await listed(store) == [2, 1]


# Families


async def test_a_token_as_an_owner_reaches_itself_and_its_descendants_only(store: TokenStore) -> None:
    above = await issue(store)
    token = await issue(store, parent=above)
    child = await issue(store, parent=token)
    grandchild = await issue(store, parent=child)
    sibling = await issue(store, parent=above)
    family = Family("ann", token)
    assert await listed(store, owner=family) == [grandchild, child, token]
    for token_id in (above, sibling):
        for call in (store.get, store.revoke, store.edit, store.rotate, store.events):
            with pytest.raises(TokenNotFound):
                await call(token_id, owner=family)
    assert (await store.get(grandchild, owner=family)).id == grandchild
    assert await store.revoke_all(owner=family) == 3
    assert [(await store.get(i, owner="ann")).status for i in (above, sibling)] == ["active", "active"]


async def test_a_token_as_an_owner_reaches_nothing_of_another_actor(store: TokenStore) -> None:
    token = await issue(store)
    child = await issue(store, parent=token)
    run_sql(store, f"update {store.table} set actor_id = 'bob' where id = ?", child)
    assert await listed(store, owner=Family("ann", token)) == [token]
    assert await listed(store, owner=Family("bob", token)) == [child]
    assert await listed(store, owner=Family("eve", token)) == []
    assert await store.revoke_all(owner=Family("ann", token)) == 1
    assert (await store.get(child, owner="bob")).status == "active"


async def test_a_ring_of_parents_is_a_family_that_ends(store: TokenStore) -> None:
    one = await issue(store)
    two = await issue(store, parent=one)
    run_sql(store, f"update {store.table} set parent_id = ? where id = ?", two, one)
    assert await listed(store, owner=Family("ann", one)) == [two, one]
    await store.edit(one, owner="ann", description="x")


@pytest.mark.parametrize("token_id", [0, -1, 2**63, True, "1", None, 1.0], ids=repr)
async def test_what_is_no_token_has_no_family(store: TokenStore, token_id: Any) -> None:
    await issue(store)
    with pytest.raises(TokenNotFound):
        await store.list(owner=Family("ann", token_id))


# Limits


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "60"], ids=repr)
def test_a_limit_of_life_is_whole_seconds(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(ConfigurationError):
        TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, max_expires_after=limit)


async def test_no_token_gets_more_life_than_the_limit(place: Place, clock: Clock) -> None:
    database = place.database()
    async with (
        TokenStore(database, secret=SECRET, clock=clock, max_expires_after=60) as store,
        TokenStore(database, secret=SECRET, clock=clock) as unlimited,
    ):
        assert (await store.issue("ann", expires_after=60)).record.expires_at == clock.now + 60
        for life in (None, 61, timedelta(days=1)):
            with pytest.raises(InvalidInput, match="at most 60 seconds"):
                await store.issue("ann", expires_after=life)
            with pytest.raises(InvalidInput, match="at most 60 seconds"):
                await store.edit(1, owner="ann", expires_after=life)
        old = await issue(unlimited)
        # What is older than the limit goes on as it was, until its expiry is touched.
        assert (await store.edit(old, owner="ann", description="x")).expires_at is None


async def test_only_so_many_active_tokens_come_from_one(store: TokenStore, clock: Clock) -> None:
    first = await issue(store)
    await issue(store, parent=first, expires_after=100)
    newest = await issue(store, parent=first)
    for _ in range(MAX_FAMILY - 3):
        # A chain and a crowd are one family.
        newest = await issue(store, parent=newest if newest % 3 else first)
    before = everything(store)
    for parent in (first, newest):
        with pytest.raises(InvalidInput, match="may come from one"):
            await issue(store, parent=parent)
    assert everything(store) == before
    assert await issue(store) > newest
    clock.now += 100
    assert await issue(store, parent=first) > newest
