"""The configuration block, checked to the last key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from asgi_token_auth.access.origins import check_origins
from asgi_token_auth.access.permissions import ACTIONS
from asgi_token_auth.authentication import Actor
from asgi_token_auth.bearer import QueryParameter
from asgi_token_auth.config.values import kind_of, resolve
from asgi_token_auth.databases.address import DSN_OPTIONS, is_dsn, with_options
from asgi_token_auth.decoding import is_unfilled, keys_of, listed, logger, secret_of, shown_key, token_of
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import DEFAULT_MAX_TOKEN_BYTES
from asgi_token_auth.signing import MANAGED_PREFIX, SecretInput, SigningSecrets
from asgi_token_auth.sources.static import check_token, checked_actor
from asgi_token_auth.tokens.text import check_prefix

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
    "prefix",
    "record_addresses",
    "journal_mode",
    "wal_index",
    "max_token_bytes",
    "max_expires_after",
    "tokens_may_manage_tokens",
    "scopes",
    "expose_token_tables",
    "secrets",
    "trusted_origins",
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration block in which every value has been checked."""

    tokens: Mapping[str, Actor] = field(default_factory=dict[str, Actor], repr=False)
    param: str | None = None
    query_sql: str | None = None
    query_database: str | None = field(default=None, repr=False)
    query_timeout: float = 1.0
    manage_tokens: bool = False
    manage_tokens_database: str | None = field(default=None, repr=False)
    secret: SecretInput | None = field(default=None, repr=False)
    permissions: Mapping[str, Any] | None = None
    signed_tokens: bool | None = None
    max_signed_tokens_ttl: int | None = None
    required: bool = False
    unknown: Literal["reject", "pass"] = "reject"
    realm: str = "api"
    hide_credentials: bool = True
    prefix: str = MANAGED_PREFIX
    record_addresses: bool = False
    #: ``None``: as is usual for the app, which Datasette's files are not ours to change.
    journal_mode: Literal["wal", "keep"] | None = None
    #: Whether verification may read SQLite's shared memory; ``None``: it may.
    wal_index: bool | None = None
    max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES
    max_expires_after: int | None = None
    tokens_may_manage_tokens: bool = False
    scopes: Mapping[str, str] = field(default_factory=dict[str, str])
    expose_token_tables: bool = False
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    secrets_database: str | None = field(default=None, repr=False)
    trusted_origins: frozenset[str] = frozenset()


