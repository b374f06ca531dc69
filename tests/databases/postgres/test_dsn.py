"""What a DSN says that cannot be used, and that its password is in no message."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest

from asgi_token_auth import ConfigurationError, ManagedTokens, SQLTokens, StorageError, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.postgres.dsn import split_options
from tests.support import postgres
from tests.support.asgi import SECRET, App, ask, bearer, http
from tests.support.postgres_outages import soon

pytestmark = pytest.mark.anyio


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
        ({"127.0.0.1": "host.invalid"}, "it cannot be reached; (the name of its host|check)"),
        ({"PORT": "1"}, "it cannot be reached; nothing listens there"),
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


OPTIONS = "statement_cache_size=0&pool_size=7&schema=api%20tokens&allow_stale_reads=true"


@pytest.mark.parametrize(
    ("dsn", "left"),
    [
        (f"postgresql://u:hunter2@h/d?{OPTIONS}", "postgresql://u:hunter2@h/d"),
        (f"postgresql://u:hunter2@h/d?sslmode=require&{OPTIONS}", "postgresql://u:hunter2@h/d?sslmode=require"),
        (f"postgresql://h/d?{OPTIONS}&host=%2Frun", "postgresql://h/d?host=%2Frun"),
    ],
)
def test_options_of_ours_never_reach_the_driver(dsn: str, left: str) -> None:
    assert split_options(dsn) == (
        left,
        {"statement_cache_size": 0, "pool_size": 7, "schema": "api tokens", "allow_stale_reads": True},
    )
    assert "hunter2" not in repr(Postgres(dsn))
    assert Postgres(dsn).qualified("t") == '"api tokens".t'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("pool_size=0", "pool_size: give a whole number of connections"),
        ("pool_size=many", "dsn: pool_size is a whole number"),
        ("pool_size=2&pool_size=3", "dsn: pool_size is there twice"),
        ("statement_cache_size=-1", "dsn: statement_cache_size is a whole number"),
        ("statement_cache_size=", "dsn: statement_cache_size is a whole number"),
        ("schema=", "schema: give the name of a schema"),
        ("allow_stale_reads=1", "dsn: allow_stale_reads is true or false"),
        ("statement_cachesize=0", "did you mean statement_cache_size"),
        ("poolsize=3", "did you mean pool_size"),
        ("pgbouncer=true", "write statement_cache_size=0"),
        ("prepareThreshold=0", "write statement_cache_size=0"),
        ("prepared_statement_cache_size=0", "write statement_cache_size for it"),
    ],
)
def test_options_of_a_dsn_that_cannot_be_are_named(options: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        Postgres(f"postgresql://u:hunter2@h/d?{options}")
    assert "hunter2" not in str(raised.value)


def test_an_option_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="pool_size: is given twice"):
        Postgres("postgresql://h/d?pool_size=3", pool_size=3)
