"""The plugin's state for one Datasette, kept on that instance: the plugin module is shared by all of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

from datasette.utils import add_cors_headers

from asgi_token_auth.authentication import Authenticated, Source
from asgi_token_auth.bearer import Refusal
from asgi_token_auth.chain import CallableSource
from asgi_token_auth.config.assembly import build_sources
from asgi_token_auth.config.block import Configuration
from asgi_token_auth.config.databases import database_by_dsn
from asgi_token_auth.databases.address import is_dsn
from asgi_token_auth.databases.protocol import Database
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.trigrams import index_tables
from asgi_token_auth.datasette.configuration import Refused, own_block, read_block, with_secrets
from asgi_token_auth.datasette.databases import AttachedDatabase, AttachedSecretStore, AttachedStore, attached_file
from asgi_token_auth.datasette.handlers import OtherHandlers
from asgi_token_auth.datasette.pages import DatasetteHost
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.lifespan import Resource, run_lifespan
from asgi_token_auth.middleware import ASGIApp, Receive, Scope, Send, TokenAuthMiddleware
from asgi_token_auth.secrets.store import DEFAULT_TABLE as SECRETS_TABLE
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.signing import SigningSecrets
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.tokens.store import DEFAULT_TABLE
from asgi_token_auth.web.secrets import SecretPages
from asgi_token_auth.web.tokens import TokenPages

logger = logging.getLogger("asgi_token_auth")

NOT_STARTED: Final = Refusal(503, "The server could not start; its log says why.", retry_after=5)

_STATE: Final = "_asgi_token_auth"

#: By table: what is kept there, and what whoever runs SQL on it would read.
_READABLE: Final = {
    DEFAULT_TABLE: ("tokens", "descriptions, actors and digests"),
    SECRETS_TABLE: ("secrets", "names, notes and encrypted values"),
}

# Set while an instance runs its startup hooks, so that what those hooks ask of us does not wait for them.
_starting: ContextVar[Any] = ContextVar("asgi_token_auth_starting", default=None)


def configured(datasette: Any) -> Instance | None:
    """The state of this instance, read from its configuration the first time; ``None``: not configured.

    Raises:
        Refused: the block cannot work.
    """
    try:
        instance: Instance | None = getattr(datasette, _STATE)
    except AttributeError:
        instance = None
        try:
            block = own_block(datasette)
            if block is not None:
                instance = Instance(datasette, read_block(block))
        except ConfigurationError as error:
            raise Refused(error) from error
        setattr(datasette, _STATE, instance)
    return instance


def configure(datasette: Any, block: object) -> Instance:
    """Set the state by hand, in place of what the instance's configuration says.

    Raises:
        ConfigurationError: the block cannot work.
    """
    instance = Instance(datasette, read_block(with_secrets(datasette, block)))
    setattr(datasette, _STATE, instance)
    return instance


def startup_begins(datasette: Any) -> None:
    """Called from inside Datasette's startup, before its hooks."""
    _starting.set(datasette)


