"""A PostgreSQL database whose roles, schemas, encoding and commits are not as one would hope."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_token_auth import StorageError, TokenNotFound, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Steps
from tests.support import postgres
from tests.support.asgi import SECRET, status_of
from tests.support.postgres_outages import SOON, Proxy, application, sessions, soon, until

pytestmark = pytest.mark.anyio


async def test_a_role_that_may_not_make_tables_is_told_so_and_works_with_grants(
    server: postgres.Server, schema: str
) -> None:
    server.run(f"create role reader login; grant usage on schema {schema} to reader")
    try:
        limited = Postgres(server.dsn(user="reader"), schema=schema)
        with pytest.raises(StorageError, match=r"this role may not do that. Let a role that may create tables open"):
            await soon(TokenStore(limited, secret=SECRET).open())
        async with TokenStore(Postgres(server.dsn(), schema=schema), secret=SECRET) as owner:
            with pytest.raises(StorageError, match="this role may not do that"):
                await soon(TokenStore(limited, secret=SECRET).open())
            server.run(f"grant select, insert, update, delete on all tables in schema {schema} to reader; select 1")
            async with TokenStore(limited, secret=SECRET) as store:
                issued = await store.issue("ann")
                assert await status_of(application(store), issued.token) == 200
                await store.flush()
                await store.edit(issued.record.id, owner="ann", description="found")
                assert len((await store.list(owner="ann", search="OUN")).items) == 1
                await owner.revoke(issued.record.id, owner="ann")
                assert await status_of(application(store), issued.token) == 401
    finally:
        server.run("drop owned by reader; drop role reader")


async def test_operators_that_somebody_made_in_the_search_path_are_not_used(
    server: postgres.Server, schema: str, store: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    operators = {"=": "boolean", "<>": "boolean", ">": "boolean", "<=": "boolean", "+": "numeric", "||": "text"}
    types = ("oid", "integer", "bigint", "numeric", "text", "name")
    made = [
        f"create function {schema}.f{number}({left}, {right}) returns {operators[operator]} language plpgsql as "
        f"$$ begin raise exception 'a stranger''s {left} {operator} {right}'; end $$; create operator "
        f"{schema}.{operator} (leftarg = {left}, rightarg = {right}, function = {schema}.f{number})"
        for number, (operator, left, right) in enumerate(itertools.product(operators, types, types))
    ]
    server.run("; ".join(made))
    lasting = await store.issue("ann", expires_after=100)
    ended = await store.issue("ann", expires_after=100)
    await store.revoke(ended.record.id, owner="ann")
    async with TokenStore(Postgres(f"{server.dsn()}&search_path={schema}"), secret=SECRET) as another:
        app = application(another)
        assert [await status_of(app, issued.token) for issued in (lasting, ended)] == [200, 401]
        counts = [len((await another.list(owner="ann", status=status)).items) for status in ("active", "revoked")]
        assert counts == [1, 1]
        assert (await another.list(owner="ann", status="expired")).items == []
        await another.issue("ann", parent=lasting.record.id, expires_after=10)
        await another.edit(lasting.record.id, owner="ann", description="x", expires_after=50)
        await another.rotate(lasting.record.id, owner="ann", grace=5)
        assert await another.revoke_all(owner="ann") == 2
        assert len((await another.list(owner="ann", search="x")).items) == 1
        assert await another.prune(ended_before=time.time() + 1) >= 0
    assert caplog.messages == []


@pytest.mark.parametrize(
    "name", ["Capital and spaces", "select", "_x$-1", "\N{LATIN SMALL LETTER E WITH ACUTE}t\u00e9"]
)
async def test_a_schema_may_have_any_sensible_name(server: postgres.Server, name: str) -> None:
    with pytest.raises(StorageError, match=f"there is no schema {re.escape(name)}; create it"):
        await TokenStore(Postgres(server.dsn(), schema=name), secret=SECRET).open()
    server.run(f'create schema "{name}"')
    try:
        for table in ("tokens", "Tokens_2"):
            for _ in range(2):
                store = TokenStore(Postgres(server.dsn(), schema=name), secret=SECRET, table=table)
                async with store:
                    issued = await store.issue("ann", description="x")
                    assert await status_of(application(store), issued.token) == 200
                    await store.rotate(issued.record.id, owner="ann")
                    await store.flush()
                    assert len((await store.list(owner="ann", search="X")).items) >= 1
        assert server.run("select from pg_tables where schemaname = 'public'") == []
    finally:
        server.run(f'drop schema "{name}" cascade')


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("search_path", [False, True])
async def test_a_token_that_waits_for_the_end_of_its_parent_is_not_made(
    server: postgres.Server, schema: str, store: TokenStore, isolation: str, search_path: bool
) -> None:
    """However another process names the schema, and whatever isolation its role has."""
    options = f"&search_path={schema}" if search_path else ""
    options += f"&default_transaction_isolation={isolation.replace(' ', '%20')}"
    begun, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def revoke_slowly() -> None:
        async def in_another_loop() -> None:
            async with TokenStore(Postgres(server.dsn(), schema=schema), secret=SECRET) as other:

                def steps() -> Steps[None]:
                    yield from other._changes.revoke(parent, "ann", None, int(time.time()))
                    loop.call_soon_threadsafe(begun.set)
                    goes_on.wait(SOON)

                await other.database.transaction(steps())

        asyncio.run(in_another_loop())

    parent = (await store.issue("ann")).record.id
    with ThreadPoolExecutor(1) as thread:
        revoking = loop.run_in_executor(thread, revoke_slowly)
        await soon(begun.wait())
        database = Postgres(server.dsn() + options, schema=None if search_path else schema)
        async with TokenStore(database, secret=SECRET) as another:
            child = asyncio.ensure_future(another.issue("ann", parent=parent))
            await until(
                lambda: child.done() or bool(sessions(server, "wait_event_type = 'Lock' and wait_event = 'advisory'"))
            )
            goes_on.set()
            with pytest.raises(TokenNotFound, match="is not an active token"):
                await soon(child)
            await revoking


async def test_a_commit_that_the_server_refuses_is_told_in_its_words(
    server: postgres.Server, schema: str, store: TokenStore
) -> None:
    server.run(
        f"create function {schema}.refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$; "
        f"create constraint trigger late after insert on {schema}._datasette_auth_tokens deferrable initially deferred "
        f"for each row execute function {schema}.refuse()"
    )
    with pytest.raises(StorageError, match=r"the server refuses with RaiseError \(P0001\)"):
        await soon(store.issue("ann"))
    assert server.run(f"select from {schema}._datasette_auth_tokens") == []


async def test_what_is_not_in_the_encoding_of_the_database_is_refused_with_what_helps(server: postgres.Server) -> None:
    server.run("create database latin encoding 'LATIN1' locale 'C' template template0")
    try:
        async with TokenStore(Postgres(server.dsn("latin")), secret=SECRET) as store:
            with pytest.raises(StorageError, match=r"not in its encoding.*; move to a database whose encoding is UTF8"):
                await store.issue("ann", description="\N{EURO SIGN}")
            issued = await store.issue("ann", description="\N{POUND SIGN}")
            assert await status_of(application(store), issued.token) == 200
            assert [token.id for token in (await store.list(owner="ann")).items] == [issued.record.id]
    finally:
        server.run("drop database latin")


COMMIT = b"Q\x00\x00\x00\x0bcommit\x00"


async def test_what_became_of_a_commit_without_an_answer_is_found_out(
    server: postgres.Server, schema: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(proxy.dsn(server), schema=schema)

    async def commit(writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy.waits_for = None
        # As it is, but on a connection that nobody will read the answer of.
        proxy.forget()
        writer.write(data)
        await until(lambda: not sessions(server, "state <> 'idle'"))
        proxy.cut()

    async def never(writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy.waits_for = None
        proxy.cut()

    async def never_and_stay_away(writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy.waits_for = None
        proxy.swallows = True

    async with TokenStore(database, secret=SECRET) as store:
        proxy.waits_for, proxy.then = COMMIT, commit
        issued = await soon(store.issue("ann", description="committed"))
        assert proxy.waits_for is None
        assert (await store.get(issued.record.id, owner="ann")).description == "committed"

        proxy.waits_for, proxy.then = COMMIT, never
        with pytest.raises(StorageError, match="the connection was lost; nothing was changed"):
            await soon(store.issue("ann", description="not committed"))
        assert [token.description for token in (await store.list(owner="ann")).items] == ["committed"]

        monkeypatch.setattr("asgi_token_auth.databases.postgres.database._COMMIT_TIMEOUT", 0.3)
        monkeypatch.setattr("asgi_token_auth.databases.postgres.database.WRITE_TIMEOUT", 2.5)
        proxy.waits_for, proxy.then = COMMIT, never_and_stay_away
        with pytest.raises(StorageError, match="nobody knows whether the change was made; look before you try again"):
            await soon(store.revoke(issued.record.id, owner="ann"))
        proxy.swallows = False
        proxy.cut()
        await soon(store.revoke(issued.record.id, owner="ann"))
