"""One Datasette's sources, stores and pages, kept on that Datasette: the plugin is shared by all of a process."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from asgi_token_auth.authentication import Source
from asgi_token_auth.chain import CallableSource
from asgi_token_auth.config.assembly import build_sources
from asgi_token_auth.config.block import Configuration
from asgi_token_auth.datasette.attachments import Attachments
from asgi_token_auth.datasette.configuration import StartupRefused, own_block, read_block, with_secrets
from asgi_token_auth.datasette.databases import AttachedSecretStore, AttachedTokenStore
from asgi_token_auth.datasette.handlers import OtherHandlers
from asgi_token_auth.datasette.pages import DatasetteHost
from asgi_token_auth.datasette.signed import SettingsDecide
from asgi_token_auth.datasette.startup import ensure_started
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.lifespan import Resource
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.signing import SigningSecrets
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.web.secrets import SecretPages
from asgi_token_auth.web.tokens import TokenPages

logger: Final = logging.getLogger("asgi_token_auth")

#: The attribute of a Datasette that holds its instance, or ``None``.
INSTANCE: Final = "_asgi_token_auth"


def configured(datasette: Any) -> Instance | None:
    """The instance of this Datasette, read from its configuration the first time; ``None``: not configured.

    Raises:
        StartupRefused: the block cannot work.
    """
    try:
        instance: Instance | None = getattr(datasette, INSTANCE)
    except AttributeError:
        instance = None
        try:
            block = own_block(datasette)
            if block is not None:
                instance = Instance(datasette, read_block(block))
        except ConfigurationError as error:
            raise StartupRefused(error) from error
        setattr(datasette, INSTANCE, instance)
    return instance


def configure(datasette: Any, block: object) -> Instance:
    """Set the instance by hand, in place of what Datasette's configuration says.

    Raises:
        ConfigurationError: the block cannot work.
    """
    instance = Instance(datasette, read_block(with_secrets(datasette, block)))
    setattr(datasette, INSTANCE, instance)
    return instance


class Instance:
    """Made once, shared by every app object that Datasette builds. Nothing in it belongs to an event loop."""

    def __init__(self, datasette: Any, configuration: Configuration) -> None:
        self.datasette = datasette
        self.configuration = configuration
        self.attachments: Attachments = Attachments(datasette, configuration)
        self._wait_for_start = partial(ensure_started, datasette)
        self._sources: list[Source | CallableSource] | None = None
        self._secret_store: SecretStore | None = None
        self._token_pages: TokenPages | None = None
        self._secret_pages: SecretPages | None = None
        self._secrets = self._signing_secrets()

    def sources(self) -> list[Source | CallableSource]:
        """The sources, made on first use: what another plugin attaches at startup is there by then.

        Raises:
            ConfigurationError: a database is missing or cannot hold tokens.
        """
        if self._sources is None:
            configuration = self.configuration
            store = None
            if configuration.manage_tokens:
                store = AttachedTokenStore(
                    self.attachments.for_tokens(),
                    secret=self._secrets,
                    wait_for_start=self._wait_for_start,
                    prefix=configuration.prefix,
                    record_addresses=configuration.record_addresses,
                    max_expires_after=configuration.max_expires_after,
                )
            query_database = None if configuration.query_sql is None else self.attachments.for_query()
            sources = build_sources(configuration, signed=self._signed(), store=store, query_database=query_database)
            if IS_1_0:
                sources.append(OtherHandlers(self.datasette))
            self._sources = sources
        return self._sources

    def managed_tokens(self) -> ManagedTokens | None:
        """The source of managed tokens, where there are such tokens.

        Raises:
            ConfigurationError: a database is missing or cannot hold tokens.
        """
        return next((source for source in self.sources() if isinstance(source, ManagedTokens)), None)

    def token_pages(self) -> TokenPages | None:
        """The pages of managed tokens, where there are such tokens."""
        managed = self.managed_tokens()
        if self._token_pages is None and managed is not None:
            self._token_pages = TokenPages(
                managed.store,
                tokens_may_manage_tokens=self.configuration.tokens_may_manage_tokens,
                trusted_origins=self.configuration.trusted_origins,
                host=DatasetteHost(self.datasette, notice=self.attachments.notice_of_tokens()),
            )
        return self._token_pages

    def secret_store(self) -> SecretStore | None:
        """The encrypted secrets, where there are any.

        Raises:
            ConfigurationError: the database is missing or cannot hold secrets, or a key cannot be one.
        """
        keys = self.configuration.encryption_keys
        if self._secret_store is None and keys:
            self._secret_store = AttachedSecretStore(
                self.attachments.for_secrets(), encryption_key=keys, wait_for_start=self._wait_for_start
            )
        return self._secret_store

    def secret_pages(self) -> SecretPages | None:
        """The pages of the secrets, where there are any."""
        store = self.secret_store()
        if self._secret_pages is None and store is not None:
            host = DatasetteHost(self.datasette, notice=self.attachments.notice_of_secrets())
            trusted = self.configuration.trusted_origins
            self._secret_pages = SecretPages(store, only_registered=True, trusted_origins=trusted, host=host)
        return self._secret_pages

    def resources(self) -> list[Resource]:
        """What a server opens and closes besides the sources."""
        store = self.secret_store()
        return [] if store is None else [store]

    async def check_databases(self) -> None:
        """Open every database once and close it again, so that what cannot work stops the start.

        Nothing stays open, because Datasette may run its startup in another event loop than its requests.

        Raises:
            TokenAuthError: what is wrong, and the mend.
        """
        for source in (*self.sources(), *self.resources()):
            if isinstance(source, Resource):
                await source.open()
                await source.close()
        await self.attachments.warn_where_sql_may_be_run()

    def _signing_secrets(self) -> SigningSecrets:
        # Datasette's own secret signs; those of the block are former ones that still verify.
        own: str = self.datasette._secret
        former = self.configuration.secret
        earlier = SigningSecrets.of(former).reveal() if former is not None else []
        secrets = SigningSecrets([*(value for value in earlier if value != own), own])
        if secrets.weak:
            logger.warning(
                "Datasette's secret has fewer than 16 characters and may be guessed; set a longer one, as "
                "DATASETTE_SECRET or --secret"
            )
        return secrets

    def _signed(self) -> SignedTokens | None:
        if IS_1_0:
            return SettingsDecide(self.datasette, self._secrets)
        if self.configuration.signed_tokens is False:
            return None
        return SignedTokens(self._secrets, max_ttl=self.configuration.max_signed_tokens_ttl)
