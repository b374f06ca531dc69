"""The configuration block: every good form works, every broken one stops the start by the name of its key."""

import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_token_auth import Secret, from_config, secret_store_of
from asgi_token_auth.authentication import Authenticated, Credential, Source
from asgi_token_auth.config.assembly import build_sources
from asgi_token_auth.config.block import Configuration, read_configuration
from asgi_token_auth.config.values import MAX_CONFIG_FILE, MAX_SECRET_FILE
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import OUTCOME_KEY, TokenAuthMiddleware
from asgi_token_auth.secrets.encryption import generate_key
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.tokens.store import TokenStore
from tests.support import postgres

pytestmark = pytest.mark.anyio

# Every value that no message may repeat holds this word.
HIDDEN = "hunter2"
TOKEN = f"{HIDDEN}-hard-coded-token"
SECRET = f"{HIDDEN}-secret-of-this-test"
BOT = {"token": TOKEN, "actor": {"id": "bot"}}


@pytest.fixture(autouse=True)
def _no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATASETTE_SECRET", raising=False)
    monkeypatch.delenv("UNSET_VARIABLE", raising=False)


async def whoami(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers with the actor it was called with."""
    body = json.dumps(scope.get("actor")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def ask(app: TokenAuthMiddleware, token: str | None = None, url: str = "/") -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(url, headers=headers)


async def actor_of(app: TokenAuthMiddleware, token: str, url: str = "/") -> Any:
    response = await ask(app, token, url)
    assert response.status_code == 200, response.text
    return response.json()


def signed(secret: str) -> str:
    return SignedTokens(secret).create_token("root")


DATABASES = {"tokens": "tokens.db", "app": "app.db"}
QUERY = {"sql": "select actor_id, token_secret from tokens where token_id = :token_id", "database": "app"}

# The block, and what the message starts with. databases=DATABASES and no secret, unless the block has them.
BROKEN: dict[str, tuple[Any, str]] = {
    "nothing at all": ({}, "Nothing is configured"),
    "only switches": ({"required": True, "unknown": "pass"}, "Nothing is configured"),
    "no object": ([BOT], "The configuration must be an object"),
    "null": (None, "The configuration must be an object"),
    "an unknown key": ({"tokens": [BOT], "colour": 1}, "colour: there is no such key"),
    "a misspelled key": ({"token": [BOT]}, "token: there is no such key; did you mean tokens?"),
    "a key of another tool": ({"tokens": [BOT], "manage-tokens": True}, "manage-tokens: there is no such key; did you"),
    "a key that is no string": ({"tokens": [BOT], 5: 1}, "5: there is no such key"),
    "tokens is an object": ({"tokens": {TOKEN: {"id": "bot"}}}, "tokens: must be a list"),
    "tokens is a string": ({"tokens": TOKEN}, "tokens: must be a list"),
    "tokens is null": ({"tokens": None}, "tokens: must be a list"),
    "tokens is empty": ({"tokens": []}, "tokens: is empty"),
    "an entry is a string": ({"tokens": [BOT, TOKEN]}, "tokens: number 2 must be an object"),
    "an entry is null": ({"tokens": [None]}, "tokens: number 1 must be an object"),
    "an entry has another key": ({"tokens": [{**BOT, "note": HIDDEN}]}, "tokens: number 1 must be an object"),
    "an entry has no token": ({"tokens": [BOT, {"actor": {"id": "x"}}]}, "tokens: number 2 has no token"),
    "an entry has no actor": ({"tokens": [{"token": TOKEN}]}, "tokens: number 1 needs an actor"),
    "a token is a number": ({"tokens": [{"token": 5, "actor": {"id": "x"}}]}, "tokens: number 1 has a token that is"),
    "a token is null": ({"tokens": [{"token": None, "actor": {"id": "x"}}]}, "tokens: number 1 has a token that is"),
    "a token is empty": ({"tokens": [{"token": "", "actor": {"id": "x"}}]}, "tokens: number 1 has an empty token"),
    "a token beyond ASCII": (
        {"tokens": [{"token": f"{HIDDEN}-é", "actor": {"id": "x"}}]},
        "tokens: number 1 has a token that cannot be sent",
    ),
    "a token that is too long": (
        {"tokens": [{"token": HIDDEN * 2000, "actor": {"id": "x"}}]},
        "tokens: number 1 has a token that cannot be sent",
    ),
    "a token with a reserved prefix": (
        {"tokens": [{"token": f"dsatok_{HIDDEN}", "actor": {"id": "x"}}]},
        "tokens: number 1 has a token that starts with",
    ),
    "a token twice with two actors": (
        {"tokens": [BOT, BOT, {"token": TOKEN, "actor": {"id": "eve"}}]},
        "tokens: number 3 repeats the token",
    ),
    "a bad token behind a repeated one": (
        {"tokens": [BOT, BOT, {"token": "", "actor": {"id": "x"}}]},
        "tokens: number 3 has an empty token",
    ),
    "an actor is a string": ({"tokens": [{"token": TOKEN, "actor": "root"}]}, "tokens: number 1 needs an actor"),
    "an actor is empty": ({"tokens": [{"token": TOKEN, "actor": {}}]}, "tokens: number 1 needs an actor"),
    "an actor has no id": (
        {"tokens": [{"token": TOKEN, "actor": {"name": "x"}}]},
        "tokens: number 1 has an actor without",
    ),
    "an actor has malformed restrictions": (
        {"tokens": [{"token": TOKEN, "actor": {"id": "x", "_r": ["vt"]}}]},
        "tokens: number 1 has an actor whose `_r`",
    ),
    "a variable that is unset": (
        {"tokens": [{"token": {"$env": "UNSET_VARIABLE"}, "actor": {"id": "x"}}]},
        "tokens[0].token: the environment variable UNSET_VARIABLE is not set",
    ),
    "a variable without a name": (
        {"tokens": [{"token": {"$env": ""}, "actor": {"id": "x"}}]},
        "tokens[0].token: $env needs the name",
    ),
    "a variable within an actor": (
        {"tokens": [{"token": TOKEN, "actor": {"id": {"$env": "UNSET_VARIABLE"}}}]},
        "tokens[0].actor.id: the environment variable UNSET_VARIABLE is not set",
    ),
    "a file that is missing": ({"secret": {"$file": "no/such/file"}}, "secret: the file no/such/file cannot be read"),
    "a file without a name": ({"secret": {"$file": 5}}, "secret: $file needs the path"),
    "param is a number": ({"tokens": [BOT], "param": 5}, "param: must be the name of a query parameter"),
    "param is true": ({"tokens": [BOT], "param": True}, "param: must be the name of a query parameter"),
    "param is empty": ({"tokens": [BOT], "param": ""}, "param: is empty"),
    "param cannot be one": ({"tokens": [BOT], "param": f"a b {HIDDEN}"}, "param: give the name of a query parameter"),
    "query is a string": ({"query": QUERY["sql"]}, "query: must be an object"),
    "query has no sql": ({"query": {"database": "app"}}, "query.sql: give the SELECT"),
    "query.sql is a list": ({"query": {"sql": ["select 1"]}}, "query.sql: give the SELECT"),
    "query.sql is blank": ({"query": {"sql": " "}}, "query.sql: give the SELECT"),
    "query.sql does not use the id": (
        {"query": {**QUERY, "sql": "select 1"}},
        "query.sql: the query must use :token_id",
    ),
    "query has another key": ({"query": {**QUERY, "db": "app"}}, "query.db: there is no such key"),
    "query.database is a number": ({"query": {**QUERY, "database": 5}}, "query.database: give the name"),
    "query.database is unknown": (
        {"query": {**QUERY, "database": f"mysql://me:{HIDDEN}@host/db"}},
        "query.database: names no entry of databases=; they are: app, tokens",
    ),
    "query.database is a DSN that cannot be read": (
        {"query": {**QUERY, "database": f"postgres://me:{HIDDEN}?@host/db"}},
        "query.database: dsn: it cannot be read",
    ),
    "query.database is needed": (
        {"query": {"sql": QUERY["sql"]}},
        "query.database: name one of the databases: app, tokens",
    ),
    "manage_tokens is a string": ({"manage_tokens": "yes"}, "manage_tokens: must be true or false, not a string"),
    "manage_tokens is a number": ({"manage_tokens": 1}, "manage_tokens: must be true or false, not a number"),
    "manage_tokens without a secret": (
        {"manage_tokens": True, "manage_tokens_database": "tokens"},
        "secret: there is none",
    ),
    "manage_tokens_database without manage_tokens": (
        {"tokens": [BOT], "manage_tokens_database": "tokens"},
        "manage_tokens_database: has no effect without",
    ),
    "manage_tokens_database is a number": (
        {"manage_tokens": True, "manage_tokens_database": 5},
        "manage_tokens_database: must be the name",
    ),
    "manage_tokens_database is unknown": (
        {"manage_tokens": True, "manage_tokens_database": HIDDEN, "secret": SECRET},
        "manage_tokens_database: names no entry of databases=; they are: app, tokens",
    ),
    "manage_tokens_database is needed": (
        {"manage_tokens": True, "secret": SECRET},
        "manage_tokens_database: name one of the databases: app, tokens",
    ),
    "secret is a number": ({"secret": 5}, "secret: must be a string or a list"),
    "secret is null": ({"secret": None, "tokens": [BOT]}, "secret: must be a string or a list"),
    "secret is empty": ({"secret": "", "tokens": [BOT]}, "secret: is empty"),
    "secret is short": ({"secret": HIDDEN}, "secret: is shorter than 16"),
    "secret is an empty list": ({"secret": []}, "secret: is an empty list"),
    "a secret of several is short": ({"secret": [SECRET, HIDDEN]}, "secret: is shorter than 16"),
    "a secret of several is a number": ({"secret": [SECRET, 5]}, "secret: must be a string or a list"),
    "permissions is a list": ({"tokens": [BOT], "permissions": []}, "permissions: must be an object"),
    "permissions of an unknown action": (
        {"tokens": [BOT], "permissions": {"auth-tokens-crate": True}},
        "permissions.auth-tokens-crate: there is no such action",
    ),
    "permissions of a string": (
        {"tokens": [BOT], "permissions": {"manage-secrets": "bot"}},
        "permissions.manage-secrets: must be true, false or an object",
    ),
    "signed_tokens is null": (
        {"tokens": [BOT], "signed_tokens": None},
        "signed_tokens: must be true or false, not null",
    ),
    "signed_tokens without a secret": ({"tokens": [BOT], "signed_tokens": True}, "secret: there is none"),
    "max_signed_tokens_ttl is zero": ({"max_signed_tokens_ttl": 0}, "max_signed_tokens_ttl: must be 1 second or more"),
    "max_signed_tokens_ttl is negative": ({"max_signed_tokens_ttl": -1}, "max_signed_tokens_ttl: must be 1 second"),
    "max_signed_tokens_ttl is text": ({"max_signed_tokens_ttl": "60"}, "max_signed_tokens_ttl: must be a whole number"),
    "max_signed_tokens_ttl is true": ({"max_signed_tokens_ttl": True}, "max_signed_tokens_ttl: must be a whole number"),
    "max_signed_tokens_ttl is a fraction": ({"max_signed_tokens_ttl": 1.5}, "max_signed_tokens_ttl: must be a whole"),
    "max_signed_tokens_ttl of tokens that are off": (
        {"tokens": [BOT], "signed_tokens": False, "max_signed_tokens_ttl": 60},
        "max_signed_tokens_ttl: has no effect",
    ),
    "max_signed_tokens_ttl without a secret": ({"tokens": [BOT], "max_signed_tokens_ttl": 60}, "secret: there is none"),
    "required is a number": ({"tokens": [BOT], "required": 1}, "required: must be true or false"),
    "unknown is another word": ({"tokens": [BOT], "unknown": HIDDEN}, 'unknown: must be "reject" or "pass"'),
    "unknown is true": ({"tokens": [BOT], "unknown": True}, 'unknown: must be "reject" or "pass"'),
    "realm is a number": ({"tokens": [BOT], "realm": 5}, "realm: must be printable text"),
    "realm is empty": ({"tokens": [BOT], "realm": ""}, "realm: is empty"),
    "realm with a quote": ({"tokens": [BOT], "realm": 'a"b'}, "realm: give printable ASCII"),
    "realm with a line break": ({"tokens": [BOT], "realm": "a\r\nb"}, "realm: give printable ASCII"),
    "hide_credentials is a string": (
        {"tokens": [BOT], "hide_credentials": "no"},
        "hide_credentials: must be true or false",
    ),
    "max_expires_after is zero": (
        {"tokens": [BOT], "max_expires_after": 0},
        "max_expires_after: must be 1 second or more",
    ),
    "max_expires_after is text": ({"tokens": [BOT], "max_expires_after": "1d"}, "max_expires_after: must be a whole"),
    "tokens_may_manage_tokens is a list": (
        {"tokens": [BOT], "tokens_may_manage_tokens": []},
        "tokens_may_manage_tokens: must be true or false",
    ),
    "scopes is a string": ({"tokens": [BOT], "scopes": "edit"}, "scopes: must be a list of names"),
    "scopes is null": ({"tokens": [BOT], "scopes": None}, "scopes: must be a list of names"),
    "scopes holds a number": ({"tokens": [BOT], "scopes": ["edit", 5]}, "scopes: must be a list of names"),
    "scopes holds an empty name": ({"tokens": [BOT], "scopes": [""]}, "scopes: must be a list of names"),
    "scopes with a description that is no text": ({"tokens": [BOT], "scopes": {"edit": 5}}, "scopes: must be a list"),
    "expose_token_tables is a string": (
        {"tokens": [BOT], "expose_token_tables": "true"},
        "expose_token_tables: must be true or false",
    ),
    "secrets is a string": ({"tokens": [BOT], "secrets": HIDDEN}, "secrets: must be an object"),
    "secrets has no key": ({"tokens": [BOT], "secrets": {}}, "secrets.encryption_key: give one key"),
    "secrets has both spellings": (
        {"tokens": [BOT], "secrets": {"encryption_key": HIDDEN, "encryption-key": HIDDEN}},
        "secrets.encryption_key: give one key",
    ),
    "secrets has a key of another type": (
        {"tokens": [BOT], "secrets": {"encryption_key": 5}},
        "secrets.encryption_key: must be a string or a list",
    ),
    "secrets has an empty list of keys": (
        {"tokens": [BOT], "secrets": {"encryption_key": []}},
        "secrets.encryption_key: is an empty list",
    ),
    "secrets has an encryption key of null": (
        {"tokens": [BOT], "secrets": {"encryption_key": None}},
        "secrets.encryption_key: must be a string or a list",
    ),
    "secrets has an empty key": (
        {"tokens": [BOT], "secrets": {"encryption_key": [""]}},
        "secrets.encryption_key: must be",
    ),
    "secrets has another key": (
        {"tokens": [BOT], "secrets": {"encryption_key": HIDDEN, "note": HIDDEN}},
        "secrets.note: there is no such key",
    ),
    "secrets.database is a number": (
        {"tokens": [BOT], "secrets": {"encryption_key": HIDDEN, "database": 5}},
        "secrets.database: give the name",
    ),
}


@pytest.mark.parametrize(("block", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_block_stops_the_start_by_its_key_and_tells_no_value(block: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, block, databases=DATABASES)
    assert str(caught.value).startswith(message)
    assert HIDDEN not in str(caught.value)


BROKEN_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "databases is a list": ({"databases": ["tokens.db"]}, "databases: give an object"),
    "a database is a number": ({"databases": {"tokens": 5}}, "databases.tokens: must be a path"),
    "a database is null": ({"databases": {"tokens": None}}, "databases.tokens: must be a path"),
    "a database in memory": ({"databases": {"tokens": ":memory:"}}, "databases.tokens: SQLite: give the path"),
    "a database without a path": ({"databases": {"tokens": ""}}, "databases.tokens: SQLite: give the path"),
    "a DSN that cannot be read": (
        {"databases": {"tokens": f"postgresql://me:{HIDDEN}/@host/db"}},
        "databases.tokens: dsn: it cannot be read",
    ),
    "secret is short": ({"secret": HIDDEN}, "secret: is shorter than 16"),
    "secret is empty": ({"secret": ""}, "secret: is shorter than 16"),
    "secret is a number": ({"secret": 5}, "secret: must be a string"),
    "signed_in is no function": ({"signed_in": "alice"}, "signed_in: give an async function"),
}


@pytest.mark.parametrize(("arguments", "message"), BROKEN_ARGUMENTS.values(), ids=BROKEN_ARGUMENTS.keys())
def test_a_broken_argument_stops_the_start_by_its_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, {"tokens": [BOT]}, **arguments)
    assert str(caught.value).startswith(message)
    assert HIDDEN not in str(caught.value)


def test_no_database_at_all_is_named_by_the_key_that_needs_one() -> None:
    with pytest.raises(ConfigurationError, match=r"^manage_tokens_database: no database is known; pass databases="):
        from_config(whoami, {"manage_tokens": True, "secret": SECRET})
    with pytest.raises(ConfigurationError, match=r"^query.database: no database is known; pass databases="):
        from_config(whoami, {"query": {"sql": QUERY["sql"]}})


def test_nesting_without_end_is_refused() -> None:
    actor: dict[str, Any] = {"id": "bot"}
    actor["self"] = actor
    with pytest.raises(ConfigurationError, match=r"^tokens: is nested too deeply"):
        from_config(whoami, {"tokens": [{"token": TOKEN, "actor": actor}]})


KEYS = [
    *("tokens", "param", "query", "manage_tokens", "manage_tokens_database", "secret", "permissions", "signed_tokens"),
    *("max_signed_tokens_ttl", "required", "unknown", "realm", "hide_credentials", "max_expires_after"),
    *("tokens_may_manage_tokens", "scopes", "expose_token_tables", "secrets"),
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([TOKEN, "id", "pass"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "token",
                    "actor",
                    "id",
                    "_r",
                    "a",
                    "$env",
                    "$file",
                    "sql",
                    "database",
                    "encryption_key",
                    "manage-secrets",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
@settings(max_examples=200, deadline=None)
def test_any_block_is_read_or_refused_and_nothing_else(block: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(read_configuration(block), Configuration)


async def test_a_mapping_a_json_file_and_a_toml_file_mean_the_same(tmp_path: Path) -> None:
    block = {"tokens": [BOT], "param": "_auth_token", "unknown": "pass", "realm": "files"}
    as_json, as_toml = tmp_path / "block.json", tmp_path / "block.toml"
    as_json.write_text(json.dumps(block), encoding="utf-8")
    as_toml.write_text(
        f"""
        param = "_auth_token"
        unknown = "pass"
        realm = "files"
        [[tokens]]
        token = "{TOKEN}"
        actor = {{id = "bot"}}
        """,
        encoding="utf-8",
    )
    for given_ in (block, as_json, str(as_json), as_toml):
        app = from_config(whoami, given_)
        assert await actor_of(app, TOKEN) == {"id": "bot"}
        assert (await ask(app, url=f"/?_auth_token={TOKEN}")).json() == {"id": "bot"}
        assert (await ask(app, "unknown-to-everybody")).json() is None
        assert 'realm="files"' in (await ask(app, "a,b")).headers["www-authenticate"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("block.yaml", b"{}", "a configuration file ends in .json or .toml"),
        ("block", b"{}", "a configuration file ends in .json or .toml"),
        ("block.json", None, "cannot be read: No such file"),
        ("block.json", b'{"secret": "hunter2", }', "is not valid JSON"),
        ("block.json", b"[" * 100_000, "is not valid JSON"),
        ("block.json", b'{"secret": "hunter2\xff"}', "is not valid JSON in UTF-8"),
        ("block.json", b'["hunter2"]', "must hold one object"),
        ("block.toml", b"secret = hunter2", "is not valid TOML"),
        ("block.toml", b"\xff", "is not valid TOML in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_quoted(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert HIDDEN not in str(caught.value)


def test_an_enormous_configuration_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "block.json"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_CONFIG_FILE + 1)
    with pytest.raises(ConfigurationError, match="is larger than"):
        from_config(whoami, file)


async def test_variables_and_files_are_resolved_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    monkeypatch.setenv("BOT_TEAM", "blue")
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    (tmp_path / "token").write_bytes(b"another-hard-coded-token\r\n")
    block = {
        "tokens": [
            {"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot", "teams": [{"$env": "BOT_TEAM"}]}},
            {"token": {"$file": str(tmp_path / "token")}, "actor": {"id": "other"}},
        ],
        "secret": {"$file": str(tmp_path / "secret")},
    }
    app = from_config(whoami, block)
    assert await actor_of(app, TOKEN) == {"id": "bot", "teams": ["blue"]}
    assert await actor_of(app, "another-hard-coded-token") == {"id": "other"}
    assert await actor_of(app, signed(SECRET)) == {"id": "root", "token": "dstok"}


async def test_values_are_resolved_once_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable holds is a value, even where it looks like the name of another one."""
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    app = from_config(whoami, {"tokens": [{"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot"}}]})
    monkeypatch.setenv("BOT_TOKEN", "changed-after-the-start")
    assert await actor_of(app, TOKEN) == {"id": "bot"}
    assert (await ask(app, "changed-after-the-start")).status_code == 401


