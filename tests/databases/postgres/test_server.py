"""What may happen to a PostgreSQL server: 503 in time, healed by itself, nothing left behind."""

from __future__ import annotations

import asyncio
import signal

import asyncpg
import pytest

from asgi_token_auth import SQLTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET, App, status_of
from tests.support.postgres_outages import application, becomes, frozen, sessions, soon, until

pytestmark = pytest.mark.anyio


async def test_a_server_that_crashes_under_load_is_503_and_heals(server: postgres.Server, store: TokenStore) -> None:
    tokens = [(await store.issue("ann")).token for _ in range(8)]
    app = application(store)
    seen: list[int] = []
    done = False

    async def client(token: str) -> None:
        while not done:
            seen.append(await soon(status_of(app, token)))
            await asyncio.sleep(0.001)

    clients = [asyncio.create_task(client(token)) for token in tokens]
    await becomes(200, app, tokens[0])
    for number in (signal.SIGQUIT, signal.SIGINT):
        await asyncio.to_thread(server.stop, number)
        await becomes(503, app, tokens[0])
        with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
            await soon(store.list(owner="ann"))
        with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
            await soon(store.revoke(1, owner="ann"))
        await asyncio.to_thread(server.start)
        await becomes(200, app, tokens[0])
        # All of it works again, the kept connections too, and goes on working.
        for _ in range(6):
            await soon(store.issue("ann"))
            assert len((await soon(store.list(owner="ann"))).items) >= 8
    seen.clear()
    await until(lambda: len(seen) > 100)
    done = True
    await asyncio.gather(*clients)
    assert set(seen) == {200}
    assert len(sessions(server)) <= 5


