"""The configuration block: read, checked to the last key, and turned into a wrapped app."""

from __future__ import annotations

import difflib
import json
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from asgi_token_auth.authentication import Actor, CallableSource, Source
from asgi_token_auth.bearer import QueryParameter
from asgi_token_auth.databases.address import database_at, is_dsn
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import ASGIApp, SignedIn, TokenAuthMiddleware
from asgi_token_auth.secret_store import SecretStore
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.sources.sql import SQLTokens
from asgi_token_auth.sources.static import StaticTokens, check_token, checked_actor
from asgi_token_auth.store import TokenStore
from asgi_token_auth.tokens import SecretInput, SigningSecrets

logger = logging.getLogger("asgi_token_auth")

#: Names, and what they stand for: a path, a DSN or a database.
Databases: TypeAlias = Mapping[str, str | os.PathLike[str] | Database]

#: The actions that people may be allowed.
ACTIONS: Final = ("auth-tokens-create", "auth-tokens-view-all", "auth-tokens-revoke-all", "manage-secrets")

#: Bytes of a file named by ``$file``, and of a configuration file.
MAX_SECRET_FILE: Final = 65_536
MAX_CONFIG_FILE: Final = 16 * 1_048_576

_KEYS: Final = (
    "tokens",
    "param",
    "query",
    "manage_tokens",
    "manage_tokens_database",
    "secret",
    "permissions",
    "signed_tokens",
    "max_signed_tokens_ttl",
    "required",
    "unknown",
    "realm",
    "hide_credentials",
    "max_expires_after",
    "tokens_may_manage_tokens",
    "scopes",
    "expose_token_tables",
    "secrets",
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration block in which every value has been checked."""

    tokens: Mapping[str, Actor] = field(default_factory=dict, repr=False)
    param: str | None = None
    query_sql: str | None = None
    query_database: str | None = None
    manage_tokens: bool = False
    manage_tokens_database: str | None = None
    secret: SecretInput | None = field(default=None, repr=False)
    permissions: Mapping[str, Any] | None = None
    signed_tokens: bool | None = None
    max_signed_tokens_ttl: int | None = None
    required: bool = False
    unknown: Literal["reject", "pass"] = "reject"
    realm: str = "api"
    hide_credentials: bool = True
    max_expires_after: int | None = None
    tokens_may_manage_tokens: bool = False
    scopes: Mapping[str, str] = field(default_factory=dict)
    expose_token_tables: bool = False
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    secrets_database: str | None = None


def from_config(
    app: ASGIApp,
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    databases: Databases | None = None,
    secret: SecretInput | None = None,
    signed_in: SignedIn | None = None,
) -> TokenAuthMiddleware:
    """Wrap ``app`` as the configuration block says.

    Args:
        config: the block, or the path of a ``.json`` or ``.toml`` file that holds it.
        databases: the databases that the block names: a path, a PostgreSQL DSN, or a ``Database``.
        secret: signs managed and signed tokens. Default: the block's ``secret``, then DATASETTE_SECRET.
        signed_in: the app's own way to say who is asking, an async function of the scope.

    Raises:
        ConfigurationError: anything in it cannot work. The message names the key and the mend.
    """
    block = read_file(config) if isinstance(config, (str, os.PathLike)) else config
    configuration = read_configuration(block)
    if signed_in is not None and not callable(signed_in):
        raise ConfigurationError("signed_in: give an async function of the scope.")
    if configuration.expose_token_tables:
        raise ConfigurationError("expose_token_tables: is about Datasette's table pages; remove the key.")
    if configuration.secret is not None and configuration.signed_tokens is False and not configuration.manage_tokens:
        raise ConfigurationError(
            "secret: has no effect with signed_tokens: false and without manage_tokens; remove it."
        )
    opened = read_databases(databases)
    signing = _signing(configuration, configuration.secret if secret is None else secret)
    store = None
    if configuration.manage_tokens:
        name = configuration.manage_tokens_database
        store = TokenStore(
            _database(opened, name, "manage_tokens_database"),
            secret=signing,
            max_expires_after=configuration.max_expires_after,
        )
    query_database = None
    if configuration.query_sql is not None:
        query_database = _reading(_database(opened, configuration.query_database, "query.database"))
    signed = None
    if signing is not None and configuration.signed_tokens is not False:
        signed = SignedTokens(signing, max_ttl=configuration.max_signed_tokens_ttl)
    sources = build_sources(configuration, signed=signed, store=store, query_database=query_database)
    secret_store = _secret_store(configuration, opened)
    if not sources:
        _check_without_tokens(configuration)
    return TokenAuthMiddleware(
        _with_pages(app, store, secret_store, configuration, signed_in),
        sources=sources,
        parameter=configuration.param,
        required=configuration.required,
        unknown=configuration.unknown,
        realm=configuration.realm,
        hide_credentials=configuration.hide_credentials,
        signed_in=signed_in,
        resources=[] if secret_store is None else [secret_store],
    )


def secret_store_of(app: TokenAuthMiddleware) -> SecretStore:
    """The store of encrypted secrets that the configuration of ``app`` asked for.

    Raises:
        ConfigurationError: it asked for none.
    """
    for resource in app.resources:
        if isinstance(resource, SecretStore):
            return resource
    raise ConfigurationError("secrets: is not configured for this app; add the key to its configuration.")


def _secret_store(configuration: Configuration, databases: dict[str, Database]) -> SecretStore | None:
    if not configuration.encryption_keys:
        return None
    database = _database(databases, configuration.secrets_database, "secrets.database")
    try:
        return SecretStore(database, encryption_key=configuration.encryption_keys)
    except ConfigurationError as error:
        raise ConfigurationError(f"secrets.{error}") from error


def _check_without_tokens(configuration: Configuration) -> None:
    """What a block may say that has no source of tokens.

    Raises:
        ConfigurationError: there are no secrets either, or a key is about tokens.
    """
    if not configuration.encryption_keys:
        raise ConfigurationError(
            "Nothing is configured, so no token could ever be valid: set tokens, manage_tokens, query, or a secret "
            "for signed tokens."
        )
    default = Configuration()
    for key in ("param", "required", "unknown", "realm", "hide_credentials"):
        if getattr(configuration, key) != getattr(default, key):
            raise ConfigurationError(
                f"{key}: has no effect, because nothing is configured that could check a token; remove the key."
            )


def _with_pages(
    app: ASGIApp,
    store: TokenStore | None,
    secret_store: SecretStore | None,
    configuration: Configuration,
    signed_in: SignedIn | None,
) -> ASGIApp:
    if store is None and secret_store is None:
        return app
    try:
        # Here and not above: the pages need an extra, and everything else works without it.
        from asgi_token_auth.web import secrets, tokens
        from asgi_token_auth.web.host import AnyApp
        from asgi_token_auth.web.mount import Mounted
    except ImportError as error:
        if configuration.permissions or configuration.scopes or configuration.tokens_may_manage_tokens:
            raise ConfigurationError(
                "permissions, scopes and tokens_may_manage_tokens are for the pages, which need more packages: "
                "pip install 'asgi-token-auth[web]'."
            ) from error
        return app
    sections = [
        *([] if store is None else [tokens.SECTION]),
        *([] if secret_store is None else [secrets.SECTION]),
    ]
    host = AnyApp(
        signed_in=signed_in,
        permissions=configuration.permissions or {},
        scopes=configuration.scopes,
        sections=sections,
    )
    pages: dict[str, ASGIApp] = {}
    if store is not None:
        managing = configuration.tokens_may_manage_tokens
        pages[tokens.PATH] = tokens.TokenPages(store, tokens_may_manage_tokens=managing, host=host)
    if secret_store is not None:
        pages[secrets.PATH] = secrets.SecretPages(secret_store, host=host)
    return Mounted(app, pages)


def _signing(configuration: Configuration, given: SecretInput | None) -> SigningSecrets | None:
    needed = configuration.manage_tokens or configuration.signed_tokens or configuration.max_signed_tokens_ttl
    if given is None and not needed:
        if configuration.signed_tokens is False:
            return None
        # An app that only keeps secrets may have tokens of its own, and the variable may be there for something else.
        if configuration.encryption_keys and not configuration.tokens and configuration.query_sql is None:
            return None
        # Signed tokens are on unless switched off, but nobody can have made one without a secret.
        if os.environ.get("DATASETTE_SECRET") is None:
            return None
    return SigningSecrets.of(given)


def build_sources(
    configuration: Configuration,
    *,
    signed: SignedTokens | None,
    store: TokenStore | None,
    query_database: Database | None,
) -> list[Source | CallableSource]:
    """The sources that the block asks for."""
    sources: list[Source | CallableSource] = []
    if configuration.tokens:
        sources.append(StaticTokens(configuration.tokens))
    if signed is not None:
        sources.append(signed)
    if store is not None:
        sources.append(ManagedTokens(store))
    if configuration.query_sql is not None and query_database is not None:
        sources.append(SQLTokens(query_database, configuration.query_sql))
    return sources


def read_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The block in a ``.json`` or ``.toml`` file.

    Raises:
        ConfigurationError: the file cannot be read as such.
    """
    file = Path(path)
    if file.suffix not in (".json", ".toml"):
        raise ConfigurationError(f"{file}: a configuration file ends in .json or .toml.")
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_FILE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        raise ConfigurationError(f"{file} cannot be read: {why}.") from error
    if len(raw) > MAX_CONFIG_FILE:
        raise ConfigurationError(f"{file} is larger than {MAX_CONFIG_FILE:,} bytes.")
    try:
        text = raw.decode()
        block = json.loads(text, object_pairs_hook=_object) if file.suffix == ".json" else tomllib.loads(text)
    except _RepeatedKey as error:
        raise ConfigurationError(f"{file} has the same key twice in one object; remove one.") from error
    except (ValueError, RecursionError) as error:
        # The error's own text quotes the file, which may hold a secret.
        raise ConfigurationError(f"{file} is not valid {file.suffix[1:].upper()} in UTF-8.") from error
    if not isinstance(block, dict):
        raise ConfigurationError(f"{file} must hold one object of configuration keys.")
    return block


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        # json keeps the last one and says nothing; TOML refuses by itself.
        raise _RepeatedKey
    return read


class _RepeatedKey(ValueError):
    pass


def read_configuration(block: object) -> Configuration:
    """Check a block and resolve its ``$env`` and ``$file`` values.

    Raises:
        ConfigurationError: naming the key and the mend.
    """
    if not isinstance(block, Mapping):
        raise ConfigurationError("The configuration must be an object of keys and values.")
    for key in block:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_KEYS)}."
            raise ConfigurationError(f"{key}: there is no such key; {hint}")
    read = _Reader(block)
    query = read.value("query", dict, "an object with sql and database") or {}
    _only(query, ("sql", "database"), "query")
    if "query" in block and (not isinstance(query.get("sql"), str) or not query["sql"].strip()):
        raise ConfigurationError("query.sql: give the SELECT as a string.")
    if not isinstance(query.get("database"), (str, type(None))):
        raise ConfigurationError("query.database: give the name of a database as a string.")
    secrets = read.value("secrets", dict, "an object with encryption_key and database") or {}
    _only(secrets, ("encryption_key", "encryption-key", "database"), "secrets")
    if "secrets" in block and ("encryption_key" in secrets) == ("encryption-key" in secrets):
        raise ConfigurationError("secrets.encryption_key: give one key, or a list of keys with the newest last.")
    if not isinstance(secrets.get("database"), (str, type(None))):
        raise ConfigurationError("secrets.database: give the name of a database as a string.")
    manage = read.flag("manage_tokens", False)
    database = read.value("manage_tokens_database", str, "the name of a database")
    if database is not None and not manage:
        raise ConfigurationError(
            "manage_tokens_database: has no effect without manage_tokens; set manage_tokens: true."
        )
    parameter = read.value("param", str, "the name of a query parameter")
    if parameter is not None:
        try:
            QueryParameter(parameter)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace("parameter:", "param:", 1)) from error
    unknown = read.value("unknown", str, '"reject" or "pass"') or "reject"
    if unknown not in ("reject", "pass"):
        raise ConfigurationError('unknown: must be "reject" or "pass".')
    signed = read.flag("signed_tokens", None)
    ttl = read.seconds("max_signed_tokens_ttl")
    if ttl is not None and signed is False:
        raise ConfigurationError("max_signed_tokens_ttl: has no effect with signed_tokens: false; remove one of them.")
    configuration = Configuration(
        tokens=_tokens(read.value("tokens", list, "a list of objects with token and actor")),
        param=parameter,
        query_sql=query.get("sql"),
        query_database=query.get("database"),
        manage_tokens=bool(manage),
        manage_tokens_database=database,
        secret=_secret(read.value("secret", (str, list), "a string or a list of strings, newest last")),
        permissions=_permissions(read.value("permissions", dict, "an object of actions and allow blocks")),
        signed_tokens=signed,
        max_signed_tokens_ttl=ttl,
        required=bool(read.flag("required", False)),
        unknown="pass" if unknown == "pass" else "reject",
        realm=read.value("realm", str, "printable text") or "api",
        hide_credentials=bool(read.flag("hide_credentials", True)),
        max_expires_after=read.seconds("max_expires_after"),
        tokens_may_manage_tokens=bool(read.flag("tokens_may_manage_tokens", False)),
        scopes=_scopes(read.value("scopes", (list, dict), "a list of names, or an object of names and descriptions")),
        expose_token_tables=bool(read.flag("expose_token_tables", False)),
        encryption_keys=_keys(secrets.get("encryption_key", secrets.get("encryption-key"))) if secrets else (),
        secrets_database=secrets.get("database"),
    )
    if not manage:
        for key in ("max_expires_after", "tokens_may_manage_tokens", "scopes", "expose_token_tables"):
            if key in block:
                raise ConfigurationError(f"{key}: has no effect without manage_tokens; set manage_tokens: true.")
        if "permissions" in block and not secrets:
            raise ConfigurationError(
                "permissions: has no effect without manage_tokens or secrets; set manage_tokens: true."
            )
    return configuration


