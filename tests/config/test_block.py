"""Every block is read or refused, by its key, and no value is told."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_token_auth import from_config
from asgi_token_auth.config.block import Configuration, read_configuration
from asgi_token_auth.errors import ConfigurationError
from tests.support.configured import BOT, HIDDEN, QUERY, SECRET, TOKEN, whoami

pytestmark = pytest.mark.anyio


DATABASES = {"tokens": "tokens.db", "app": "app.db"}


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
    "trusted_origins is a string": (
        {"manage_tokens": True, "trusted_origins": "https://example.com"},
        "trusted_origins: must be a list of origins",
    ),
    "trusted_origins holds a path": (
        {"manage_tokens": True, "trusted_origins": ["https://example.com/app"]},
        "trusted_origins: 'https://example.com/app' is no origin",
    ),
    "trusted_origins without pages": (
        {"tokens": [BOT], "trusted_origins": ["https://example.com"]},
        "trusted_origins: has no effect without manage_tokens or secrets",
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
    "secret is empty": ({"secret": ""}, "secret: is empty"),
    "secret is a number": ({"secret": 5}, "secret: must be a string"),
    "signed_in is no function": ({"signed_in": "alice"}, "signed_in: give a function of the scope"),
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


ARGUMENT, BLOCK, ENVIRONMENT = "argument-secret-of-this-test", "block-secret-of-this-test", "env-secret-of-this-test"


def test_every_key_is_read() -> None:
    """A key that is accepted and forgotten would be a promise that nobody keeps."""
    block = {
        "tokens": [BOT],
        "param": "t",
        "query": {**QUERY, "timeout": 5},
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
        "prefix": "acme_",
        "record_addresses": True,
        "journal_mode": "keep",
        "wal_index": False,
        "max_token_bytes": 4096,
        "tokens_may_manage_tokens": True,
        "scopes": ["edit", "publish"],
        "expose_token_tables": True,
        "secrets": {"encryption-key": [f"{HIDDEN}-old", f"{HIDDEN}-new"], "database": "secrets"},
        "trusted_origins": ["https://app.example.com"],
    }
    read, default = read_configuration(block), Configuration()
    for name in Configuration.__dataclass_fields__:
        assert getattr(read, name) != getattr(default, name), name
    assert read.scopes == {"edit": "", "publish": ""}
    assert read.encryption_keys == (f"{HIDDEN}-old", f"{HIDDEN}-new")
    assert read_configuration({"secrets": {"encryption_key": HIDDEN}}).encryption_keys == (HIDDEN,)
    described = read_configuration({"manage_tokens": True, "scopes": {"edit": "Edit pages"}})
    assert described.scopes == {"edit": "Edit pages"}


def test_no_repr_of_a_configuration_tells_a_secret() -> None:
    block = {"tokens": [BOT], "secret": SECRET, "secrets": {"encryption_key": f"{HIDDEN}-key"}}
    assert HIDDEN not in repr(read_configuration(block))
