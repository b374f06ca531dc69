"""What may happen on the way to a PostgreSQL server: cut, swallowed, shared out by a proxy, or in TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asgi_token_auth import SQLTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.address import database_at
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET, App, status_of
from tests.support.postgres_outages import Proxy, application, becomes, soon

pytestmark = pytest.mark.anyio


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


async def test_a_pooler_is_found_without_being_told(
    server: postgres.Server, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes, which name their statements alike, whose sessions are shared out by transactions."""
    caplog.set_level(logging.INFO)
    with pooled(server) as address:
        joint = "&" if "?" in address else "?"
        async with (
            TokenStore(database_at(f"{address}{joint}schema={schema}&pool_size=3"), secret=SECRET) as store,
            TokenStore(Postgres(address, schema=schema), secret=SECRET) as second,
            asyncio.timeout(60),
        ):
            assert "a pooler is in between" in caplog.text

            async def life(one: TokenStore, other: TokenStore) -> None:
                issued = await one.issue("ann")
                assert await status_of(application(other), issued.token) == 200
                await other.revoke(issued.record.id, owner="ann")
                assert await status_of(application(one), issued.token) == 401

            await asyncio.gather(*(life(*pair) for pair in [(store, second), (second, store)] * 8))
    caplog.clear()
    async with TokenStore(Postgres(server.dsn(), schema=schema), secret=SECRET):
        assert "pooler" not in caplog.text


async def test_statements_that_a_pooler_mixes_up_are_a_sentence_with_the_mend(
    server: postgres.Server, schema: str
) -> None:
    with pooled(server) as address:
        # Kept against better knowledge.
        databases = [Postgres(address, schema=schema, statement_cache_size=100) for _ in range(4)]
        said: list[str] = []

        async def ask(database: Postgres, number: int) -> None:
            try:
                await database.query(f"select {number % 5}, pg_sleep(0.001)", {})
            except StorageError as error:
                said.append(str(error))

        async with asyncio.timeout(60):
            while not said:
                await asyncio.gather(*(ask(database, number) for database in databases for number in range(12)))
        for database in databases:
            await database.close()
    assert any("Put statement_cache_size=0 into the DSN" in sentence for sentence in said), said


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
