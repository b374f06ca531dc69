"""Every option of the block does inside Datasette what it says, or the start says that Datasette decides it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_token_auth import ConfigurationError, InvalidInput, Restrictions, SignedTokens
from asgi_token_auth.config.block import _KEYS
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.datasette import Secret, get_secret, token_store, wrap_datasette
from tests.support.page_sites import DAY, PATH
from tests.support.secret_sites import KEY
from tests.support.sites import (
    BOT,
    IS_1_0,
    SENSOR,
    TABLE,
    bearer,
    cookie,
    demo_files,
    issue,
    make,
    needs_1_0,
    registered,
    serving,
    signed,
    who,
)

pytestmark = pytest.mark.anyio

Effect = Callable[[Path], Awaitable[None]]

MANAGED = {"manage_tokens": True, "manage_tokens_database": "tokens"}
STATIC = {"tokens": [{"token": BOT, "actor": {"id": "bot"}}]}
ANN = {"permissions": {"auth-tokens-create": {"id": "ann"}}}

EFFECTS: dict[str, Effect] = {}


def effect(function: Effect) -> Effect:
    """The effect of the option that the function is called after."""
    EFFECTS[function.__name__.removeprefix("of_")] = function
    return function


def site(folder: Path, block: dict[str, Any], **more: Any) -> Any:
    """A Datasette with the block in its own configuration. Ann may create tokens, whichever version it is."""
    files = [folder / "demo.db", folder / "tokens.db"]
    if not files[0].exists():
        files = demo_files(folder, journal="delete")
    if "manage_tokens" in block and not IS_1_0:
        block = {**ANN, **block}
    return make(files, block, config=ANN if IS_1_0 else None, **more)


def refused(folder: Path, says: str, **option: Any) -> None:
    with pytest.raises(ConfigurationError, match=says):
        wrap_datasette(make(demo_files(folder)), {**MANAGED, **STATIC, **option})


@effect
async def of_tokens(folder: Path) -> None:
    async with serving(site(folder, STATIC).app()) as client:
        assert await who(client, BOT) == {"id": "bot", "token": "static"}


@effect
async def of_param(folder: Path) -> None:
    for option, sees in (({"param": "key"}, {"id": "bot", "token": "static"}), ({}, None)):
        async with serving(site(folder, {**STATIC, **option}).app()) as client:
            assert await who(client, params={"key": BOT}) == sees


@effect
async def of_query(folder: Path) -> None:
    sql = "select 'sensor-' || id as actor_id, token_secret from sensors where id = :token_id"
    for timeout in (1.0, 5):
        query = {"sql": sql, "database": "demo", "timeout": timeout}
        async with serving(site(folder, {"query": query}).app()) as client:
            assert (await who(client, SENSOR))["id"] == "sensor-1"
    # A table so long that it cannot be gone through in this time.
    long = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000000) select max(i) from n"
    query = {"sql": f"{sql} and ({long}) > 0", "database": "demo", "timeout": 0.05}
    async with serving(site(folder, {"query": query}).app()) as client:
        assert await who(client, SENSOR) == 503


@effect
async def of_manage_tokens(folder: Path) -> None:
    for block, status in ((MANAGED, 200), (STATIC, 404)):
        datasette = site(folder, block)
        async with serving(datasette.app()) as client:
            page = await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))
            assert page.status_code == status


@effect
async def of_manage_tokens_database(folder: Path) -> None:
    datasette = site(folder, {**MANAGED, "manage_tokens_database": "demo"})
    async with serving(datasette.app()):
        await issue(datasette)
    assert rows(folder / "demo.db", f"select actor_id from {TABLE}") == [("alice",)]


@effect
async def of_secret(folder: Path) -> None:
    former = SignedTokens("a former secret of this Datasette").create_token("carol")
    for option, sees in (({"secret": "a former secret of this Datasette"}, "carol"), ({}, None)):
        async with serving(site(folder, {**STATIC, **option}).app()) as client:
            seen = await who(client, former)
            assert (seen["id"] if sees else seen) == (sees or 401)
            assert (await who(client, signed("dave")))["id"] == "dave"


@effect
async def of_permissions(folder: Path) -> None:
    if IS_1_0:
        refused(folder, "permissions: Datasette 1.0 has its own", permissions={})
        return
    for actor_id, status in (("eve", 200), ("ann", 403)):
        datasette = site(folder, {**MANAGED, "permissions": {"auth-tokens-create": {"id": "eve"}}})
        async with serving(datasette.app()) as client:
            page = await client.get(f"{PATH}/create", headers=cookie(datasette, {"id": actor_id}))
            assert page.status_code == status


@effect
async def of_signed_tokens(folder: Path) -> None:
    if IS_1_0:
        refused(folder, "use its setting allow_signed_tokens", signed_tokens=False)
        return
    async with serving(site(folder, {**STATIC, "signed_tokens": False}).app()) as client:
        assert await who(client, signed()) == 401


@effect
async def of_max_signed_tokens_ttl(folder: Path) -> None:
    if IS_1_0:
        refused(folder, "use its setting of the same name", max_signed_tokens_ttl=60)
        return
    async with serving(site(folder, {**STATIC, "max_signed_tokens_ttl": 60}).app()) as client:
        assert "token_expires" in await who(client, signed())


@effect
async def of_required(folder: Path) -> None:
    refused(folder, "required: Datasette's own users cannot be seen from outside it", required=True)


@effect
async def of_unknown(folder: Path) -> None:
    for unknown, sees in (("pass", None), ("reject", 401)):
        async with serving(site(folder, {**STATIC, "unknown": unknown}).app()) as client:
            assert await who(client, "of-somebody-else") == sees


@effect
async def of_realm(folder: Path) -> None:
    async with serving(site(folder, {**STATIC, "realm": "plants"}).app()) as client:
        refusal = await client.get("/", headers=bearer("nobody-knows-this"))
        assert refusal.headers["www-authenticate"].startswith('Bearer realm="plants"')


@effect
async def of_hide_credentials(folder: Path) -> None:
    seen: list[str | None] = []

    def actor_from_request(datasette: Any, request: Any) -> None:
        seen.append(request.headers.get("authorization"))

    with registered(actor_from_request=actor_from_request):
        for option in ({"hide_credentials": False}, {}):
            async with serving(site(folder, {**STATIC, **option}).app()) as client:
                assert (await who(client, BOT))["id"] == "bot"
    assert seen == [f"Bearer {BOT}", "Bearer"]


@effect
async def of_prefix(folder: Path) -> None:
    datasette = site(folder, {**MANAGED, "prefix": "plants_"})
    async with serving(datasette.app()) as client:
        token = (await issue(datasette)).token
        assert token.startswith("plants_")
        assert (await who(client, token))["id"] == "alice"
        made = await client.post(f"{PATH}/create", data=DAY, headers=cookie(datasette, {"id": "ann"}))
        assert "plants_" in made.text
        assert "dsatok_" not in made.text


@effect
async def of_record_addresses(folder: Path) -> None:
    for record, address in ((True, "127.0.0.1"), (False, None)):
        datasette = site(folder, {**MANAGED, "record_addresses": record})
        async with serving(datasette.app()) as client:
            issued = await issue(datasette)
            assert (await who(client, issued.token))["id"] == "alice"
        sql = f"select last_used_timestamp is not null, last_used_address from {TABLE} where id = {issued.record.id}"
        assert rows(folder / "tokens.db", sql) == [(1, address)]


@effect
async def of_journal_mode(folder: Path) -> None:
    for option, journal in (({}, "delete"), ({"journal_mode": "keep"}, "delete"), ({"journal_mode": "wal"}, "wal")):
        datasette = site(folder, {**MANAGED, **option})
        async with serving(datasette.app()):
            await issue(datasette)
        assert rows(folder / "tokens.db", "pragma journal_mode") == [(journal,)]


@effect
async def of_wal_index(folder: Path) -> None:
    """What follows from it is in tests/databases/sqlite/test_wal_index.py."""
    for option, expected in (({}, True), ({"wal_index": True}, True), ({"wal_index": False}, False)):
        datasette = site(folder, {**MANAGED, **option})
        async with serving(datasette.app()):
            database = token_store(datasette).database
            assert isinstance(database, SQLite)
            assert database._wal_index is expected


@effect
async def of_max_token_bytes(folder: Path) -> None:
    async with serving(site(folder, {**STATIC, "max_token_bytes": 256}).app()) as client:
        assert await who(client, "x" * 257) == 400
        assert await who(client, "x" * 256) == 401


@effect
async def of_max_expires_after(folder: Path) -> None:
    datasette = site(folder, {**MANAGED, "max_expires_after": 3_600})
    async with serving(datasette.app()) as client:
        with pytest.raises(InvalidInput, match="at most 3600 seconds"):
            await issue(datasette, expires_after=timedelta(days=1))
        made = await client.post(f"{PATH}/create", data=DAY, headers=cookie(datasette, {"id": "ann"}))
        assert "Tokens live for at most 1 hour here." in made.text


@effect
async def of_tokens_may_manage_tokens(folder: Path) -> None:
    limits = Restrictions(all=("auth-tokens-create",))
    for option, status in (({"tokens_may_manage_tokens": True}, 200), ({}, 403)):
        datasette = site(folder, {**MANAGED, **option})
        async with serving(datasette.app()) as client:
            token = (await issue(datasette, "ann", restrictions=limits)).token
            # Datasette 0.65 takes no restricted token, so there no token may.
            expected = status if IS_1_0 else 403
            assert (await client.get(f"{PATH}.json", headers=bearer(token))).status_code == expected


@effect
async def of_scopes(folder: Path) -> None:
    refused(folder, "scopes: Datasette has actions of its own", scopes=["read"])


@effect
async def of_expose_token_tables(folder: Path) -> None:
    for option, shown in (({"expose_token_tables": True}, True), ({}, False)):
        datasette = site(folder, {**MANAGED, **option})
        async with serving(datasette.app()) as client:
            assert ((await client.get(f"/tokens/{TABLE}")).status_code == 200) is shown


@effect
async def of_secrets(folder: Path) -> None:
    datasette = site(folder, {"secrets": {"encryption_key": KEY, "database": "tokens"}})
    with registered(register_secrets=lambda datasette: [Secret("WEATHER")]):
        async with serving(datasette.app()):
            store = datasette._asgi_token_auth.secret_store()
            await get_secret(datasette, "WEATHER")
            await store.set("WEATHER", "sunny")
            assert await get_secret(datasette, "WEATHER") == "sunny"
    [(stored,)] = rows(folder / "tokens.db", "select encrypted from datasette_secrets")
    assert b"sunny" not in bytes(stored)


@effect
async def of_trusted_origins(folder: Path) -> None:
    origin = "http://intranet.example"
    if IS_1_0:
        refused(folder, "trusted_origins: Datasette 1.0 refuses such forms itself", trusted_origins=[origin])
        return
    for option, status in (({"trusted_origins": [origin]}, 200), ({}, 403)):
        datasette = site(folder, {**MANAGED, **option})
        async with serving(datasette.app()) as client:
            made = await created_from(client, cookie(datasette, {"id": "ann"}), origin)
            assert made.status_code == status


async def created_from(client: httpx.AsyncClient, headers: dict[str, str], origin: str) -> httpx.Response:
    return await client.post(f"{PATH}/create", data=DAY, headers={**headers, "origin": origin})


def rows(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def test_every_option_is_here() -> None:
    assert set(EFFECTS) == set(_KEYS)


@pytest.mark.parametrize("option", _KEYS)
async def test_an_option_does_in_datasette_what_it_says(option: str, tmp_path: Path) -> None:
    await EFFECTS[option](tmp_path)


@needs_1_0
async def test_the_store_of_plugins_has_the_options_too(tmp_path: Path) -> None:
    datasette = site(tmp_path, {**MANAGED, "prefix": "plants_", "record_addresses": True, "max_expires_after": 60})
    async with serving(datasette.app()):
        store = token_store(datasette)
        assert (store.text.prefix, store.record_addresses, store.max_expires_after) == ("plants_", True, 60)
