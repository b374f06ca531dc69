"""A PostgreSQL server that tests stop, freeze and break, and what they make in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET
from tests.support.postgres_outages import Proxy

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


@pytest.fixture
async def proxy(server: postgres.Server, anyio_backend: str) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as proxy:
        yield proxy