@pytest.mark.parametrize("content", [b"", b"\n", b"a" * (MAX_SECRET_FILE + 1), b"\xff"])
def test_a_secret_file_that_is_empty_too_long_or_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, {"secret": {"$file": str(file)}})
    assert str(caught.value).startswith(f"secret: the file {file} ")


def test_a_file_without_end_is_read_to_the_limit() -> None:
    with pytest.raises(ConfigurationError, match=r"^secret: the file /dev/zero is longer than 65,536"):
        from_config(whoami, {"secret": {"$file": "/dev/zero"}})


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


@contextlib.asynccontextmanager
async def open_resources(app: TokenAuthMiddleware) -> AsyncIterator[None]:
    """What a server does from its start to its end."""
    async with contextlib.AsyncExitStack() as opened:
        for resource in app.resources:
            await resource.open()
            opened.push_async_callback(resource.close)
        yield


async def test_sources_are_built_for_what_was_given_alone() -> None:
    configuration = read_configuration({"tokens": [BOT], "query": QUERY})
    (only,) = build_sources(configuration, signed=None, store=None, query_database=None)
    assert isinstance(only, Source)
    assert isinstance(await only.authenticate(Credential(TOKEN)), Authenticated)


def test_every_key_is_read() -> None:
    """A key that is accepted and forgotten would be a promise that nobody keeps."""
    block = {
        "tokens": [BOT],
        "param": "t",
        "query": QUERY,
        "manage_tokens": True,
        "manage_tokens_database": "tokens",
        "secret": SECRET,
        "permissions": {"manage-secrets": {"id": ["alice"]}, "auth-tokens-create": True},
        "signed_tokens": True,
        "max_signed_tokens_ttl": 60,
        "required": True,
        "unknown": "pass",
        "realm": "club",
        "hide_credentials": False,
        "max_expires_after": 3600,
        "tokens_may_manage_tokens": True,
        "scopes": ["edit", "publish"],
        "expose_token_tables": True,
        "secrets": {"encryption-key": [f"{HIDDEN}-old", f"{HIDDEN}-new"], "database": "secrets"},
    }
    read, default = read_configuration(block), Configuration()
    for name in Configuration.__dataclass_fields__:
        assert getattr(read, name) != getattr(default, name), name
    assert read.scopes == {"edit": "", "publish": ""}
    assert read.encryption_keys == (f"{HIDDEN}-old", f"{HIDDEN}-new")
    assert read_configuration({"secrets": {"encryption_key": HIDDEN}}).encryption_keys == (HIDDEN,)
    described = read_configuration({"manage_tokens": True, "scopes": {"edit": "Edit pages"}})
    assert described.scopes == {"edit": "Edit pages"}


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
        from_config(_nobody, block, databases={"tokens": tmp_path / "tokens.db"}, secret=None)