class Instance:
    """Made once, shared by every app object that Datasette builds. Nothing in it belongs to an event loop."""

    def __init__(self, datasette: Any, configuration: Configuration) -> None:
        self.datasette = datasette
        self.configuration = configuration
        #: Databases that are not Datasette's, by the names or DSNs that the block has for them.
        self.databases: dict[str, Database] = {}
        self.managed: ManagedTokens | None = None
        self._sources: list[Source | CallableSource] | None = None
        self._pages: TokenPages | None = None
        self._secret_store: SecretStore | None = None
        self._secret_pages: SecretPages | None = None
        self._start: asyncio.Task[None] | None = None
        self._secrets = self._signing_secrets()

    @property
    def protected(self) -> list[tuple[str, tuple[str, ...]]]:
        """Databases, and the tables in each that are not for Datasette's own pages."""
        configuration = self.configuration
        found: list[tuple[str, tuple[str, ...]]] = []
        tables: tuple[str, ...]
        if configuration.manage_tokens and not configuration.expose_token_tables:
            tables = (
                DEFAULT_TABLE,
                f"{DEFAULT_TABLE}_events",
                f"{DEFAULT_TABLE}_migrations",
                *index_tables(DEFAULT_TABLE),
            )
            found += [(name, tables) for name in self._names_of(configuration.manage_tokens_database)]
        if configuration.encryption_keys:
            tables = (SECRETS_TABLE, f"{SECRETS_TABLE}_migrations")
            found += [(name, tables) for name in self._names_of(configuration.secrets_database)]
        return found

    def _names_of(self, name: str | None) -> list[str]:
        """All names of what the block calls ``name``, or of the internal database.

        One file, or one database in memory, may be attached several times.
        """
        databases = self.datasette.databases
        if name in self.databases or is_dsn(name):
            # Given to wrap_datasette, or by a DSN; what is a file may be attached besides.
            elsewhere = self.databases.get(name or "")
            path = str(elsewhere.path) if isinstance(elsewhere, SQLite) else None
            return [known for known, database in databases.items() if _same_file(database.path, path)]
        kept = self.datasette.get_internal_database() if name is None else databases.get(name)
        return [known for known, database in databases.items() if kept is not None and _same_database(database, kept)]

    def build(self) -> list[Source | CallableSource]:
        """The sources, made on first use: what another plugin attaches at startup is there by then.

        Raises:
            ConfigurationError: a database is missing or cannot hold tokens.
        """
        if self._sources is None:
            configuration = self.configuration
            store = None
            if configuration.manage_tokens:
                store = AttachedStore(
                    self._store_database(configuration.manage_tokens_database, "manage_tokens_database", "tokens"),
                    secret=self._secrets,
                    started=self.ensure_started,
                    max_expires_after=configuration.max_expires_after,
                )
            query_database = None if configuration.query_sql is None else self._query_database()
            sources = build_sources(configuration, signed=self._signed(), store=store, query_database=query_database)
            if IS_1_0:
                sources.append(OtherHandlers(self.datasette))
            self.managed = next((source for source in sources if isinstance(source, ManagedTokens)), None)
            self._sources = sources
        return self._sources

    def middleware(self, app: ASGIApp) -> TokenAuthMiddleware:
        """``app``, built from this Datasette, behind the sources."""
        configuration = self.configuration
        cors: dict[str, str] = {}
        if self.datasette.cors:
            add_cors_headers(cors)
        return TokenAuthMiddleware(
            _Guarded(self, app),
            sources=self.build(),
            parameter=configuration.param,
            unknown=configuration.unknown,
            realm=configuration.realm,
            hide_credentials=configuration.hide_credentials,
            # With the token's actor in place, a cookie could only bring in another one.
            drop_cookies=True,
            forbid=None if IS_1_0 else _forbid_restricted,
            refusal_headers=[(name.lower().encode(), value.encode()) for name, value in cors.items()],
            resources=[_Startup(self), *self._resources()],
            # Datasette says by itself what its answers depend on.
            vary=False,
        )

    def pages(self) -> TokenPages | None:
        """The pages of managed tokens, where there are such tokens."""
        self.build()
        if self._pages is None and self.managed is not None:
            notice = self._temporary(self.configuration.manage_tokens_database, "tokens", "manage_tokens_database")
            self._pages = TokenPages(
                self.managed.store,
                tokens_may_manage_tokens=self.configuration.tokens_may_manage_tokens,
                host=DatasetteHost(self.datasette, notice=notice),
            )
        return self._pages

    def secret_store(self) -> SecretStore | None:
        """The encrypted secrets, where there are any.

        Raises:
            ConfigurationError: the database is missing or cannot hold secrets, or a key cannot be one.
        """
        configuration = self.configuration
        if self._secret_store is None and configuration.encryption_keys:
            self._secret_store = AttachedSecretStore(
                self._store_database(configuration.secrets_database, "secrets.database", "secrets"),
                encryption_key=configuration.encryption_keys,
                started=self.ensure_started,
            )
        return self._secret_store

    def secret_pages(self) -> SecretPages | None:
        """The pages of the secrets, where there are any."""
        store = self.secret_store()
        if self._secret_pages is None and store is not None:
            notice = self._temporary(self.configuration.secrets_database, "secrets", "secrets.database")
            host = DatasetteHost(self.datasette, notice=notice)
            self._secret_pages = SecretPages(store, only_registered=True, host=host)
        return self._secret_pages

    def _resources(self) -> list[Resource]:
        store = self.secret_store()
        return [] if store is None else [store]

    def _temporary(self, database: str | None, kept: str, key: str) -> str | None:
        """What a page must say where what it shows will not last."""
        if database is not None or not self.datasette.get_internal_database().is_temp_disk:
            return None
        return (
            f"These {kept} are kept in Datasette's temporary internal database: they are lost when the server stops. "
            f"Start Datasette with --internal, or set {key}."
        )

    async def ensure_started(self) -> None:
        """Run Datasette's startup if it has not run, once, whoever comes first; the others wait for it."""
        if self.datasette._startup_invoked or _starting.get() is self.datasette:
            return
        loop = asyncio.get_running_loop()
        if self._start is None or self._start.done() or self._start.get_loop() is not loop:
            # 1.0 has a lock of its own around its startup, which the apps that it builds itself wait for.
            start = getattr(self.datasette, "_startup_sequence", self.datasette.invoke_startup)
            # A task of its own: it goes on when the client that came first hangs up, and what it notes about
            # being inside of startup does not stay with the caller.
            self._start = loop.create_task(start())
        await asyncio.shield(self._start)

    async def check(self) -> None:
        """Open every database once and close it again, so that what cannot work stops the start.

        Nothing stays open, because Datasette may run its startup in another event loop than its requests.

        Raises:
            TokenAuthError: what is wrong, and the mend.
        """
        for source in (*self.build(), *self._resources()):
            if isinstance(source, Resource):
                await source.open()
                await source.close()
        for database, tables in self.protected:
            # With --crossdb the SQL of _memory reads the attached files too.
            doors = [database, *(["_memory"] if self.datasette.crossdb else [])]
            if any([await self._may_run_sql(door) for door in doors]):
                kept, read = _READABLE[tables[0]]
                logger.warning(
                    "the database %s holds the %s, and people may run SQL on it: they would read %s, which open "
                    "nothing. Set allow_sql for that database, or keep the %s in one of their own that nobody may "
                    "query",
                    database,
                    kept,
                    read,
                    kept,
                )

    async def _may_run_sql(self, database: str) -> bool:
        for actor in (None, {"id": "asgi-token-auth-start"}):
            if IS_1_0:
                from datasette.resources import DatabaseResource

                allowed = await self.datasette.allowed(
                    action="execute-sql", resource=DatabaseResource(database), actor=actor
                )
            else:
                allowed = all(
                    [
                        await self.datasette.permission_allowed(actor, action, database, default=True)
                        for action in ("view-database", "execute-sql")
                    ]
                )
            if allowed:
                return True
        return False

    def _signing_secrets(self) -> SigningSecrets:
        # Datasette's own secret signs; those of the block are former ones that still verify.
        own: str = self.datasette._secret
        former = self.configuration.secret
        earlier = SigningSecrets.of(former).reveal() if former is not None else []
        secrets = SigningSecrets([*(value for value in earlier if value != own), own])
        if secrets.weak:
            logger.warning("Datasette's secret has fewer than 16 characters and may be guessed; use a longer one")
        return secrets

    def _signed(self) -> SignedTokens | None:
        if IS_1_0:
            setting = self.datasette.setting
            if not setting("allow_signed_tokens"):
                return None
            return SignedTokens(self._secrets, max_ttl=setting("max_signed_tokens_ttl") or None)
        if self.configuration.signed_tokens is False:
            return None
        return SignedTokens(self._secrets, max_ttl=self.configuration.max_signed_tokens_ttl)

    def _elsewhere(self, name: str | None, key: str) -> Database | None:
        """A database that is not Datasette's: one given to ``wrap_datasette``, or a DSN in place of a name."""
        if name is None:
            return None
        if name not in self.databases and is_dsn(name):
            # One object for all who name it, because it has connections of its own.
            self.databases[name] = database_by_dsn(name, key)
        return self.databases.get(name)

    def _store_database(self, name: str | None, key: str, kept: str) -> Database:
        if (elsewhere := self._elsewhere(name, key)) is not None:
            return elsewhere
        if name is None:
            internal = self.datasette.get_internal_database()
            if internal.is_temp_disk:
                logger.warning(
                    "%s %s are in Datasette's temporary internal database: they are lost at a restart and "
                    "not shared by workers. Start Datasette with --internal, or set %s",
                    "managed" if kept == "tokens" else "encrypted",
                    kept,
                    key,
                )
            return attached_file(internal.path)
        attached = self._attached(name, key)
        if attached.is_memory:
            return AttachedDatabase(attached, self.ensure_started)
        if not attached.is_mutable:
            raise ConfigurationError(f"{key}: {name} is attached as immutable and cannot hold {kept}.")
        return attached_file(attached.path)

    def _query_database(self) -> Database:
        name = self.configuration.query_database
        if (elsewhere := self._elsewhere(name, "query.database")) is not None:
            return elsewhere
        attached = self.datasette.get_database() if name is None else self._attached(name, "query.database")
        return AttachedDatabase(attached, self.ensure_started)

    def _attached(self, name: str, key: str) -> Any:
        if name not in self.datasette.databases:
            known = ", ".join(sorted({*self.datasette.databases, *self.databases})) or "none"
            # A connection string in the wrong place may hold a password.
            shown = "of this name" if "://" in name else repr(name)
            raise ConfigurationError(f"{key}: no database {shown} is attached; attached: {known}.")
        return self.datasette.databases[name]


