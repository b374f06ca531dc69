"""What is built of a block works as it says."""

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import from_config
from asgi_token_auth.authentication import Authenticated, Credential, Source
from asgi_token_auth.config.assembly import build_sources
from asgi_token_auth.config.block import read_configuration
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import TokenAuthMiddleware
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.tokens.store import TokenStore
from tests.support import postgres
from tests.support.configured import BOT, HIDDEN, QUERY, SECRET, TOKEN, actor_of, ask, nobody, signed, whoami

pytestmark = pytest.mark.anyio


ARGUMENT, BLOCK, ENVIRONMENT = "argument-secret-of-this-test", "block-secret-of-this-test", "env-secret-of-this-test"


@pytest.mark.parametrize(
    ("argument", "block", "environment", "wins"),
    [
        (ARGUMENT, BLOCK, ENVIRONMENT, ARGUMENT),
        (None, BLOCK, ENVIRONMENT, BLOCK),
        (None, None, ENVIRONMENT, ENVIRONMENT),
        (ARGUMENT, None, ENVIRONMENT, ARGUMENT),
    ],
)
async def test_the_secret_is_the_arguments_then_the_blocks_then_the_environments(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, block: str | None, environment: str, wins: str
) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", environment)
    app = from_config(whoami, {} if block is None else {"secret": block}, secret=argument)
    for secret in (ARGUMENT, BLOCK, ENVIRONMENT):
        assert (await ask(app, signed(secret))).status_code == (200 if secret == wins else 401)


async def test_several_secrets_all_verify() -> None:
    app = from_config(whoami, {"secret": [BLOCK, SECRET]})
    for secret in (BLOCK, SECRET):
        assert await actor_of(app, signed(secret)) == {"id": "root", "token": "dstok"}


async def test_without_a_secret_hard_coded_tokens_work_and_signed_ones_are_refused() -> None:
    app = from_config(whoami, {"tokens": [BOT]})
    assert await actor_of(app, TOKEN) == {"id": "bot"}
    assert (await ask(app, signed(SECRET))).status_code == 401


async def test_signed_tokens_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing needs a secret, and a bad one in the environment is nobody's business."""
    monkeypatch.setenv("DATASETTE_SECRET", "short")
    app = from_config(whoami, {"tokens": [BOT], "signed_tokens": False})
    assert await actor_of(app, TOKEN) == {"id": "bot"}
    assert (await ask(app, signed(SECRET))).status_code == 401


def test_a_short_secret_of_the_environment_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", "short")
    with pytest.raises(ConfigurationError, match=r"^DATASETTE_SECRET: is shorter"):
        from_config(whoami, {"tokens": [BOT]})


async def test_the_longest_life_of_signed_tokens_is_kept() -> None:
    app = from_config(whoami, {"secret": SECRET, "max_signed_tokens_ttl": 100})
    old = SignedTokens(SECRET, clock=lambda: time.time() - 200).create_token("root", 10_000)
    assert (await ask(app, old)).status_code == 401
    assert (await actor_of(app, signed(SECRET)))["id"] == "root"


async def test_required_refuses_whoever_is_nobody() -> None:
    async def signed_in(scope: Any) -> Mapping[str, Any] | None:
        return {"id": "alice"} if scope["path"] == "/alice" else None

    app = from_config(whoami, {"tokens": [BOT], "required": True, "realm": "club"}, signed_in=signed_in)
    refused = await ask(app)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="club"'
    assert (await ask(app, url="/alice")).status_code == 200
    assert await actor_of(app, TOKEN) == {"id": "bot"}


@pytest.mark.parametrize(("hidden", "seen"), [(None, "Bearer"), (True, "Bearer"), (False, f"Bearer {TOKEN}")])
async def test_credentials_are_hidden_from_the_app_unless_told_otherwise(hidden: bool | None, seen: str) -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": dict(scope["headers"])[b"authorization"]})

    block = {"tokens": [BOT]} | ({} if hidden is None else {"hide_credentials": hidden})
    assert (await ask(from_config(echo, block), TOKEN)).text == seen


async def test_one_database_needs_no_name(tmp_path: Path) -> None:
    app = from_config(whoami, {"manage_tokens": True}, databases={"only": SQLite(tmp_path / "only.db")}, secret=SECRET)
    assert (await ask(app, "dsatok_unknown")).status_code == 401