def test_a_key_that_stands_twice_in_a_json_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"param": "_one", "param": "_two"}')
    with pytest.raises(ConfigurationError, match="the same key twice"):
        from_config(_nobody, file)


def test_a_file_of_two_lines_is_no_secret_and_a_byte_order_mark_no_part_of_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xef\xbb\xbfa-token-in-a-file\r\n")
    block = {"tokens": [{"token": {"$file": str(file)}, "actor": {"id": "bot"}}]}
    assert list(read_configuration(block).tokens) == ["a-token-in-a-file"]
    file.write_text("a-token-in-a-file\nand-another\n")
    with pytest.raises(ConfigurationError, match="more than one line"):
        read_configuration(block)


def test_a_database_of_no_known_kind_is_refused_without_telling_its_password() -> None:
    with pytest.raises(ConfigurationError, match=r"^databases\.t: ") as refused:
        from_config(_nobody, {"manage_tokens": True}, databases={"t": f"mysql://u:{HIDDEN}@h/db"}, secret=SECRET)
    assert HIDDEN not in str(refused.value)


# Secrets


@pytest.fixture
def secrets_block() -> dict[str, Any]:
    return {"secrets": {"encryption_key": [generate_key(), generate_key()], "database": "secrets"}}


async def test_secrets_are_kept_where_the_block_says_and_opened_with_the_server(
    secrets_block: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "secrets.db"
    app = from_config(whoami, {"tokens": [BOT], **secrets_block}, databases={"secrets": file, "app": tmp_path / "x.db"})
    store = secret_store_of(app)
    store.register(Secret("API_KEY", "For the API"))
    assert not file.exists()
    async with open_resources(app):
        await store.set("API_KEY", "value")
        assert await store.get_secret("API_KEY", "alice") == "value"
        assert await actor_of(app, TOKEN) == {"id": "bot"}
    # Closing wrote down the use.
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("select last_used_by from datasette_secrets").fetchall() == [("alice",)]


@pytest.mark.parametrize("variable", [None, SECRET])
async def test_secrets_alone_let_every_request_pass_as_it_came(
    secrets_block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    # It may be there for the command line, or for another program.
    if variable is not None:
        monkeypatch.setenv("DATASETTE_SECRET", variable)
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await whoami(scope, receive, send)

    del secrets_block["secrets"]["database"]
    wrapped = from_config(app, secrets_block, databases={"any": tmp_path / "secrets.db"})
    # Tokens are the app's own business then.
    response = await ask(wrapped, "a-token-of-the-app")
    assert (response.status_code, response.json()) == (200, None)
    assert "vary" not in response.headers
    assert dict(scopes[0]["headers"])[b"authorization"] == b"Bearer a-token-of-the-app"
    assert OUTCOME_KEY not in scopes[0]
    # Without lifespan events the first use opens the database.
    assert await secret_store_of(wrapped).get_secret("API_KEY") is None
    await secret_store_of(wrapped).close()


async def test_signed_tokens_beside_secrets_are_checked_where_the_block_asks_for_them(
    secrets_block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", SECRET)
    databases = {"secrets": tmp_path / "secrets.db"}
    app = from_config(whoami, {**secrets_block, "signed_tokens": True}, databases=databases)
    assert await actor_of(app, SignedTokens(SECRET).create_token("alice")) == {"id": "alice", "token": "dstok"}
    assert (await ask(app, "a-token-of-nobody")).status_code == 401


@pytest.mark.parametrize(
    ("key", "value"),
    [("param", "_t"), ("required", True), ("unknown", "pass"), ("realm", "club"), ("hide_credentials", False)],
)
def test_with_secrets_alone_a_key_about_tokens_stops_the_start(
    secrets_block: dict[str, Any], tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{key}: has no effect, because nothing is configured"):
        from_config(_nobody, {**secrets_block, key: value}, databases={"secrets": tmp_path / "secrets.db"})


def test_an_app_without_secrets_has_no_store_of_them() -> None:
    with pytest.raises(ConfigurationError, match=r"^secrets: is not configured"):
        secret_store_of(from_config(_nobody, {"tokens": [BOT]}))


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({"encryption_key": HIDDEN}, "the key is not 32 bytes"),
        ({"encryption_key": ["A" * 43 + "=", HIDDEN]}, "key 2 of 2 is not 32 bytes"),
        ({"encryption-key": ["A" * 43 + "="] * 2}, "key 2 of 2 is there twice"),
    ],
)
def test_an_encryption_key_that_cannot_be_one_stops_the_start(secrets: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^secrets\.encryption_key: {message}") as refused:
        from_config(_nobody, {"secrets": secrets}, databases={"secrets": tmp_path / "secrets.db"})
    assert HIDDEN not in str(refused.value)


def test_the_database_of_secrets_must_be_known(secrets_block: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^secrets\.database: names no entry"):
        from_config(_nobody, secrets_block, databases={"other": tmp_path / "x.db"})
    with pytest.raises(ConfigurationError, match=r"^secrets\.database: no database is known"):
        from_config(_nobody, {"secrets": {"encryption_key": generate_key()}})


async def test_a_key_inside_of_the_very_table_stops_the_start(secrets_block: dict[str, Any], tmp_path: Path) -> None:
    app = from_config(_nobody, secrets_block, databases={"secrets": tmp_path / "secrets.db"})
    async with open_resources(app):
        await secret_store_of(app).set("API_KEY", "value")
    with contextlib.closing(sqlite3.connect(tmp_path / "secrets.db", isolation_level=None)) as connection:
        connection.execute("update datasette_secrets set note = ?", secrets_block["secrets"]["encryption_key"][:1])
    with pytest.raises(ConfigurationError, match="a key stands in a name or note"):
        async with open_resources(app):
            pass


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_key_file_that_others_may_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file = tmp_path / "key"
    key = generate_key()
    file.write_text(key + "\n")
    file.chmod(mode)
    block = {"secrets": {"encryption-key": [{"$file": str(file)}]}}
    assert read_configuration(block).encryption_keys == (key,)
    assert (f"the file {file}; chmod go-rwx" in caplog.text) == warned
    assert ("secrets.encryption-key[0]: other users" in caplog.text) == warned
    assert key not in caplog.text


def test_a_middleware_needs_something_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^sources: give at least one"):
        TokenAuthMiddleware(_nobody, sources=[])


def test_no_repr_of_a_configuration_tells_a_secret() -> None:
    block = {"tokens": [BOT], "secret": SECRET, "secrets": {"encryption_key": f"{HIDDEN}-key"}}
    assert HIDDEN not in repr(read_configuration(block))


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request is sent")


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