class InsideDatasette:
    """The ASGI app inside Datasette's own. What is configured is looked up when a connection comes."""

    def __init__(self, datasette: Any, app: ASGIApp) -> None:
        self._datasette = datasette
        self._app = app
        self._built: tuple[Instance, TokenAuthMiddleware] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        instance = getattr(self._datasette, _STATE, None)
        if instance is None:
            await self._app(scope, receive, send)
        elif self._built is not None and self._built[0] is instance:
            await self._built[1](scope, receive, send)
        elif scope["type"] == "lifespan":
            # Startup comes before anything is built, because plugins attach databases in it.
            await run_lifespan(partial(self._build_and_serve, instance), [_Startup(instance)], scope, receive, send)
        else:
            # 0.65 would let the second request through while the first one starts it.
            if await _starts(instance, scope, send):
                await self._build_and_serve(instance, scope, receive, send)

    async def _build_and_serve(self, instance: Instance, scope: Scope, receive: Receive, send: Send) -> None:
        middleware = instance.middleware(self._app)
        self._built = (instance, middleware)
        await middleware(scope, receive, send)


class _Guarded:
    """Datasette, called only once it has started, and without a server's error for websockets, which it has none of."""

    def __init__(self, instance: Instance, app: ASGIApp) -> None:
        self._instance = instance
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif await _starts(self._instance, scope, send):
            if scope["type"] == "websocket":
                await self._serve_websocket(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Another plugin may serve it; Datasette itself answers as if it were HTTP, or fails.
        answered = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            if message["type"].startswith("websocket."):
                answered = True
                await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if answered:
                raise
        if not answered:
            await send({"type": "websocket.close", "code": 1000, "reason": ""})


async def _starts(instance: Instance, scope: Scope, send: Send) -> bool:
    """Whether Datasette has started; if it cannot, the connection is refused and the log says why."""
    try:
        await instance.ensure_started()
    except Exception as error:
        logger.error("Datasette could not start: %s", error)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013, "reason": ""})
        else:
            await send({"type": "http.response.start", "status": 503, "headers": NOT_STARTED.headers("api")})
            await send({"type": "http.response.body", "body": NOT_STARTED.body()})
        return False
    return True


class _Startup:
    """Datasette's startup as a resource: it comes before the databases that its plugins may attach."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    async def open(self) -> None:
        await self._instance.ensure_started()

    async def close(self) -> None:
        """Nothing: Datasette closes itself."""


def _same_database(one: Any, other: Any) -> bool:
    if one is other or (one.memory_name is not None and one.memory_name == other.memory_name):
        return True
    return _same_file(one.path, other.path)


def _same_file(one: str | None, other: str | None) -> bool:
    try:
        return one is not None and other is not None and Path(one).samefile(other)
    except OSError:
        return False


def _forbid_restricted(outcome: Authenticated) -> str | None:
    if outcome.restrictions is None:
        return None
    return "This token is restricted, and Datasette 0.65 cannot limit what a token may do. Use Datasette 1.0."
