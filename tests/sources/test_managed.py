"""Managed tokens as credentials: accepted only by their own row, as it is at the time of the request."""

from __future__ import annotations

import hmac
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import (
    Authenticated,
    Credential,
    ManagedTokens,
    Outcome,
    Reason,
    Rejected,
    Restrictions,
    TokenStore,
)
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.sources import managed
from asgi_token_auth.tokens.text import digest_nonce
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, only_sqlite, run_sql

pytestmark = pytest.mark.anyio


def told(outcome: Outcome) -> object:
    """The actor, or the reason."""
    return outcome.actor() if isinstance(outcome, Authenticated) else outcome and outcome.reason


async def check(source: ManagedTokens, token: str) -> object:
    return told(await source.authenticate(Credential(token)))


def legacy(value: Any, salt: str = "dsatok") -> str:
    """A token as datasette-auth-tokens makes it: ``Datasette.sign(id, "dsatok")``."""
    return "dsatok_" + str(URLSafeSerializer(SECRET, salt=salt).dumps(value))


async def test_a_token_brings_its_actor(store: TokenStore) -> None:
    limited = Restrictions().allow_all("view-table")
    plain = await store.issue("ann")
    restricted = await store.issue("bob", restrictions=limited, expires_after=60)
    source = ManagedTokens(store)
    assert await check(source, plain.token) == {"id": "ann", "token": "dsatok", "token_id": plain.record.id}
    outcome = await source.authenticate(Credential(restricted.token))
    assert isinstance(outcome, Authenticated)
    assert outcome.actor() == {
        "id": "bob",
        "token": "dsatok",
        "token_id": restricted.record.id,
        "_r": {"a": ["view-table"]},
    }
    assert (outcome.auth.token_id, outcome.auth.expires_at) == (restricted.record.id, restricted.record.expires_at)
    assert outcome.restrictions == limited


async def test_an_empty_set_of_restrictions_reaches_the_actor(store: TokenStore) -> None:
    issued = await store.issue("ann", restrictions=Restrictions())
    outcome = await ManagedTokens(store).authenticate(Credential(issued.token))
    assert isinstance(outcome, Authenticated)
    assert outcome.actor()["_r"] == {}


async def test_a_revoked_token_is_refused_at_once_by_everybody(store: TokenStore, place: Place) -> None:
    issued = await store.issue("ann")
    async with TokenStore(place.database(), secret=SECRET, clock=store.clock) as other:
        sources = [ManagedTokens(store), ManagedTokens(store), ManagedTokens(other)]
        for _ in range(3):
            for source in sources:
                assert isinstance(await check(source, issued.token), dict)
        await other.revoke(issued.record.id, owner="ann")
        assert [await check(source, issued.token) for source in sources] == [Reason.REVOKED] * 3


async def test_children_are_refused_with_their_parent(store: TokenStore) -> None:
    parent = await store.issue("ann")
    child = await store.issue("ann", parent=parent.record.id)
    source = ManagedTokens(store)
    assert isinstance(await check(source, child.token), dict)
    await store.revoke(parent.record.id, owner="ann")
    assert await check(source, child.token) is Reason.REVOKED


@pytest.mark.parametrize(("after", "accepted"), [(59, True), (59.999, True), (60, False), (61, False)])
@pytest.mark.parametrize("warm", [True, False], ids=["cached", "not cached"])
async def test_the_boundary_of_expiry(
    store: TokenStore, clock: Clock, after: float, accepted: bool, warm: bool
) -> None:
    issued = await store.issue("ann", expires_after=60)
    source = ManagedTokens(store)
    if warm:
        assert isinstance(await check(source, issued.token), dict)
    clock.now += after
    assert isinstance(await check(source, issued.token), dict) is accepted
    assert run_sql(store, f"select token_status, ended_timestamp from {store.table}") == [("A", None)]


@pytest.mark.parametrize("shift", [86_400, -86_400, 2**31, -2_000_000_000])
async def test_a_token_without_expiry_does_not_mind_the_clock(store: TokenStore, clock: Clock, shift: int) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    clock.now += shift
    assert isinstance(await check(source, issued.token), dict)
    assert isinstance(await check(source, issued.token), dict)