def read_configuration(block: Any) -> Configuration:
    """Check a block and resolve its ``$env`` and ``$file`` values.

    Raises:
        ConfigurationError: naming the key and the mend.
    """
    given: Mapping[str, Any] = block
    if not isinstance(given, Mapping):
        raise ConfigurationError("The configuration must be an object of keys and values.")
    if "plugins" in given and not set(given) & set(_KEYS):
        raise ConfigurationError(
            "plugins: this is Datasette's configuration; give the block that stands in it under asgi-token-auth."
        )
    for key in given:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_KEYS)}."
            raise ConfigurationError(f"{shown_key(key)}: there is no such key; {hint}")
    read = _Reader(given)
    query: dict[str, Any] = read.value("query", dict, "an object with sql and database") or {}
    _only(query, ("sql", "database", "timeout"), "query")
    if "query" in given and (not isinstance(query.get("sql"), str) or not query["sql"].strip()):
        raise ConfigurationError("query.sql: give the SELECT as a string.")
    query_database = _database(query.get("database"), "query.database")
    timeout = query.get("timeout", 1.0)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 60:
        raise ConfigurationError("query.timeout: give a number of seconds above 0 and up to 60.")
    secrets: dict[str, Any] = read.value("secrets", dict, "an object with encryption_key and database") or {}
    _only(secrets, ("encryption_key", "encryption-key", "database"), "secrets")
    if "secrets" in given and ("encryption_key" in secrets) == ("encryption-key" in secrets):
        raise ConfigurationError("secrets.encryption_key: give one key, or a list of keys with the newest last.")
    secrets_database = _database(secrets.get("database"), "secrets.database")
    manage = read.flag("manage_tokens", False)
    database = _database(
        read.value("manage_tokens_database", (str, dict), "the name of a database"), "manage_tokens_database"
    )
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
        query_database=query_database,
        query_timeout=float(timeout),
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
        prefix=_prefix(read.value("prefix", str, "letters and digits followed by an underscore")),
        record_addresses=bool(read.flag("record_addresses", False)),
        journal_mode=_journal_mode(read.value("journal_mode", str, '"wal" or "keep"')),
        wal_index=read.flag("wal_index", None),
        max_token_bytes=_max_token_bytes(read.value("max_token_bytes", int, "a whole number of bytes")),
        max_expires_after=read.seconds("max_expires_after"),
        tokens_may_manage_tokens=bool(read.flag("tokens_may_manage_tokens", False)),
        scopes=_scopes(read.value("scopes", (list, dict), "a list of names, or an object of names and descriptions")),
        expose_token_tables=bool(read.flag("expose_token_tables", False)),
        encryption_keys=_keys(secrets.get("encryption_key", secrets.get("encryption-key"))) if secrets else (),
        secrets_database=secrets_database,
        trusted_origins=check_origins(read.value("trusted_origins", list, "a list of origins") or []),
    )
    homes = [*([database] if manage else []), *([secrets_database] if secrets else [])]
    for key in ("journal_mode", "wal_index"):
        if key in given and all(home is not None and is_dsn(home) for home in homes):
            raise ConfigurationError(
                f"{key}: has no effect, because neither tokens nor secrets are kept in a SQLite file; remove the key."
            )
    if not manage:
        for key in (
            "prefix",
            "record_addresses",
            "wal_index",
            "max_expires_after",
            "tokens_may_manage_tokens",
            "scopes",
            "expose_token_tables",
        ):
            if key in given:
                raise ConfigurationError(f"{key}: has no effect without manage_tokens; set manage_tokens: true.")
        for key in ("permissions", "trusted_origins"):
            if key in given and not secrets:
                raise ConfigurationError(
                    f"{key}: has no effect without manage_tokens or secrets; set manage_tokens: true."
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
            raise ConfigurationError(f"{key}: must be {what}, not {kind_of(value)}.")
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


def _tokens(entries: list[dict[str, Any]] | None) -> dict[str, Actor]:
    tokens: dict[str, Actor] = {}
    for number, entry in enumerate(entries or (), start=1):
        where = f"tokens: number {number}"
        if not isinstance(entry, dict) or not {"token", "actor"} >= set(entry):
            raise ConfigurationError(f"{where} must be an object with token and actor and nothing else.")
        if "token" not in entry:
            raise ConfigurationError(f"{where} has no token; add one.")
        token = entry["token"]
        if isinstance(token, str):
            _refuse_unfilled(token, where)
            # None of it can be a part of a token.
            token = token_of(token).log_dropped(where)
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


def _refuse_unfilled(value: object, where: str) -> None:
    if isinstance(value, str) and is_unfilled(value):
        raise ConfigurationError(f'{where}: is the name of a variable and not its value; write {{"$env": "NAME"}}.')


def _database(value: Any, where: str) -> str | None:
    """A name or a DSN; of an object, the DSN with its options."""
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        _only(given, ("dsn", *DSN_OPTIONS), where)
        dsn = given.get("dsn")
        # Before options are put behind it.
        dsn = secret_of(dsn).log_dropped(where) if isinstance(dsn, str) else None
        if dsn is None or not is_dsn(dsn):
            raise ConfigurationError(f"{where}.dsn: give the DSN of a PostgreSQL database, or a name in place of all.")
        options = {name: each for name, each in given.items() if name != "dsn"}
        for name, each in options.items():
            if not isinstance(each, DSN_OPTIONS[name]) or (isinstance(each, bool) and DSN_OPTIONS[name] is not bool):
                raise ConfigurationError(f"{where}.{name}: {kind_of(each)} cannot be its value.")
        return with_options(dsn, options)
    if value is None or isinstance(value, str):
        return value
    raise ConfigurationError(f"{where}: give the name of a database as a string, not {kind_of(value)}.")


def _prefix(value: str | None) -> str:
    prefix = MANAGED_PREFIX if value is None else value
    try:
        check_prefix(prefix)
    except ConfigurationError:
        # It is not repeated: what stands in the wrong place may be a token.
        raise ConfigurationError(
            "prefix: must be 2 to 30 letters and digits, a letter first, followed by an underscore."
        ) from None
    return prefix


def _journal_mode(value: str | None) -> Literal["wal", "keep"] | None:
    match value:
        case None | "wal" | "keep":
            return value
        case _:
            raise ConfigurationError('journal_mode: must be "wal", or "keep" for the mode that the file has.')


def _max_token_bytes(value: int | None) -> int:
    size = DEFAULT_MAX_TOKEN_BYTES if value is None else value
    if not 64 <= size <= 65_536:
        raise ConfigurationError("max_token_bytes: give a whole number from 64 to 65,536.")
    return size


def _permissions(value: dict[str, Any] | None) -> Mapping[str, Any] | None:
    for action, allow in (value or {}).items():
        if action not in ACTIONS:
            raise ConfigurationError(
                f"permissions.{shown_key(action)}: there is no such action; they are {', '.join(ACTIONS)}."
            )
        if not isinstance(allow, (bool, dict)):
            raise ConfigurationError(
                f'permissions.{action}: must be true, false or an object such as {{"id": ["alice", "bob"]}}.'
            )
    return value


def _scopes(value: list[str] | dict[str, str] | None) -> dict[str, str]:
    if value is None:
        return {}
    listed = isinstance(value, list) and all(isinstance(name, str) for name in value)
    named = dict.fromkeys(value, "") if listed else value
    if not isinstance(named, dict) or not all(
        isinstance(name, str) and name and isinstance(description, str) for name, description in named.items()
    ):
        raise ConfigurationError("scopes: must be a list of names, or an object of names and descriptions.")
    return named


def _keys(value: str | list[str] | None) -> tuple[str, ...]:
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
        raise ConfigurationError("secrets.encryption_key: must be a string or a list of strings, newest last.")
    if not keys:
        raise ConfigurationError("secrets.encryption_key: is an empty list; give one key, or remove secrets.")
    read: list[str] = []
    for key in keys:
        _refuse_unfilled(key, "secrets.encryption_key")
        # As the command reads them: one text may hold several.
        found, dropped = keys_of(key)
        if dropped:
            logger.info("secrets.encryption_key: %s left out; take it away there", listed(dropped))
        read += found or [key]
    return tuple(read)


def _only(value: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in keys:
            raise ConfigurationError(f"{where}.{shown_key(key)}: there is no such key; use {', '.join(keys)}.")