async def test_the_block_of_the_design_works_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four sources at once, each through HTTP: none of them switches another off."""
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("create table tokens (token_id text, actor_id text, actor_name text, token_secret text)")
        connection.execute("insert into tokens values ('1', 'carol', 'Carol', 'of-her-own')")
    connection.close()
    databases: dict[str, str | Path] = {"tokens": str(tmp_path / "tokens.db"), "app": tmp_path / "app.db"}
    app = from_config(
        whoami,
        {
            "tokens": [{"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot"}}],
            "param": "_auth_token",
            "manage_tokens": True,
            "manage_tokens_database": "tokens",
            "query": {
                "sql": "select actor_id, actor_name, token_secret from tokens where token_id = :token_id",
                "database": "app",
            },
            "permissions": {"auth-tokens-create": {"id": "*"}},
        },
        databases=databases,
        secret=SECRET,
    )
    async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
        issued = await store.issue("alice")
    expected = {
        TOKEN: {"id": "bot"},
        signed(SECRET): {"id": "root", "token": "dstok"},
        issued.token: {"id": "alice", "token": "dsatok", "token_id": 1},
        "1-of-her-own": {"id": "carol", "name": "Carol"},
    }
    for token, actor in expected.items():
        assert await actor_of(app, token) == actor
        assert (await ask(app, url=f"/?_auth_token={token}")).json() == actor
    assert (await ask(app)).json() is None
    for token in ("1-wrong", "2-of-her-own", issued.token + "x", "unknown"):
        assert (await ask(app, token)).status_code == 401
    await close(app)


async def close(app: TokenAuthMiddleware) -> None:
    """What a server does at its shutdown."""
    for resource in app.resources:
        await resource.close()


async def test_sources_are_built_for_what_was_given_alone() -> None:
    configuration = read_configuration({"tokens": [BOT], "query": QUERY})
    (only,) = build_sources(configuration, signed=None, store=None, query_database=None)
    assert isinstance(only, Source)
    assert isinstance(await only.authenticate(Credential(TOKEN)), Authenticated)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("permissions", {"auth-tokens-create": True}),
        ("max_expires_after", 60),
        ("tokens_may_manage_tokens", True),
        ("scopes", ["edit"]),
        ("expose_token_tables", True),
    ],
)
def test_a_key_that_would_have_no_effect_stops_the_start(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{key}: has no effect without manage_tokens"):
        read_configuration({"tokens": [BOT], key: value})
    secrets = {"secrets": {"encryption_key": HIDDEN}}
    if key == "permissions":
        read_configuration({**secrets, key: value})
    else:
        with pytest.raises(ConfigurationError, match=f"^{key}: has no effect"):
            read_configuration({**secrets, key: value})


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ({"manage_tokens": True, "expose_token_tables": True}, "expose_token_tables"),
        ({"tokens": [BOT], "signed_tokens": False, "secret": SECRET}, "secret"),
    ],
)
def test_a_key_without_effect_in_a_generic_app_stops_the_start(block: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"^{key}: "):
        from_config(nobody, block, databases={"tokens": tmp_path / "tokens.db"}, secret=None)


def test_a_database_of_no_known_kind_is_refused_without_telling_its_password() -> None:
    with pytest.raises(ConfigurationError, match=r"^databases\.t: ") as refused:
        from_config(nobody, {"manage_tokens": True}, databases={"t": f"mysql://u:{HIDDEN}@h/db"}, secret=SECRET)
    assert HIDDEN not in str(refused.value)


def test_a_middleware_needs_something_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^sources: give at least one"):
        TokenAuthMiddleware(nobody, sources=[])


@pytest.mark.parametrize("as_name", [True, False], ids=["a name", "a DSN in place of a name"])
async def test_tokens_and_the_query_live_in_postgresql(
    postgres_server: postgres.Server, as_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = f"config_{as_name}".lower()
    postgres_server.run(
        f"create schema {schema}; create table {schema}.sensors (id integer primary key, name text, secret text); "
        f"insert into {schema}.sensors values (4, 'Greenhouse', 'open-sesame')"
    )
    dsn = f"{postgres_server.dsn()}&search_path={schema}"
    monkeypatch.setenv("TOKENS_DSN", dsn)
    name: Any = "tokens" if as_name else {"$env": "TOKENS_DSN"}
    sql = "select id as actor_id, name as actor_name, secret as token_secret from sensors where id = :token_id"
    block = {
        "manage_tokens": True,
        "manage_tokens_database": name,
        "query": {"sql": sql, "database": name},
    }
    app = from_config(whoami, block, databases={"tokens": dsn} if as_name else None, secret=SECRET)
    async with TokenStore(Postgres(dsn), secret=SECRET) as store:
        issued = await store.issue("ann")
        assert (await actor_of(app, issued.token))["id"] == "ann"
        assert (await actor_of(app, "4-open-sesame"))["id"] == 4
        assert [(await ask(app, token)).status_code for token in ("4-wrong", "four-open-sesame")] == [401, 401]
        await store.revoke(issued.record.id, owner="ann")
        assert (await ask(app, issued.token)).status_code == 401
    postgres_server.run(f"drop schema {schema} cascade")
