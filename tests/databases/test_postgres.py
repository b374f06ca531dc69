"""What may happen to a PostgreSQL server and on the way to it: 503 in time, healed by itself, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asgi_token_auth import (
    ConfigurationError,
    ManagedTokens,
    SQLTokens,
    StorageError,
    TokenAuthMiddleware,
    TokenNotFound,
    TokenStore,
)
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.protocol import Steps
from tests.support import ROOT, postgres
from tests.support.asgi import SECRET, App, ask, bearer, http, status_of

pytestmark = pytest.mark.anyio

#: Seconds in which what is promised within one or two must have happened, on a busy machine too.
SOON = 8.0

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """One that these tests stop, freeze and break, and leave as it was."""
    postgres.need()
    with postgres.running() as server:
        yield server


@pytest.fixture
def schema(server: postgres.Server) -> Iterator[str]:
    schema = f"s{next(_numbers)}"
    server.run(f"create schema {schema}")
    yield schema
    server.run(f"drop schema {schema} cascade")


@pytest.fixture
def database(server: postgres.Server, schema: str) -> Postgres:
    return Postgres(server.dsn(), schema=schema)


@pytest.fixture
async def store(database: Postgres, anyio_backend: str) -> AsyncIterator[TokenStore]:
    async with TokenStore(database, secret=SECRET) as store:
        yield store


def application(store: TokenStore) -> TokenAuthMiddleware:
    return TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON):
        return await awaitable


async def becomes(status: int, app: TokenAuthMiddleware, token: str) -> None:
    """Ask until it is so. Until then only 200 and 503 are answers."""
    async with asyncio.timeout(SOON):
        while (now := await status_of(app, token)) != status:
            assert now in (200, 503)
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def sessions(server: postgres.Server, where: str = "true") -> list[int]:
    """The process of each session that is ours."""
    rows = server.run(f"select pid from pg_stat_activity where application_name = 'asgi-token-auth' and {where}")
    return [pid for (pid,) in rows]


@contextlib.contextmanager
def frozen(*processes: int) -> Iterator[None]:
    def send(number: int) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    try:
        send(signal.SIGSTOP)
        yield
    finally:
        send(signal.SIGCONT)


# The server


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


# Standbys and read-only servers


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


# The way to the server


class Proxy:
    """What stands between us and the server, and may do to the bytes what networks do."""

    def __init__(self, port: int) -> None:
        self._to = port
        #: Bytes vanish, and connections that are opened never hear anything.
        self.swallows = False
        #: With what it speaks TLS, which it does alone; the server hears plain text.
        self.tls: ssl.SSLContext | None = None
        self.spoke_tls = 0
        #: Bytes of the connections that are open now vanish, as when a firewall forgets them.
        self._lost: set[asyncio.StreamWriter] = set()
        #: What to do, instead of passing it on, with what a client sends that contains this.
        self.waits_for: bytes | None = None
        self.then: Callable[[asyncio.StreamWriter, bytes], Awaitable[None]] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def dsn(self, server: postgres.Server) -> str:
        return server.dsn().replace(f":{server.port}/", f":{self.port}/")

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def forget(self) -> None:
        self._lost |= self._open

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.tls is not None:
            # A client asks for TLS in eight bytes, and then both go on in it.
            await reader.readexactly(8)
            writer.write(b"S")
            try:
                await writer.start_tls(self.tls)
            except (OSError, ssl.SSLError):
                writer.transport.abort()
                return
            self.spoke_tls += 1
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._to)
        ends = {writer, onward_writer}
        self._open |= ends
        tasks = [
            asyncio.create_task(self._pass_on(reader, onward_writer, from_client=True)),
            asyncio.create_task(self._pass_on(onward_reader, writer, from_client=False)),
        ]
        self._tasks.update(tasks)
        await asyncio.wait(tasks)
        self._open -= ends
        self._lost -= ends

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        try:
            while data := await reader.read(65536):
                if self.swallows or writer in self._lost:
                    continue
                if from_client and self.waits_for is not None and self.waits_for in data:
                    assert self.then is not None
                    await self.then(writer, data)
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@pytest.fixture
async def proxy(server: postgres.Server, anyio_backend: str) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as proxy:
        yield proxy


async def test_connections_that_are_cut_cost_nobody_an_answer(
    server: postgres.Server, schema: str, proxy: Proxy
) -> None:
    database = Postgres(proxy.dsn(server), schema=schema)
    async with TokenStore(database, secret=SECRET) as store:
        issued = await store.issue("ann")
        app = application(store)
        for _ in range(3):
            assert await soon(status_of(app, issued.token)) == 200
            assert await soon(asyncio.gather(*(store.list(owner="ann") for _ in range(4))))
            proxy.cut()
            assert await soon(asyncio.gather(*(status_of(app, issued.token) for _ in range(5)))) == [200] * 5
            proxy.cut()
            assert await soon(asyncio.gather(*(store.list(owner="ann") for _ in range(4))))
            proxy.cut()
            await soon(store.edit(issued.record.id, owner="ann", description="x"))


async def test_a_network_that_swallows_everything_is_503_and_heals(
    server: postgres.Server, schema: str, proxy: Proxy
) -> None:
    database = Postgres(proxy.dsn(server), schema=schema)
    sql = "select 's' as token_secret, :token_id::text as actor_id"
    async with TokenStore(database, secret=SECRET) as store:
        issued = await store.issue("ann")
        app = application(store)
        custom = TokenAuthMiddleware(App(), sources=[SQLTokens(database, sql)])
        assert await soon(asyncio.gather(*(status_of(custom, "4-s") for _ in range(4)))) == [200] * 4
        assert await soon(status_of(app, issued.token)) == 200
        proxy.swallows = True
        answers = await soon(asyncio.gather(*(status_of(a, t) for a, t in ((app, issued.token), (custom, "4-s")))))
        assert answers == [503, 503]
        proxy.swallows = False
        await becomes(200, app, issued.token)
        await becomes(200, custom, "4-s")

        # The connections that were open are gone for ever, and only they.
        assert await soon(asyncio.gather(*(status_of(custom, "4-s") for _ in range(4)))) == [200] * 4
        proxy.forget()
        assert await soon(status_of(app, issued.token)) == 200
        # A query may take its second, so this one cannot be repeated. It is a warning for the others.
        assert await soon(status_of(custom, "4-s")) == 503
        for _ in range(4):
            assert await soon(asyncio.gather(*(status_of(custom, "4-s") for _ in range(4)))) == [200] * 4
        proxy.forget()
        await soon(store.edit(issued.record.id, owner="ann", description="x"))
        for _ in range(4):
            assert await soon(asyncio.gather(*(status_of(custom, "4-s") for _ in range(4)))) == [200] * 4


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


# What stands before the server


@contextlib.contextmanager
def pooled(server: postgres.Server) -> Iterator[str]:
    """The address of a pgbouncer in transaction mode that has fewer connections than its clients."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        needed = "needs pgbouncer: install the distribution's package of that name"
        if "CI" in os.environ:
            pytest.fail(needed)
        pytest.skip(needed)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = server.folder / f"pgbouncer-{port}.ini"
    settings.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={server.port} dbname=postgres user=owner\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
        "default_pool_size = 4\nmax_client_conn = 100\nunix_socket_dir =\n"
    )
    process = server.also_run(program, settings)
    try:
        address = server.dsn(password=None).replace(f":{server.port}/", f":{port}/")
        deadline = time.monotonic() + postgres.PATIENCE
        while True:
            try:
                server.run("select 1;", dsn=address)
                break
            except (OSError, asyncpg.PostgresError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"pgbouncer did not start:\n{server.log.read_text()}") from error
            time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(postgres.PATIENCE)


