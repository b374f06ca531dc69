"""Managed tokens from code: issued, listed, changed and ended."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, assert_type

from asgi_token_auth import (
    ANY_OWNER,
    KEEP,
    AlreadyDone,
    Family,
    IdempotencyKey,
    IssuedToken,
    Page,
    Restrictions,
    StoredEvent,
    TokenRecord,
    TokenStore,
)
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite

SECRET = "keep-this-secret-and-the-same-everywhere"

in_postgres = TokenStore(
    Postgres("postgresql://tokens@db.internal/tokens", schema="auth", pool_size=8, allow_stale_reads=True),
    secret=SECRET,
    max_expires_after=365 * 86_400,
)


def deliver(issued: IssuedToken) -> None:
    print(issued.token)


async def issue() -> None:
    async with TokenStore(SQLite(Path("tokens.db")), secret=[SECRET], record_addresses=True) as store:
        assert_type(store, TokenStore)
        issued = await store.issue("alice", description="backup script", expires_after=90 * 86_400)
        assert_type(issued, IssuedToken)
        assert_type(issued.token, str)
        assert_type(issued.record, TokenRecord)
        assert_type(issued.record.version, str)
        await store.issue(
            "alice",
            by="root",
            parent=issued.record.id,
            expires_after=timedelta(hours=1),
            restrictions=Restrictions().allow_all("view-instance"),
            deliver=deliver,
        )
        assert_type(await store.rotate(issued.record.id, owner="alice", grace=timedelta(hours=1)), IssuedToken)


async def look(store: TokenStore) -> None:
    record = await store.get(7, owner="alice")
    assert_type(record.id, int)
    assert_type(record.actor_id, str)
    assert_type(record.status, Literal["active", "revoked", "expired", "damaged"])
    assert_type(record.restrictions, Restrictions | None)
    assert_type(record.expires_at, int | None)
    page = await store.list(owner=ANY_OWNER, status="active", search="backup", limit=10)
    assert_type(page, Page)
    assert_type(page.items, list[TokenRecord])
    assert_type(page.next_cursor, int | None)
    await store.list(owner=Family("alice", 7), cursor=page.next_cursor, used_before=1_700_000_000)
    events = await store.events(7, owner=ANY_OWNER, latest=3)
    assert_type(events, Sequence[StoredEvent])
    assert_type(events[0].at, int | None)
    assert_type(await store.state(), Literal["ready", "outdated", "absent"])


async def change(store: TokenStore) -> None:
    record = await store.edit(7, owner="alice", description=None, expires_after=3_600.5, restrictions=KEEP)
    assert_type(record, TokenRecord)
    await store.issue("ann", idempotency_key=IdempotencyKey("k", b"what was sent"))
    await store.rotate(7, owner=ANY_OWNER, version=record.version, idempotency_key="k")
    try:
        await store.revoke(7, owner=ANY_OWNER, version=record.version, idempotency_key="k")
    except AlreadyDone as done:
        assert_type(done.subject, int | None)
    await store.edit(7, owner=ANY_OWNER, by="root", restrictions=None, version=record.version)
    assert_type(await store.revoke(7, owner="alice", by="root"), TokenRecord)
    assert_type(await store.revoke_all(owner="alice"), int)
    assert_type(await store.prune(ended_before=1_700_000_000, dry_run=True), int)
    for token in await store.import_tokens(SQLite("old.db", create=False), dry_run=True):
        assert_type(token.imported, bool)


async def mistakes(store: TokenStore) -> None:
    # Nobody reaches everybody's tokens by leaving something out.
    await store.revoke(7)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await store.list(owner=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.get("7", owner="alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.issue("alice", restrictions={"a": ["view-instance"]})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.issue("alice", expires_after="90d")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(await store.issue("alice").token)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownArgumentType,reportUnknownMemberType]
    (await store.get(7, owner="alice")).status = "active"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    TokenStore("tokens.db", secret=SECRET)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TokenStore(SQLite("tokens.db"), SECRET)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SQLite("tokens.db", journal_mode="memory")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Postgres("postgresql://db.internal/app", pool_size="8")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