# A token belongs to its own row


@only_sqlite
async def test_a_row_id_that_is_used_again_opens_nothing(store: TokenStore) -> None:
    first = await store.issue("ann")
    source = ManagedTokens(store)
    assert isinstance(await check(source, first.token), dict)
    run_sql(store, f"delete from {store.table}")
    second = await store.issue("bob")
    assert second.record.id == first.record.id
    assert await check(source, first.token) is Reason.UNKNOWN_TOKEN
    assert await check(ManagedTokens(store), first.token) is Reason.UNKNOWN_TOKEN


async def test_a_second_instance_with_the_same_secret_does_not_take_the_token(store: TokenStore, place: Place) -> None:
    of_ann = await store.issue("ann")
    async with TokenStore(place.database("other"), secret=SECRET) as other:
        of_root = await other.issue("root")
        assert of_root.record.id == of_ann.record.id
        assert await check(ManagedTokens(other), of_ann.token) is Reason.UNKNOWN_TOKEN


async def test_a_token_issued_after_the_backup_is_no_token_of_what_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        kept = await store.issue("ann")
    shutil.copy(path, tmp_path / "backup.db")
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        lost = await store.issue("bob")
    os.replace(tmp_path / "backup.db", path)
    async with TokenStore(SQLite(path), secret=SECRET) as store:
        again = await store.issue("root")
        assert again.record.id == lost.record.id
        source = ManagedTokens(store)
        assert await check(source, lost.token) is Reason.UNKNOWN_TOKEN
        assert isinstance(await check(source, kept.token), dict)


async def test_a_database_that_is_made_anew_knows_no_old_token(place: Place) -> None:
    tokens = []
    for actor in ("ann", "root"):
        async with TokenStore(place.database(actor), secret=SECRET) as store:
            tokens.append((await store.issue(actor)).token)
            source = ManagedTokens(store)
            assert [isinstance(await check(source, token), dict) for token in tokens] == [False] * (len(tokens) - 1) + [
                True
            ]


async def test_a_token_of_the_predecessor_opens_no_row_of_ours(store: TokenStore) -> None:
    issued = await store.issue("ann")
    assert await check(ManagedTokens(store), legacy(issued.record.id)) is Reason.UNKNOWN_TOKEN


async def test_a_token_of_ours_opens_no_row_of_the_predecessor(store: TokenStore) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"update {store.table} set token_digest = null")
    assert await check(ManagedTokens(store), issued.token) is Reason.UNKNOWN_TOKEN
    assert isinstance(await check(ManagedTokens(store), legacy(issued.record.id)), dict)


@pytest.mark.parametrize(
    "value", ["1", True, 1.0, [1], {"id": 1}, None, 0, -1, 2**63, 2**70, [1, "x"], [1, None], "[1]"], ids=repr
)
async def test_a_well_signed_value_that_is_no_id_is_refused(store: TokenStore, value: Any) -> None:
    await store.issue("ann")
    run_sql(store, f"update {store.table} set token_digest = null")
    assert await check(ManagedTokens(store), legacy(value)) is Reason.BAD_SIGNATURE


