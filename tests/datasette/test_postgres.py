"""Datasette whose tokens, custom SQL and secrets are in PostgreSQL, shared by many machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.datasette import get_secret, wrap_datasette
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.secrets.encryption import generate_key
from asgi_token_auth.secrets.store import SecretStore
from tests.support import postgres
from tests.support.sites import IS_1_0, SECRET, demo_files, issue, make, needs_1_0, serving, signed, who

pytestmark = pytest.mark.anyio

SQL = "select 'sensor-' || id as actor_id, name as actor_name, secret as token_secret from sensors where id = :token_id"


@pytest.fixture
def dsn(postgres_server: postgres.Server) -> Iterator[str]:
    postgres_server.run(
        "create schema inside_datasette; "
        "create table inside_datasette.sensors (id integer primary key, name text, secret text); "
        "insert into inside_datasette.sensors values (1, 'Greenhouse', 'open-sesame')"
    )
    yield f"{postgres_server.dsn()}&search_path=inside_datasette"
    postgres_server.run("drop schema inside_datasette cascade")


def block(database: str | dict[str, str]) -> dict[str, Any]:
    return {
        "manage_tokens": True,
        "manage_tokens_database": database,
        "query": {"sql": SQL, "database": database},
        "secrets": {"encryption_key": generate_key(), "database": database},
    }


@pytest.mark.parametrize("way", ["wrapped, a name", "wrapped, a DSN", "plugin, a DSN"])
async def test_a_revocation_on_one_machine_is_seen_by_the_other(
    tmp_path: Path, dsn: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENS_DSN", dsn)
    by_name = way == "wrapped, a name"
    settings = block("shared" if by_name else {"$env": "TOKENS_DSN"})
    datasette = make(demo_files(tmp_path), settings)
    app = (
        datasette.app()
        if way.startswith("plugin")
        else wrap_datasette(datasette, databases={"shared": dsn} if by_name else None)
    )
    async with serving(app) as client, TokenStore(Postgres(dsn), secret=SECRET) as elsewhere:
        issued = await issue(datasette)
        assert (await who(client, issued.token))["id"] == "alice"
        assert (await who(client, "1-open-sesame"))["id"] == "sensor-1"
        assert [await who(client, token) for token in ("1-wrong", "one-open-sesame", "1e3-x")] == [401, 401, 401]
        assert (await who(client, signed()))["id"] == "carol"
        if IS_1_0:
            assert (await client.get("/-/databases.json")).json()
        await elsewhere.revoke(issued.record.id, owner="alice")
        assert await who(client, issued.token) == 401
        page = await client.get("/-/api/tokens.json")
        assert page.status_code == 403


@needs_1_0
async def test_secrets_are_shared_too(tmp_path: Path, dsn: str) -> None:
    settings = block(dsn)
    datasette = make(demo_files(tmp_path), settings)
    async with (
        serving(wrap_datasette(datasette)),
        SecretStore(Postgres(dsn), encryption_key=settings["secrets"]["encryption_key"]) as elsewhere,
    ):
        await elsewhere.set("EXAMPLE_SECRET", "from another machine", by="ann")
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "from another machine"


async def test_a_dsn_that_is_not_understood_is_refused_without_its_password(tmp_path: Path) -> None:
    for address in ("mysql://me:hunter2@host/db", "postgresql://me:hunter2/x@host/db"):
        with pytest.raises(ConfigurationError) as caught:
            wrap_datasette(make(demo_files(tmp_path), block(address)))
        assert str(caught.value).startswith("manage_tokens_database: ")
        assert "hunter2" not in str(caught.value)
        for file in tmp_path.iterdir():
            file.unlink()
