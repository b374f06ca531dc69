"""What Python can say, blocks, DSNs and commands can say too, or there is a reason why not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from asgi_token_auth import (
    ConfigurationError,
    ManagedTokens,
    SecretStore,
    SignedTokens,
    SQLTokens,
    TokenAuthMiddleware,
    TokenStore,
    from_config,
)
from asgi_token_auth.cli.commands import root
from asgi_token_auth.config.block import _KEYS, read_configuration
from asgi_token_auth.databases.address import DSN_OPTIONS, database_at, with_options
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.postgres.dsn import PostgresOptions, split_options
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.configured import BOT, QUERY, SECRET, actor_of, ask, whoami

pytestmark = pytest.mark.anyio

#: Of each argument: what says it elsewhere ("block:", "dsn:", "command:"), or why nothing does.
MIDDLEWARE = {
    "app": "what is wrapped",
    "sources": "block:tokens block:manage_tokens block:query block:signed_tokens",
    "parameter": "block:param",
    "required": "block:required",
    "unknown": "block:unknown",
    "realm": "block:realm",
    "hide_credentials": "block:hide_credentials",
    "max_token_bytes": "block:max_token_bytes",
    "on_event": "is a function",
    "signed_in": "is a function, and an argument of from_config",
    "drop_cookies": "is for hosts that embed the middleware; Datasette's plugin sets it",
    "forbid": "is a function",
    "refusal_headers": "is for hosts that embed the middleware; Datasette's plugin sets it",
    "resources": "block:secrets",
    "vary": "is for hosts that embed the middleware; Datasette's plugin sets it",
}
TOKEN_STORE = {
    "database": "block:manage_tokens_database command:--database",
    "secret": "block:secret command:--secret-file",
    "table": "the commands, and what hides tables from Datasette's pages, know the usual name",
    "prefix": "block:prefix command:--prefix",
    "clock": "is a function",
    "record_addresses": "block:record_addresses",
    "max_expires_after": "block:max_expires_after",
}
POSTGRES = {
    "dsn": "block:manage_tokens_database command:--database",
    "schema": "dsn:schema",
    "pool_size": "dsn:pool_size",
    "statement_cache_size": "dsn:statement_cache_size",
    "allow_stale_reads": "dsn:allow_stale_reads",
    "ssl": "is an object; sslmode, sslrootcert, sslcert and sslkey of the DSN say what files can",
}
SQLITE = {
    "path": "block:manage_tokens_database command:--database",
    "journal_mode": "block:journal_mode",
    "wal_index": "block:wal_index",
    "create": "follows from the use, since custom SQL never makes a file, a store does",
}
SQL_TOKENS = {"database": "block:query", "sql": "block:query", "timeout": "block:query"}
SIGNED_TOKENS = {"secret": "block:secret", "max_ttl": "block:max_signed_tokens_ttl", "clock": "is a function"}
SECRET_STORE = {
    "database": "block:secrets command:--database",
    "encryption_key": "block:secrets command:--encryption-key-file",
    "secrets": "are registered by code that uses them",
    "table": "the commands, and what hides tables from Datasette's pages, know the usual name",
    "environ": "is for tests and commands; a server has one environment",
    "clock": "is a function",
}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (TokenAuthMiddleware, MIDDLEWARE),
        (TokenStore, TOKEN_STORE),
        (Postgres, POSTGRES),
        (SQLite, SQLITE),
        (SQLTokens, SQL_TOKENS),
        (SignedTokens, SIGNED_TOKENS),
        (SecretStore, SECRET_STORE),
        (ManagedTokens, {"store": "block:manage_tokens"}),
    ],
)
def test_every_argument_can_be_said_elsewhere_or_has_a_reason(made: Callable[..., Any], said: dict[str, str]) -> None:
    assert set(inspect.signature(made).parameters) == set(said)
    options = {name for command in _commands(root) for option in command.params for name in option.opts}
    for places in said.values():
        for kind, _, name in (place.partition(":") for place in places.split() if ":" in place):
            assert name in {"block": set(_KEYS), "dsn": set(DSN_OPTIONS), "command": options}[kind]


def _commands(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [inner for each in command.commands.values() for inner in _commands(each)]
    return [command]


def test_a_dsn_can_say_what_is_listed() -> None:
    assert set(DSN_OPTIONS) == set(PostgresOptions.__annotations__)
    said = {"schema": "api tokens", "pool_size": 3, "statement_cache_size": 0, "allow_stale_reads": True}
    assert set(said) == set(DSN_OPTIONS)
    for dsn in ("postgresql://u:p@h/d", "postgresql://u:p@h/d?sslmode=require"):
        assert split_options(with_options(dsn, said)) == (dsn, said)
        for block, read in (
            ({"manage_tokens": True, "manage_tokens_database": {"dsn": dsn, **said}}, "manage_tokens_database"),
            ({"query": {**QUERY, "database": {"dsn": dsn, **said}}}, "query_database"),
            ({"secrets": {"encryption_key": "k", "database": {"dsn": dsn, **said}}}, "secrets_database"),
        ):
            address = getattr(read_configuration(block), read)
            assert split_options(address) == (dsn, said)
            database_at(address)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"dsn": "tokens.db"}, "manage_tokens_database.dsn: give the DSN"),
        ({"schema": "x"}, "manage_tokens_database.dsn: give the DSN"),
        ({"dsn": "postgresql://h/d", "poolsize": 3}, "manage_tokens_database.poolsize: there is no such key"),
        ({"dsn": "postgresql://h/d", "pool_size": "3"}, "manage_tokens_database.pool_size: a string cannot be"),
        ({"dsn": "postgresql://h/d", "pool_size": True}, "manage_tokens_database.pool_size: true or false cannot be"),
        ({"dsn": "postgresql://h/d", "pool_size": 0}, "manage_tokens_database: pool_size: give a whole number"),
        (5, "manage_tokens_database: must be the name"),
    ],
)
def test_a_database_that_cannot_be_is_named(given: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        from_config(whoami, {"manage_tokens": True, "manage_tokens_database": given}, secret=SECRET)


async def test_what_a_block_says_of_managed_tokens_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TokenStore] = []

    def make(*arguments: Any, **named: Any) -> TokenStore:
        made.append(TokenStore(*arguments, **named))
        return made[-1]

    monkeypatch.setattr("asgi_token_auth.config.assembly.TokenStore", make)
    block = {"manage_tokens": True, "prefix": "acme_", "record_addresses": True, "journal_mode": "keep"}
    block |= {"wal_index": False}
    app = from_config(whoami, block, databases={"tokens": tmp_path / "tokens.db"}, secret=SECRET)
    async with TokenStore(SQLite(tmp_path / "tokens.db", journal_mode=None), secret=SECRET, prefix="acme_") as store:
        issued = await store.issue("ann")
        assert issued.token.startswith("acme_")
        assert (await actor_of(app, issued.token))["id"] == "ann"
        mode = await store.database.query("pragma journal_mode", {})
        assert mode.rows == [("delete",)]
    assert made[0].record_addresses is True
    assert isinstance(made[0].database, SQLite)
    assert made[0].database._wal_index is False
    limited = from_config(whoami, {"tokens": [BOT], "max_token_bytes": 64})
    assert (await ask(limited, "x" * 65)).status_code == 400
    assert (await ask(limited, "x" * 64)).status_code == 401


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"manage_tokens": True, "prefix": "hunter2"}, "prefix: must be"),
        ({"manage_tokens": True, "journal_mode": "delete"}, "journal_mode: must be"),
        ({"tokens": [BOT], "journal_mode": "wal"}, "journal_mode: has no effect"),
        ({"tokens": [BOT], "wal_index": False}, "wal_index: has no effect"),
        ({"manage_tokens": True, "wal_index": "no"}, "wal_index: must be"),
        (
            {"manage_tokens": True, "manage_tokens_database": "postgresql://u@h/d", "journal_mode": "wal"},
            "journal_mode: has no",
        ),
        ({"manage_tokens": True, "max_token_bytes": 5}, "max_token_bytes: give"),
        ({"manage_tokens": True, "record_addresses": "yes"}, "record_addresses: must be true or false"),
        ({"tokens": [BOT], "prefix": "acme_"}, "prefix: has no effect without manage_tokens"),
        ({"tokens": [BOT], "record_addresses": True}, "record_addresses: has no effect without manage_tokens"),
        ({"query": {**QUERY, "timeout": 0}}, "query.timeout: give"),
        ({"query": {**QUERY, "timeout": "1"}}, "query.timeout: give"),
    ],
)
def test_what_it_cannot_say_is_named(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        read_configuration(block)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(("key", "value"), [("journal_mode", "wal"), ("wal_index", False)])
def test_an_option_of_files_without_a_file_is_refused(tmp_path: Path, key: str, value: object) -> None:
    block = {"manage_tokens": True, key: value}
    file = tmp_path / "tokens.db"
    from_config(whoami, block, databases={"tokens": file}, secret=SECRET)
    for given in (SQLite(file), "postgresql://u@h/d"):
        with pytest.raises(ConfigurationError, match=f"{key}: has no effect"):
            from_config(whoami, block, databases={"tokens": given}, secret=SECRET)