async def test_a_pgbouncer_that_shares_sessions_out_by_transactions(server: postgres.Server, schema: str) -> None:
    with pooled(server) as address:
        database = Postgres(address, schema=schema, statement_cache_size=0)
        sql = "select 's' as token_secret, actor_id from sources where id = :token_id"
        async with (
            TokenStore(database, secret=SECRET) as store,
            TokenStore(Postgres(address, schema=schema, statement_cache_size=0), secret=SECRET) as second,
            asyncio.timeout(60),
        ):
            server.run(f"create table {schema}.sources (id integer primary key, actor_id text)")
            server.run(
                f"insert into {schema}.sources select number, 'actor ' || number from generate_series(1, 9) number"
            )
            custom = TokenAuthMiddleware(App(), sources=[SQLTokens(database, sql.replace("from ", f"from {schema}."))])
            app, second_app = application(store), application(second)

            async def life(number: int) -> None:
                one, other = (store, second_app) if number % 2 else (second, app)
                issued = await one.issue("ann", description=f"number {number}")
                token_id = issued.record.id
                assert await status_of(other, issued.token) == 200
                await one.edit(token_id, owner="ann", description=f"number {number}, edited")
                rotated = await one.rotate(token_id, owner="ann")
                assert await status_of(other, issued.token) == 401
                assert await status_of(other, rotated.token) == 200
                assert await status_of(custom, f"{number % 9 + 1}-s") == 200
                for bad in ("word", "1e3", "9" * 30, ""):
                    assert await status_of(custom, f"{bad}-s") == 401
                await one.flush()
                assert len((await one.list(owner="ann", search=f"NUMBER {number}, ")).items) == 1
                await one.revoke(token_id, owner="ann")
                assert await status_of(other, rotated.token) == 401
                assert [event.name for event in await one.events(token_id, owner="ann")][-1] == "revoked"

            await asyncio.gather(*(life(number) for number in range(12)))
            # Nothing was left behind in the sessions that others get next.
            for setting, value in (("synchronous_commit", "on"), ("lock_timeout", "0")):
                found = await database.query(f"select current_setting('{setting}')", {})
                assert found.rows == [(value,)]


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, and what one of them says of 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str, issuer: tuple[str, ec.EllipticCurvePrivateKey] | None) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_name, issuer_key = issuer or (name, key)
        own, issued_by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer_name))
        built = (
            x509.CertificateBuilder()
            .subject_name(own)
            .issuer_name(issued_by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            # Python 3.13 and newer take no certificate without these.
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=issuer is None,
                    crl_sign=issuer is None,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(text)
        return key

    authority = certificate("authority", None)
    certificate("another-authority", None)
    certificate("server", ("authority", authority))
    return folder


async def test_tls_is_as_the_dsn_says(server: postgres.Server, schema: str, proxy: Proxy, certificates: Path) -> None:
    # Not every build of the server speaks it, so what stands before it does.
    proxy.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    proxy.tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    plain = proxy.dsn(server).partition("?")[0]
    authority, another = certificates / "authority.crt", certificates / "another-authority.crt"
    context = ssl.create_default_context(cafile=str(authority))
    wrong = ssl.create_default_context(cafile=str(another))
    for good in (
        Postgres(f"{plain}?sslmode=verify-full&sslrootcert={authority}", schema=schema),
        Postgres(f"{plain}?sslmode=verify-ca&sslrootcert={authority}", schema=schema),
        Postgres(f"{plain}?sslmode=require", schema=schema),
        Postgres(plain, schema=schema, ssl=context),
    ):
        proxy.spoke_tls = 0
        async with TokenStore(good, secret=SECRET) as store:
            issued = await store.issue("ann")
            assert await status_of(application(store), issued.token) == 200
        assert proxy.spoke_tls >= 2
    local = plain.replace("127.0.0.1", "localhost")
    for bad in (
        Postgres(f"{plain}?sslmode=verify-full&sslrootcert={another}", schema=schema),
        Postgres(f"{local}?sslmode=verify-full&sslrootcert={authority}", schema=schema),
        Postgres(plain, schema=schema, ssl=wrong),
    ):
        with pytest.raises(StorageError, match="TLS failed; check sslmode and sslrootcert"):
            await soon(TokenStore(bad, secret=SECRET).open())
    missing = Postgres(f"{plain}?sslmode=verify-full&sslrootcert=/nonexistent/root.crt", schema=schema)
    with pytest.raises(StorageError, match="a file is missing; check those that the DSN names"):
        await soon(TokenStore(missing, secret=SECRET).open())


# Processes and event loops


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, which runs ``text``, with every warning an error."""
    text = f"import asyncio, gc, os, sys\nfrom asgi_token_auth import *\n{SCRIPT}\n{text}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


SCRIPT = f"""
from asgi_token_auth.databases.postgres import Postgres
from tests.support.asgi import App, status_of
def new_store(**more):
    return TokenStore(Postgres(sys.argv[1], schema=sys.argv[2]), secret={SECRET!r}, **more)
def application(store):
    return TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
"""


def finish(process: subprocess.Popen[str]) -> str:
    said, errors = process.communicate(timeout=postgres.PATIENCE)
    assert (process.returncode, errors) == (0, "")
    return said


def test_eight_processes_that_start_at_once_on_an_empty_schema_all_migrate(
    server: postgres.Server, schema: str
) -> None:
    text = """
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with new_store() as store:
        issued = await store.issue("ann")
        assert await status_of(application(store), issued.token) == 200
asyncio.run(main())
"""
    processes = [script(text, server.dsn(), schema) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    assert server.run(f"select count(*) from {schema}._datasette_auth_tokens") == [(8,)]
    assert server.run(f"select count(distinct name) = count(*) from {schema}._datasette_auth_tokens_migrations") == [
        (True,)
    ]


def test_a_forked_process_leaves_the_connections_to_its_parent(server: postgres.Server, schema: str) -> None:
    text = """
async def main():
    async with new_store() as store:
        issued = await store.issue("ann")
        app = application(store)
        assert await status_of(app, issued.token) == 200
        query = "select pg_backend_pid()"
        before = (await store.database.query(query, {})).rows
        child = os.fork()
        if child == 0:
            async def again():
                assert await status_of(app, issued.token) == 200
                assert (await store.database.query(query, {})).rows != before
                await store.revoke(issued.record.id, owner="ann")
                await store.close()
            asyncio.run(again())
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert await status_of(app, issued.token) == 401
        assert (await store.database.query(query, {})).rows == before
asyncio.run(main())
"""
    finish(script(text, server.dsn(), schema))


def test_a_forked_process_that_goes_on_with_the_event_loop_has_connections_of_its_own(
    server: postgres.Server, schema: str
) -> None:
    """A server may open what it serves before it forks its workers."""
    text = """
loop = asyncio.new_event_loop()
store = new_store()
app = application(store)
issued = loop.run_until_complete(store.issue("ann"))
def verifies():
    assert loop.run_until_complete(status_of(app, issued.token)) == 200
    return app._chain.sources[0]._lookup._latest().connection.get_server_pid()
session = verifies()
child = os.fork()
if child == 0:
    assert verifies() != session
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert verifies() == session
# Nor does this one go on with what it has closed itself.
loop.run_until_complete(store.close())
assert verifies() != session
loop.run_until_complete(store.close())
loop.close()
"""
    finish(script(text, server.dsn(), schema))


def test_an_event_loop_that_ends_without_closing_leaves_no_session_and_no_warning(
    server: postgres.Server, schema: str
) -> None:
    text = """
store = new_store()
app = application(store)
async def main():
    issued = await store.issue("ann")
    assert await status_of(app, issued.token) == 200
    await asyncio.gather(*(store.list(owner="ann") for _ in range(3)))
async def waits():
    task = asyncio.create_task(store.database.query("select pg_sleep(60)", {}, timeout=60))
    await asyncio.sleep(0.2)
for _ in range(3):
    asyncio.run(main())
asyncio.run(waits())
print((gc.collect(), "done")[1], flush=True)
sys.stdin.readline()
"""
    process = script(text, server.dsn(), schema)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    deadline = time.monotonic() + SOON
    while left := sessions(server):
        assert time.monotonic() < deadline, left
    assert server.run(
        f"select count(*) from {schema}._datasette_auth_tokens where last_used_timestamp is not null"
    ) == [(3,)]
    finish(process)


def test_event_loops_of_several_threads_share_one_database(server: postgres.Server, schema: str) -> None:
    database = Postgres(server.dsn(), schema=schema)
    store = TokenStore(database, secret=SECRET)
    app = application(store)

    async def used() -> None:
        issued = await store.issue("ann")
        for _ in range(30):
            assert await status_of(app, issued.token) == 200
            assert (await store.get(issued.record.id, owner="ann")).status == "active"
        await store.revoke(issued.record.id, owner="ann")
        assert await status_of(app, issued.token) == 401
        await database.close()

    asyncio.run(store.ensure_ready())
    with ThreadPoolExecutor(3) as threads:
        for running in [threads.submit(asyncio.run, used()) for _ in range(3)]:
            running.result(timeout=postgres.PATIENCE)
    assert sessions(server) == []


async def test_what_is_closed_can_be_opened_again(server: postgres.Server, database: Postgres) -> None:
    store = TokenStore(database, secret=SECRET)
    app = application(store)
    token = ""
    for _ in range(3):
        async with store:
            token = (await store.issue("ann")).token
            assert await status_of(app, token) == 200
        assert sessions(server) == []
    # Without a lifespan it opens itself.
    assert await status_of(app, token) == 200
    await store.close()
    assert sessions(server) == []


async def test_a_thousand_clients_that_hang_up_leave_nothing_behind(server: postgres.Server, store: TokenStore) -> None:
    issued = await store.issue("ann")
    app = application(store)
    custom = TokenAuthMiddleware(
        App(),
        sources=[SQLTokens(store.database, "select 's' as token_secret, :token_id::text as actor_id, pg_sleep(0.001)")],
    )

    async def client(number: int) -> None:
        which = number % 4
        if which == 0:
            await store.edit(issued.record.id, owner="ann", description=f"{number}")
        else:
            await status_of(*((custom, "4-s") if which == 1 else (app, issued.token)))

    for start in range(0, 1000, 50):
        clients = [asyncio.create_task(client(start + number)) for number in range(50)]
        for number, task in enumerate(clients):
            # At every point of what they do.
            if number % 5 == 0:
                await asyncio.sleep(0.001 * (start % 7))
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert await soon(status_of(app, issued.token)) == 200
    assert await soon(status_of(custom, "4-s")) == 200
    await soon(store.edit(issued.record.id, owner="ann", description="the last"))
    await until(lambda: len(sessions(server)) <= 5)
    await until(lambda: not sessions(server, "state <> 'idle'"))


# Roles and schemas


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


# Secrets


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://u:hunter2@h/d?channel_binding=require", "dsn: channel_binding is an option of libpq"),
        ("postgresql://u:hunter2@h/d?sslmode=require&connect_timeout=", "dsn: connect_timeout is an option of libpq"),
        ("postgresql://u:hun@ter2@h/d", "what is special in a password as %2F and the like"),
    ],
)
def test_a_dsn_that_another_driver_would_read_otherwise_is_refused(dsn: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        Postgres(dsn)
    assert "ter2" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "it refuses the user or the password"),
        ({"user=": "nobody"}, "it refuses the user or the password"),
        ({"/postgres?": "/missing?"}, "it refuses the user or the password|there is no database of this name"),
        ({"127.0.0.1": "127.0.0.1:1,127.0.0.1"}, "cannot be|refuses"),
        ({"127.0.0.1": "host.invalid"}, "it cannot be reached"),
        ({"PORT": "1"}, "it cannot be reached"),
        ({"PORT": "99999"}, "."),
        ({"PORT": "0"}, "."),
        ({"sslmode=disable": "port=5432,99999"}, "."),
        ({"sslmode=disable": "sslmode=nonsense"}, "its DSN cannot be used"),
        ({"sslmode=disable": "sslmode=verify-full&sslrootcert=/nonexistent"}, "a file is missing"),
        ({"sslmode=disable": "sslmode=require"}, "."),
        ({"sslmode=disable": "target_session_attrs=nonsense"}, "its DSN cannot be used"),
        ({"sslmode=disable": "passfile=/nonexistent"}, "."),
        ({"sslmode=disable": "no_such_setting=1"}, "."),
        ({"sslmode=disable": "command_timeout=word"}, "."),
        ({"/postgres?": "/?"}, "."),
        ({"PORT": "word"}, "."),
        ({"127.0.0.1": "[::1"}, "."),
        ({"postgresql": "mysql"}, "."),
        ({"@": " @"}, "."),
        ({"@": "/@"}, "."),
        ({"@": "?@"}, "."),
        ({"@": "#@"}, "."),
    ],
    ids=repr,
)
async def test_the_password_is_in_no_message(
    server: postgres.Server, schema: str, caplog: pytest.LogCaptureFixture, change: dict[str, str], says: str
) -> None:
    password = "Pw3/x%41 y"
    server.run("drop role if exists guarded; create role guarded login password 'another'")
    dsn = server.dsn(user="guarded", password=password)
    for old, new in change.items():
        dsn = dsn.replace(f":{server.port}/" if old == "PORT" else old, f":{new}/" if old == "PORT" else new)
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    try:
        database = Postgres(dsn, schema=schema)
    except ConfigurationError as error:
        said += traceback.format_exception(error)
    else:
        store = TokenStore(database, secret=SECRET)
        source = SQLTokens(database, "select 's' as token_secret, 1 as actor_id where :token_id = '1'")
        for attempt in (store.open(), store.list(owner="ann"), store.issue("ann"), source.open()):
            with pytest.raises((StorageError, ConfigurationError), match=says) as raised:
                await soon(attempt)
            said += traceback.format_exception(raised.value)
        app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store), source])
        for token in ("dsatok_x", "1-s"):
            answer = await soon(ask(app, http([bearer(token)])))
            said += [str(answer.status), str(answer.messages)]
        said += [repr(database), repr(store), repr(source), repr(vars(source)), database.name, repr(app)]
        await database.close()
    said += [record.getMessage() for record in caplog.records] + [caplog.text]
    said.append(Path("/proc/self/cmdline").read_text() if Path("/proc/self/cmdline").exists() else "")
    for secret in ("Pw3", "x%41", "%2541", "xA"):
        assert not [text for text in said if secret in text]


# Last uses


def test_processes_that_write_the_same_last_uses_write_forward_and_once_a_minute(
    server: postgres.Server, schema: str
) -> None:
    tokens, rounds = 50, 200
    server.run(f"create table {schema}.written (id bigint, before bigint, after bigint)")
    text = f"""
import random
async def main():
    async with new_store() as store:
        if sys.argv[3] == "0":
            for number in range({tokens}):
                await store.issue("ann")
        print("ready", flush=True)
        sys.stdin.readline()
        ids = list(range(1, {tokens + 1}))
        for number in range({rounds}):
            random.shuffle(ids)
            for token_id in ids:
                store._usage.note(token_id, 1_700_000_000 + 20 * number + random.randrange(60), None)
            await store.flush()
            assert not store._usage._waiting
asyncio.run(main())
"""
    processes: list[subprocess.Popen[str]] = []
    for number in range(4):
        process = script(text, server.dsn(), schema, str(number))
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    table = f"{schema}._datasette_auth_tokens"
    server.run(
        f"create function {schema}.note() returns trigger language plpgsql as $$ begin insert into {schema}.written "
        "values (old.id, old.last_used_timestamp, new.last_used_timestamp); return new; end $$; "
        f"create trigger note after update on {table} for each row execute function {schema}.note()"
    )
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        # What could not be written would be told here, as a warning.
        finish(process)
    assert server.run(f"select count(*) from {schema}.written where after < before + 60") == [(0,)]
    [(fewest, most, written)] = server.run(
        f"select min(count), max(count), count(*) from (select count(*) from {schema}.written group by id) as each"
    )
    minutes = 20 * rounds // 60 + 2
    assert (written, fewest > 0, most <= minutes) == (tokens, True, True)
    assert server.run(f"select min(last_used_timestamp) >= {1_700_000_000 + 20 * rounds - 80} from {table}") == [
        (True,)
    ]