async def test_only_the_canonical_text_is_accepted(store: TokenStore) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    assert isinstance(await check(source, issued.token), dict)
    last = issued.token[-1]
    spellings = [issued.token[:-1] + c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    spellings.remove(issued.token[:-1] + last)
    spellings += [issued.token + "=", issued.token + "==", issued.token + "!", issued.token[:-1], "dsatok_", "dsatok_."]
    for spelling in spellings:
        assert await check(source, spelling) is Reason.BAD_SIGNATURE


async def test_another_secret_signs_nothing_here_and_an_old_secret_still_does(
    store: TokenStore, tmp_path: Path
) -> None:
    issued = await store.issue("ann")
    database = store.database
    new = "another secret that is long enough"
    stranger = TokenStore(database, secret=new, clock=store.clock)
    rotated = TokenStore(database, secret=[SECRET, new], clock=store.clock)
    assert await check(ManagedTokens(stranger), issued.token) is Reason.BAD_SIGNATURE
    assert isinstance(await check(ManagedTokens(rotated), issued.token), dict)
    fresh = await rotated.issue("ann")
    assert await check(ManagedTokens(store), fresh.token) is Reason.BAD_SIGNATURE


# Rotation


async def test_the_text_before_a_rotation_works_until_its_deadline(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    nonce = "n" * 22
    run_sql(
        store,
        f"update {store.table} set previous_digest = token_digest, token_digest = ?, previous_until = ?",
        digest_nonce(nonce),
        int(clock.now) + 60,
    )
    source = ManagedTokens(store)
    new = store.text.build(issued.record.id, nonce)
    outcome = await source.authenticate(Credential(issued.token))
    assert isinstance(outcome, Authenticated)
    assert outcome.auth.expires_at == clock.now + 60
    clock.now += 59
    assert isinstance(await check(source, issued.token), dict)
    clock.now += 1
    assert await check(source, issued.token) is Reason.EXPIRED
    assert isinstance(await check(source, new), dict)
    await store.revoke(issued.record.id, owner="ann")
    assert await check(source, new) is Reason.REVOKED


async def test_a_rotated_token_of_the_predecessor_works_until_its_deadline_too(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"update {store.table} set previous_digest = '', previous_until = ?", int(clock.now) + 60)
    old, source = legacy(issued.record.id), ManagedTokens(store)
    assert isinstance(await check(source, old), dict)
    assert isinstance(await check(source, issued.token), dict)
    clock.now += 60
    assert await check(source, old) is Reason.EXPIRED
    assert isinstance(await check(source, issued.token), dict)


@pytest.mark.parametrize("until", ["null", "'9999999999'", "x'00'", "9e18"])
@only_sqlite
async def test_a_deadline_that_is_no_whole_number_has_passed(store: TokenStore, until: str) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"alter table {store.table} drop column previous_until")
    run_sql(store, f"alter table {store.table} add column previous_until")
    run_sql(
        store,
        f"update {store.table} set previous_digest = token_digest, token_digest = 'x', previous_until = {until}",
    )
    assert await check(ManagedTokens(store), issued.token) is Reason.EXPIRED


async def test_a_rotated_text_does_not_outlive_its_token(store: TokenStore, clock: Clock) -> None:
    issued = await store.issue("ann", expires_after=30)
    run_sql(
        store,
        f"update {store.table} set previous_digest = token_digest, token_digest = 'x', previous_until = ?",
        int(clock.now) + 60,
    )
    source = ManagedTokens(store)
    assert isinstance(await check(source, issued.token), dict)
    clock.now += 30
    assert await check(source, issued.token) is Reason.EXPIRED


# Damage


DAMAGE = [
    *(f"token_status = {value}" for value in ("'L'", "'Z'", "null", "'R '", "' A'", "'a'", "0", "x'41'", "''")),
    *(
        f"permissions = {value}"
        for value in (
            "null", "''", "'{'", "'[1]'", "'\"vt\"'", "'true'", "'0'", "'{\"a\": \"vt\"}'", "'{\"x\": []}'",
            "'{\"a\": [1]}'", "x'7b7d'", "1", "cast(x'ff' as text)", "'NaN'", "printf('%.*c', 20000, '[')",
        )
    ),
    *(f"actor_id = {value}" for value in ("null", "''", "x'616e6e'", "cast(x'ff' as text)")),
    *(f"created_timestamp = {value}" for value in ("null", "'abc'", "1.5", "x'00'", "cast(x'ff' as text)")),
    *(f"expires_after_seconds = {value}" for value in ("'abc'", "1.5", "x'00'", "'soon'")),
    *(f"token_digest = {value}" for value in ("''", "x'00'", "'short'", "cast(x'ff' as text)", "'é'", "5")),
    *(f"ended_timestamp = {value}" for value in ("1", "0", "'abc'", "x'00'")),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("warm", [True, False], ids=["cached", "not cached"])
@only_sqlite
async def test_a_damaged_row_refuses_its_own_token_and_no_other(store: TokenStore, damage: str, warm: bool) -> None:
    victim = await store.issue("ann", expires_after=1_000)
    bystander = await store.issue("bob")
    source = ManagedTokens(store)
    if warm:
        assert isinstance(await check(source, victim.token), dict)
    run_sql(store, f"update {store.table} set {damage} where id = {victim.record.id}")
    for _ in range(2):
        assert isinstance(await source.authenticate(Credential(victim.token)), Rejected)
        assert isinstance(await check(source, bystander.token), dict)


async def test_a_damaged_row_is_named_in_the_log(store: TokenStore, caplog: pytest.LogCaptureFixture) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"update {store.table} set permissions = '{{'")
    assert await check(ManagedTokens(store), issued.token) is Reason.DAMAGED
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert f"token {issued.record.id}" in caplog.text


async def test_a_status_of_the_first_releases_that_comes_back_never_lives_for_ever(
    store: TokenStore, clock: Clock
) -> None:
    issued = await store.issue("ann", expires_after=60)
    run_sql(store, f"update {store.table} set token_status = 'L'")
    clock.now += 50 * 366 * 86_400
    assert isinstance(await ManagedTokens(store).authenticate(Credential(issued.token)), Rejected)


@pytest.mark.parametrize("change", ["last_used_timestamp = 'x'", "description = x'ff'", "secret_version = 'y'"])
@only_sqlite
async def test_columns_that_decide_nothing_may_hold_anything(store: TokenStore, change: str) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"update {store.table} set {change}")
    assert isinstance(await check(ManagedTokens(store), issued.token), dict)


