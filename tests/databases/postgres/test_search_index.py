"""The index of PostgreSQL for searches: where it can be had it is, and where it cannot nothing fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ANY_OWNER, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)
DESCRIPTIONS = ["deploy", "DEPLOY 100%", "a_b", "a!b", "axb", "nightly deploy", "\u00c9t\u00e9", "", "de", "x" * 100]


@cache
def with_trigrams() -> Path | None:
    """The programs of a server that has pg_trgm; the one from a wheel has not."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if (newest := postgres.programs()) is not None:
        folders.insert(0, newest)
    for folder in folders:
        if (folder / "pg_config").exists() and (folder / "postgres").exists():
            asked = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
            if Path(asked.stdout.strip(), "extension", "pg_trgm.control").exists():
                return folder
    return None


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    folder = with_trigrams()
    if folder is None:
        needed = "needs a PostgreSQL server with pg_trgm: install the distribution's postgresql and postgresql-contrib"
        if "CI" in os.environ:
            pytest.fail(needed)
        pytest.skip(needed)
    with postgres.running(folder=folder) as server:
        yield server


@pytest.fixture
def database(server: postgres.Server) -> Iterator[str]:
    """The name of an empty database, in which nothing is installed."""
    name = f"d{next(_numbers)}"
    server.run(f"create database {name}")
    yield name
    server.run(f"drop database {name} with (force)")


def new_store(dsn: str, **more: str) -> TokenStore:
    return TokenStore(Postgres(dsn, **more), secret=SECRET, table="Tokens")  # type: ignore[arg-type]


def indexes(server: postgres.Server, dsn: str) -> list[tuple[str, str]]:
    return server.run("select schemaname, indexname from pg_indexes where indexdef like '%gin_trgm_ops%'", dsn=dsn)


async def check_searches(store: TokenStore) -> None:
    for description in DESCRIPTIONS:
        await store.issue("ann", description=description)
    every = (await store.list(owner=ANY_OWNER, limit=1000)).items
    for text in (
        "deploy",
        "EPL",
        "%",
        "_",
        "!",
        "a_b",
        "a!b",
        "\u00e9t\u00e9"[1:],
        "ann",
        "100%",
        "x" * 99,
        "missing",
        "de",
    ):
        wanted = [each.id for each in every if text.lower() in f"{each.description}\n{each.actor_id}".lower()]
        assert [each.id for each in (await store.list(owner=ANY_OWNER, search=text)).items] == wanted, text


async def check_searches_again(store: TokenStore) -> None:
    assert len((await store.list(owner=ANY_OWNER, search="EPL")).items) == 3


async def test_searches_find_the_same_without_the_extension(
    postgres_server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    postgres_server.run("create schema without_index")
    try:
        async with new_store(postgres_server.dsn(), schema="without_index") as store:
            await check_searches(store)
        # Neither is it looked for in vain at the next start.
        async with new_store(postgres_server.dsn(), schema="without_index") as store:
            await check_searches_again(store)
    finally:
        postgres_server.run("drop schema without_index cascade")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_extension_is_installed_and_used_where_it_may_be(server: postgres.Server, database: str) -> None:
    dsn = server.dsn(database)
    async with new_store(dsn) as store:
        assert indexes(server, dsn) == [("public", "tokens_search")]
        await check_searches(store)
    # A table as small as this one would be read as a whole.
    async with new_store(f"{dsn}&enable_seqscan=off&enable_indexscan=off") as store:
        await check_searches_again(store)
        seen: list[str] = []
        query = store.database.query

        async def planned(sql: str, parameters: Any, **more: Any) -> Any:
            seen.extend(row[0] for row in (await query(f"explain {sql}", parameters, **more)).rows)
            return await query(sql, parameters, **more)

        store.database.query = planned  # type: ignore[method-assign]
        await check_searches_again(store)
    assert "Bitmap Index Scan on tokens_search" in "\n".join(seen)
    # Whatever was lost is there again at the next start.
    for lost in (
        "drop extension pg_trgm cascade",
        "drop index tokens_search",
        "update pg_index set indisvalid = false where indexrelid = 'tokens_search'::regclass",
    ):
        server.run(lost, dsn=dsn)
        async with new_store(dsn) as store:
            await check_searches_again(store)
        valid = server.run("select indisvalid from pg_index where indexrelid = 'tokens_search'::regclass", dsn=dsn)
        assert valid == [(True,)]


async def test_who_may_not_install_it_goes_without_until_somebody_has(
    server: postgres.Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    dsn, limited = server.dsn(database), server.dsn(database, user="limited")
    reader = server.dsn(database, user="reader")
    server.run("create role limited login; create role reader login; create schema authorization limited", dsn=dsn)
    server.run("revoke create on schema public from public; grant usage on schema limited to reader", dsn=dsn)
    try:
        async with new_store(limited, schema="limited") as store:
            assert indexes(server, dsn) == []
            await check_searches(store)
        server.run("create schema extensions; create extension pg_trgm schema extensions", dsn=dsn)
        # Nobody may use its operators yet.
        async with new_store(limited, schema="limited") as store:
            assert indexes(server, dsn) == []
        server.run("grant usage on schema extensions to public; select 1", dsn=dsn)
        server.run("grant select on all tables in schema limited to reader; select 1", dsn=dsn)
        # One that may only read, and one whose session may, leave it to others.
        for other in (reader, f"{limited}&default_transaction_read_only=on"):
            async with new_store(other, schema="limited") as store:
                await check_searches_again(store)
            assert indexes(server, dsn) == []
        async with new_store(limited, schema="limited") as store:
            assert indexes(server, dsn) == [("limited", "tokens_search")]
            await check_searches_again(store)
    finally:
        server.run("drop owned by limited, reader cascade; drop role limited, reader", dsn=dsn)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_installation_that_fails_spoils_nothing_else(
    server: postgres.Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = server.dsn(database)
    server.run(
        "create function refuse() returns event_trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create event trigger refuse on ddl_command_start when tag in ('CREATE EXTENSION') execute function refuse()",
        dsn=dsn,
    )
    async with new_store(dsn) as store:
        await check_searches(store)
    assert indexes(server, dsn) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_many_schemas_at_once_install_it_once(server: postgres.Server, database: str) -> None:
    dsn = server.dsn(database)
    names = ["One", "two 2", "three", "four"]
    for name in names:
        server.run(f'create schema "{name}"', dsn=dsn)
    stores = [new_store(dsn, schema=name) for name in names]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await check_searches(store)
        await store.close()
    for store in stores:
        async with store:
            pass
    assert sorted(indexes(server, dsn)) == sorted((name, "tokens_search") for name in names)