async def test_all_that_verify_the_same_tokens_share_a_session(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    before = len(sessions(server))
    for _ in range(6):
        assert await status_of(application(store), issued.token) == 200
    assert len(sessions(server)) == before + 1


async def test_a_row_of_strange_types_says_nothing_about_other_tokens(
    server: postgres.Server, store: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody altered the table. Requests share a read, and must not share what is wrong with one of its rows."""
    good, revoked = await store.issue("ann"), await store.issue("ann")
    await store.revoke(revoked.record.id, owner="ann")
    table = store.database.qualified(store.table)
    server.run(f"alter table {table} alter column ended_timestamp type numeric")
    app = application(store)
    for _ in range(3):
        statuses = await asyncio.gather(*(status_of(app, issued.token) for issued in (good, revoked) * 4))
        assert statuses == [200, 401] * 4
    assert "could not be checked" not in caplog.text


async def test_a_session_that_freezes_is_replaced(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    app = application(store)
    await becomes(200, app, issued.token)
    with frozen(*sessions(server, "query like '%left join%'")):
        assert await soon(status_of(app, issued.token)) == 200
        assert await soon(status_of(app, issued.token)) == 200
    await until(lambda: len(sessions(server, "query like '%left join%'")) == 1)


async def test_a_server_that_freezes_is_503_and_heals(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    app = application(store)
    await becomes(200, app, issued.token)
    with frozen(*server.processes()):
        answers = await soon(asyncio.gather(*(status_of(app, issued.token) for _ in range(20))))
        assert set(answers) == {503}
        with pytest.raises(StorageError, match="no answer within"):
            await soon(store.database.query("select 1", {}, timeout=0.2))
    await becomes(200, app, issued.token)
    assert (await soon(store.get(issued.record.id, owner="ann"))).status == "active"
    await soon(store.revoke(issued.record.id, owner="ann"))
    assert await soon(status_of(app, issued.token)) == 401
    await until(lambda: len(sessions(server)) <= 5)


async def test_a_locked_table_is_503_and_disturbs_no_other(server: postgres.Server, store: TokenStore) -> None:
    issued = [await store.issue("ann") for _ in range(3)]
    async with TokenStore(store.database, secret=SECRET, table="other") as other:
        elsewhere = await other.issue("bob")
        app, app_elsewhere = application(store), application(other)
        session = await asyncpg.connect(server.dsn())
        await session.execute(f"begin; lock table {store._table} in access exclusive mode")
        answers = asyncio.gather(*(status_of(app, each.token) for each in issued))
        assert await soon(status_of(app_elsewhere, elsewhere.token)) == 200
        assert await soon(answers) == [503] * 3
        assert await soon(status_of(app_elsewhere, elsewhere.token)) == 200
        # Who gave up does not wait at the server either.
        await until(lambda: not sessions(server, "wait_event_type = 'Lock'"))
        await session.execute("rollback")
        await session.close()
        for each in issued:
            assert await soon(status_of(app, each.token)) == 200


async def test_when_all_connections_are_busy_the_next_query_waits_only_so_long(
    server: postgres.Server, schema: str
) -> None:
    database = Postgres(server.dsn(), schema=schema, pool_size=2)
    slow = SQLTokens(
        database, "select 's' as token_secret, 1 as actor_id, pg_sleep(:token_id::text::integer)", timeout=30
    )
    async with TokenStore(database, secret=SECRET) as store:
        issued = await store.issue("ann")
        app = application(store)
        through_sql = TokenAuthMiddleware(App(), sources=[slow])
        assert await soon(status_of(through_sql, "0-s")) == 200
        busy = [asyncio.create_task(status_of(through_sql, "30-s")) for _ in range(2)]
        await until(lambda: len(sessions(server, "query like '%pg_sleep%' and state = 'active'")) == 2)
        assert await soon(status_of(through_sql, "0-s")) == 503
        with pytest.raises(StorageError, match="all 2 connections are busy; raise pool_size"):
            await soon(store.list(owner="ann"))
        # Verification has a connection of its own.
        assert await soon(status_of(app, issued.token)) == 200
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert await soon(status_of(through_sql, "0-s")) == 200
        assert len((await soon(store.list(owner="ann"))).items) == 1
        # What nobody waits for is not gone on with.
        await until(lambda: not sessions(server, "query like '%pg_sleep%' and state = 'active'"))
        await until(lambda: len(sessions(server)) <= 3)


async def test_a_standby_verifies_nothing_until_it_is_the_primary(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    schema = store.database.qualified("x").split(".")[0].strip('"')
    with postgres.running(standby_of=server) as standby:
        await until(lambda: bool(standby.run(f"select from {store._table}")))
        strict = TokenStore(Postgres(standby.dsn(), schema=schema), secret=SECRET)
        stale = TokenStore(Postgres(standby.dsn(), schema=schema, allow_stale_reads=True), secret=SECRET)
        either = server.dsn().replace("@", f"@127.0.0.1:{standby.port},") + "&target_session_attrs=primary"
        with pytest.raises(StorageError, match=r"it is a standby.*connect to the primary.*allow_stale_reads"):
            await soon(strict.open())
        app = application(strict)
        assert await soon(status_of(app, issued.token)) == 503
        async with stale:
            stale_app = application(stale)
            assert await soon(status_of(stale_app, issued.token)) == 200
            with pytest.raises(StorageError, match="it can only be read"):
                await soon(stale.issue("ann"))
            async with TokenStore(Postgres(either, schema=schema), secret=SECRET) as finds:
                await soon(finds.issue("ann"))
            assert len((await store.list(owner="ann")).items) == 2
            await asyncio.to_thread(standby.promote)
            await becomes(200, app, issued.token)
            await soon(strict.revoke(issued.record.id, owner="ann"))
            assert await soon(status_of(app, issued.token)) == 401
            assert await soon(status_of(stale_app, issued.token)) == 401
        await strict.close()


async def test_where_nothing_can_be_written_tokens_work_and_changes_are_refused(
    server: postgres.Server, store: TokenStore
) -> None:
    issued = await store.issue("ann")
    schema = store.database.qualified("x").split(".")[0].strip('"')
    read_only = Postgres(server.dsn() + "&default_transaction_read_only=on", schema=schema)
    async with TokenStore(read_only, secret=SECRET) as reader:
        app = application(reader)
        for change in (
            reader.issue("ann"),
            reader.revoke(issued.record.id, owner="ann"),
            reader.rotate(issued.record.id, owner="ann"),
        ):
            with pytest.raises(StorageError, match="it can only be read; writes need the primary"):
                await soon(change)
            assert await soon(status_of(app, issued.token)) == 200
        await reader.flush()
        assert (await reader.get(issued.record.id, owner="ann")).last_used_at is None
    assert (await store.get(issued.record.id, owner="ann")).status == "active"