async def test_a_row_that_changes_its_mind_is_believed_each_time(store: TokenStore) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    for actor in ("bob", "eve", "bob"):
        run_sql(store, f"update {store.table} set actor_id = ?", actor)
        outcome = await source.authenticate(Credential(issued.token))
        assert isinstance(outcome, Authenticated)
        assert outcome.actor()["id"] == actor
    # The last are too long to be remembered as they are.
    for actions in (["vt"], ["vd"], ["vt"] * 99 + ["vd"], ["vt"] * 99 + ["vi"]):
        run_sql(store, f"update {store.table} set permissions = ?", json.dumps({"a": actions}))
        outcome = await source.authenticate(Credential(issued.token))
        assert isinstance(outcome, Authenticated)
        assert outcome.actor()["_r"] == {"a": actions}


# Memory


async def test_what_nobody_signed_is_neither_looked_up_nor_remembered(store: TokenStore) -> None:
    asked: list[int] = []
    source = ManagedTokens(store)
    fetch = source.lookup.fetch

    async def counted(row_id: int) -> Any:
        asked.append(row_id)
        return await fetch(row_id)

    source.lookup.fetch = counted  # type: ignore[method-assign]
    for number in range(50):
        assert await check(source, f"dsatok_WzEsIm4iXQ.{number:043d}") is Reason.BAD_SIGNATURE
    unknown = store.text.build(99, "n" * 22)
    assert await check(source, unknown) is Reason.UNKNOWN_TOKEN
    assert asked == [99]
    assert not source._young
    assert not source._old


@only_sqlite
async def test_a_token_is_read_from_the_database_once_while_nothing_changes(store: TokenStore) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    asked: list[int] = []
    fetch = source.lookup.fetch

    async def counted(row_id: int) -> Any:
        asked.append(row_id)
        return await fetch(row_id)

    source.lookup.fetch = counted  # type: ignore[method-assign]
    for _ in range(10):
        assert isinstance(await check(source, issued.token), dict)
    assert asked == [issued.record.id]
    await store.issue("bob")
    for _ in range(10):
        assert isinstance(await check(source, issued.token), dict)
    assert asked == [issued.record.id] * 2


