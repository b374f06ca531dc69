"""A configuration block, turned into a wrapped app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from asgi_token_auth.access.signed_in import SignedIn
from asgi_token_auth.asgi.types import ASGIApp
from asgi_token_auth.authentication import Source
from asgi_token_auth.chain import CallableSource
from asgi_token_auth.config.block import Configuration, read_configuration
from asgi_token_auth.config.databases import Databases, named_database, read_databases
from asgi_token_auth.config.values import read_config_file
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import TokenAuthMiddleware
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.signing import SecretInput, SigningSecrets
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.sources.sql import SQLTokens
from asgi_token_auth.sources.static import StaticTokens
from asgi_token_auth.tokens.store import TokenStore


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
        signed_in: the app's own way to say who is asking, a function of the scope, async or not.

    Raises:
        ConfigurationError: anything in it cannot work. The message names the key and the mend.
    """
    if not callable(app):
        raise ConfigurationError("app: give the ASGI application first, and then its configuration.")
    block = read_config_file(config) if isinstance(config, (str, os.PathLike)) else config
    configuration = read_configuration(block)
    if signed_in is not None and not callable(signed_in):
        raise ConfigurationError("signed_in: give a function of the scope, async or not.")
    if configuration.expose_token_tables:
        raise ConfigurationError("expose_token_tables: is about Datasette's table pages; remove the key.")
    if configuration.secret is not None and configuration.signed_tokens is False and not configuration.manage_tokens:
        raise ConfigurationError(
            "secret: has no effect with signed_tokens: false and without manage_tokens; remove it."
        )
    opened = read_databases(
        databases, journal_mode=configuration.journal_mode, wal_index=configuration.wal_index is not False
    )
    signing = _signing(configuration, configuration.secret if secret is None else secret)
    store = None
    if configuration.manage_tokens:
        name = configuration.manage_tokens_database
        store = TokenStore(
            named_database(opened, name, "manage_tokens_database"),
            secret=signing,
            prefix=configuration.prefix,
            record_addresses=configuration.record_addresses,
            max_expires_after=configuration.max_expires_after,
        )
    query_database = None
    if configuration.query_sql is not None:
        query_database = _reading(named_database(opened, configuration.query_database, "query.database"))
    signed = None
    if signing is not None and configuration.signed_tokens is not False:
        signed = SignedTokens(signing, max_ttl=configuration.max_signed_tokens_ttl)
    sources = build_sources(configuration, signed=signed, store=store, query_database=query_database)
    secret_store = _secret_store(configuration, opened)
    if not sources:
        _check_without_tokens(configuration)
    for key in ("journal_mode", "wal_index"):
        if getattr(configuration, key) is not None:
            homes = [each.database for each in (store, secret_store) if each is not None]
            _check_is_by_path(key, homes, databases or {}, opened)
    return TokenAuthMiddleware(
        _with_pages(app, store, secret_store, configuration, signed_in),
        sources=sources,
        parameter=configuration.param,
        required=configuration.required,
        unknown=configuration.unknown,
        realm=configuration.realm,
        hide_credentials=configuration.hide_credentials,
        max_token_bytes=configuration.max_token_bytes,
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
    database = named_database(databases, configuration.secrets_database, "secrets.database")
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
    for key in ("param", "required", "unknown", "realm", "hide_credentials", "max_token_bytes"):
        if getattr(configuration, key) != getattr(default, key):
            raise ConfigurationError(
                f"{key}: has no effect, because nothing is configured that could check a token; remove the key."
            )


def _check_is_by_path(key: str, homes: list[Database], given: Databases, opened: dict[str, Database]) -> None:
    """Raise ConfigurationError where no store is in a file that was given by its path."""
    by_path = [opened[name] for name, each in given.items() if isinstance(each, (str, os.PathLike))]
    if not any(isinstance(home, SQLite) and any(home is file for file in by_path) for home in homes):
        raise ConfigurationError(
            f"{key}: has no effect, because neither tokens nor secrets are kept in a SQLite file that was given "
            f"by its path; remove the key, or say SQLite(path, {key}=...)."
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
        from asgi_token_auth.web.mount import mount_pages
    except ImportError as error:
        if (
            configuration.permissions
            or configuration.scopes
            or configuration.tokens_may_manage_tokens
            or configuration.trusted_origins
        ):
            raise ConfigurationError(
                "permissions, scopes, tokens_may_manage_tokens and trusted_origins are for the pages, which need more "
                "packages: pip install 'asgi-token-auth[web]'."
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
    trusted = configuration.trusted_origins
    if store is not None:
        managing = configuration.tokens_may_manage_tokens
        pages[tokens.PATH] = tokens.TokenPages(
            store, tokens_may_manage_tokens=managing, trusted_origins=trusted, host=host
        )
    if secret_store is not None:
        pages[secrets.PATH] = secrets.SecretPages(secret_store, trusted_origins=trusted, host=host)
    return mount_pages(app, pages)


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
        sources.append(SQLTokens(query_database, configuration.query_sql, timeout=configuration.query_timeout))
    return sources


def _reading(database: Database) -> Database:
    """The same file for the operator's own query: not created when missing, and its journal left alone."""
    return database.for_reading() if isinstance(database, SQLite) else database