class _Reader:
    """Values of one block by key and type."""

    def __init__(self, block: Mapping[str, Any]) -> None:
        self._block = block

    def value(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        if key not in self._block:
            return None
        try:
            value = resolve(self._block[key], key)
        except RecursionError as error:
            raise ConfigurationError(f"{key}: is nested too deeply.") from error
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigurationError(f"{key}: must be {what}, not {_kind(value)}.")
        if value == "":
            raise ConfigurationError(f"{key}: is empty; give {what} or remove the key.")
        return value

    def flag(self, key: str, default: bool | None) -> bool | None:
        value = self.value(key, bool, "true or false")
        return default if value is None else bool(value)

    def seconds(self, key: str) -> int | None:
        value = self.value(key, int, "a whole number of seconds")
        if value is not None and value < 1:
            raise ConfigurationError(f"{key}: must be 1 second or more; remove the key for no limit.")
        return None if value is None else int(value)


def resolve(value: Any, where: str) -> Any:
    """``value`` with every ``{"$env": NAME}`` and ``{"$file": PATH}`` in it replaced by what it names.

    Raises:
        ConfigurationError: a variable is unset or a file cannot be read; named, never quoted.
    """
    if isinstance(value, Mapping):
        if set(value) == {"$env"}:
            return _environment(value["$env"], where)
        if set(value) == {"$file"}:
            return _file(value["$file"], where)
        return {key: resolve(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(inner, f"{where}[{number}]") for number, inner in enumerate(value)]
    return value


def _environment(name: object, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: $env needs the name of an environment variable.")
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"{where}: the environment variable {name} is not set; set it or change $env.")
    return value


def _file(path: object, where: str) -> str:
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"{where}: $file needs the path of a file.")
    try:
        # Windows editors begin a file with a mark that is no part of its text.
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(MAX_SECRET_FILE + 1)
    except (OSError, ValueError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "that is no path"
        why = (error.strerror or why) if isinstance(error, OSError) else why
        raise ConfigurationError(f"{where}: the file {path} cannot be read: {why}.") from error
    if len(text) > MAX_SECRET_FILE:
        raise ConfigurationError(f"{where}: the file {path} is longer than {MAX_SECRET_FILE:,} characters.")
    value = text.rstrip("\r\n")
    if not value:
        raise ConfigurationError(f"{where}: the file {path} is empty.")
    if "\n" in value or "\r" in value:
        raise ConfigurationError(f"{where}: the file {path} holds more than one line.")
    if where.startswith("secrets.") and is_readable_by_others(path):
        # An encryption key is kept apart from what it protects, which is in vain if everybody can get it.
        logger.warning(
            "%s: other users of this machine, or of the group, may read the file %s; chmod go-rwx takes that away",
            where,
            path,
        )
    return value


def is_readable_by_others(path: str | os.PathLike[str]) -> bool:
    """Whether a file may be read by its group or by every user of the machine."""
    try:
        return os.name == "posix" and bool(os.stat(path).st_mode & 0o044)  # noqa: PTH116 - either kind of path
    except (OSError, ValueError):
        return False


def _tokens(entries: list[Any] | None) -> dict[str, Actor]:
    tokens: dict[str, Actor] = {}
    for number, entry in enumerate(entries or (), start=1):
        where = f"tokens: number {number}"
        if not isinstance(entry, dict) or not {"token", "actor"} >= set(entry):
            raise ConfigurationError(f"{where} must be an object with token and actor and nothing else.")
        if "token" not in entry:
            raise ConfigurationError(f"{where} has no token; add one.")
        token = entry["token"]
        check_token(token, where)
        actor = checked_actor(entry.get("actor"), where)
        if token in tokens and tokens[token] != actor:
            raise ConfigurationError(f"{where} repeats the token of another entry with another actor; remove one.")
        tokens[token] = actor
    if entries is not None and not entries:
        raise ConfigurationError("tokens: is empty; add a token or remove the key.")
    return tokens


def _secret(value: Any) -> SecretInput | None:
    return None if value is None else SigningSecrets.of(value)


def _permissions(value: dict[str, Any] | None) -> Mapping[str, Any] | None:
    for action, allow in (value or {}).items():
        if action not in ACTIONS:
            raise ConfigurationError(f"permissions.{action}: there is no such action; they are {', '.join(ACTIONS)}.")
        if not isinstance(allow, (bool, dict)):
            raise ConfigurationError(
                f'permissions.{action}: must be true, false or an object such as {{"id": ["alice", "bob"]}}.'
            )
    return value


def _scopes(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    listed = isinstance(value, list) and all(isinstance(name, str) for name in value)
    named = dict.fromkeys(value, "") if listed else value
    if not isinstance(named, dict) or not all(
        isinstance(name, str) and name and isinstance(description, str) for name, description in named.items()
    ):
        raise ConfigurationError("scopes: must be a list of names, or an object of names and descriptions.")
    return named


def _keys(value: Any) -> tuple[str, ...]:
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
        raise ConfigurationError("secrets.encryption_key: must be a string or a list of strings, newest last.")
    if not keys:
        raise ConfigurationError("secrets.encryption_key: is an empty list; give one key, or remove secrets.")
    return tuple(keys)


def read_databases(databases: Databases | None) -> dict[str, Database]:
    """The databases that a block may name.

    Raises:
        ConfigurationError: one of them can be none.
    """
    if databases is not None and not isinstance(databases, Mapping):
        raise ConfigurationError(
            'databases: give an object from name to database, for example {"tokens": "tokens.db"}.'
        )
    opened: dict[str, Database] = {}
    for name, given in (databases or {}).items():
        where = f"databases.{name}"
        if isinstance(given, (str, os.PathLike)):
            try:
                opened[name] = database_at(given)
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from error
        elif hasattr(given, "transaction") and hasattr(given, "lookup"):
            opened[name] = given
        else:
            raise ConfigurationError(f"{where}: must be a path, a PostgreSQL DSN or a Database, not {_kind(given)}.")
    return opened


def _database(databases: dict[str, Database], name: str | None, key: str) -> Database:
    known = ", ".join(sorted(name for name in databases if not is_dsn(name)))
    if name is None:
        if len(databases) == 1:
            return next(iter(databases.values()))
        if not databases:
            raise ConfigurationError(f'{key}: no database is known; pass databases={{"tokens": "tokens.db"}}.')
        raise ConfigurationError(f"{key}: name one of the databases: {known}.")
    if name in databases:
        return databases[name]
    if is_dsn(name):
        return databases.setdefault(name, database_by_dsn(name, key))
    # The name is not repeated: it may be a connection string with a password, given in the wrong place.
    raise ConfigurationError(f"{key}: names no entry of databases=; they are: {known or 'none'}.")


def database_by_dsn(dsn: str, key: str) -> Database:
    """The PostgreSQL database that a key of the block has in place of a name.

    Raises:
        ConfigurationError: naming the key.
    """
    try:
        return database_at(dsn)
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def _reading(database: Database) -> Database:
    """The same file for the operator's own query: not created when missing, and its journal left alone."""
    return database.for_reading() if isinstance(database, SQLite) else database


def _only(value: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in keys:
            raise ConfigurationError(f"{where}.{key}: there is no such key; use {', '.join(keys)}.")


def _kind(value: object) -> str:
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