async def test_a_token_that_is_not_remembered_costs_one_signature(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = [await store.issue("ann") for _ in range(5)]
    checked: list[bytes] = []
    digest = hmac.digest

    def counted(key: bytes, message: bytes, name: str) -> bytes:
        checked.append(message)
        return digest(key, message, name)

    monkeypatch.setattr(hmac, "digest", counted)
    source = ManagedTokens(store)
    for token in issued:
        for _ in range(2):
            assert isinstance(await check(source, token.token), dict)
    assert len(checked) == len(issued)


async def test_the_memory_is_bounded_and_what_falls_out_is_read_again(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed, "CACHE_SIZE", 3)
    issued = [await store.issue(f"actor{number}") for number in range(10)]
    source = ManagedTokens(store)
    for _ in range(2):
        for token in issued:
            assert isinstance(await check(source, token.token), dict)
            assert len(source._young) + len(source._old) <= 6
    await store.revoke(issued[8].record.id, owner="actor8")
    assert await check(source, issued[8].token) is Reason.REVOKED


async def test_a_closed_source_opens_again_on_demand(store: TokenStore) -> None:
    issued = await store.issue("ann")
    source = ManagedTokens(store)
    assert isinstance(await check(source, issued.token), dict)
    await store.close()
    assert isinstance(await check(source, issued.token), dict)
    await store.open()


def test_two_threads_with_event_loops_of_their_own_share_one_middleware(tmp_path: Path) -> None:
    """One SQLite connection in two threads would end the process without a word."""
    script = tmp_path / "threads.py"
    script.write_text(_TWO_THREADS)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1600 accepted, 1 refused\n", "")


_TWO_THREADS = """
import asyncio, threading
from asgi_token_auth import Authenticated, Credential, ManagedTokens, TokenStore
from asgi_token_auth.databases.sqlite import SQLite

store = TokenStore(SQLite("tokens.db"), secret="a secret for two threads")
source = ManagedTokens(store)

async def prepare():
    async with store:
        return [(await store.issue("alice")).token for _ in range(20)]

tokens = asyncio.run(prepare())
accepted = []

def work():
    async def run():
        async with store:
            for _ in range(20):
                for token in tokens:
                    accepted.append(isinstance(await source.authenticate(Credential(token)), Authenticated))
                await store.get(1, owner="alice")
    asyncio.run(run())

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()

async def end():
    async with store:
        await store.revoke(1, owner="alice")
        return await source.authenticate(Credential(tokens[0]))

refused = not isinstance(asyncio.run(end()), Authenticated)
print(sum(accepted), "accepted,", int(refused), "refused")
"""


async def test_the_memory_is_bounded_by_what_tokens_hold_too(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Restrictions(all=tuple(f"action-{number:03}" for number in range(50)))
    size = len(json.dumps(long.to_wire()))
    monkeypatch.setattr(managed, "CACHE_PERMISSIONS", 3 * size)
    issued = [await store.issue(f"actor{number}", restrictions=long) for number in range(10)]
    source = ManagedTokens(store)
    for _ in range(2):
        for token in issued:
            assert isinstance(await check(source, token.token), dict)
            remembered = [*source._young.values(), *source._old.values()]
            assert sum(entry.row_size for entry in remembered) <= 6 * size
            assert source._size == sum(entry.row_size for entry in source._young.values())
    await store.edit(issued[9].record.id, owner="actor9", restrictions=Restrictions())
    await store.revoke(issued[8].record.id, owner="actor8")
    for token in issued[7:]:
        await check(source, token.token)
    assert source._size == sum(entry.row_size for entry in source._young.values())
    assert len(source._young) > 0


async def test_a_damaged_row_that_is_asked_for_often_is_logged_once(
    store: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    issued = await store.issue("ann")
    run_sql(store, f"update {store.table} set permissions = '{{' where id = 1")
    source = ManagedTokens(store)
    for _ in range(20):
        assert await check(source, issued.token) is Reason.DAMAGED
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"a token is refused because its row is damaged: token 1 in {store.table}"
    ]
