"""What apps and other plugins import: :func:`wrap_datasette`, which sets the plugin up by hand, its tokens and secrets.

Supported are the stable 0.65 releases and the 1.0 alphas from 1.0a36. Everything that knows Datasette is in
this package; its hooks are in ``hooks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_token_auth.config.databases import Databases, read_databases
from asgi_token_auth.config.sections import PLUGIN
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import TokenAuthMiddleware
from asgi_token_auth.secrets.record import Secret
from asgi_token_auth.tokens.store import TokenStore

__all__ = ["Secret", "get_secret", "token_store", "wrap_datasette"]


def wrap_datasette(
    datasette: Any, config: Mapping[str, Any] | None = None, *, databases: Databases | None = None
) -> TokenAuthMiddleware:
    """Datasette's app with tokens in front of it, for a server of your own: ``uvicorn module:app``.

    Args:
        datasette: a ``Datasette`` that has not been started.
        config: the configuration block. ``None``: the instance's own, under ``plugins: asgi-token-auth``.
        databases: more databases that the block may name than those which are attached: a path, a PostgreSQL DSN or
            a ``Database``.

    Raises:
        ConfigurationError: the block cannot work, there is none, a database that it names is not attached yet, or
            this Datasette is not supported.
    """
    from datasette.utils import StartupError

    from asgi_token_auth.datasette import hooks
    from asgi_token_auth.datasette.app import build_middleware
    from asgi_token_auth.datasette.instance import configure, configured
    from asgi_token_auth.datasette.version import IS_1_0, check_version

    check_version()
    if not pm.is_registered(hooks):
        # No entry point is loaded where DATASETTE_LOAD_PLUGINS says so, or in a checkout that is not installed.
        pm.register(hooks, name="asgi_token_auth")
    try:
        instance = configured(datasette) if config is None else configure(datasette, config)
    except StartupError as error:
        raise ConfigurationError(str(error)) from error
    if instance is None:
        raise ConfigurationError(
            f"Nothing is configured: pass config=, or put the block under plugins: {PLUGIN} in Datasette's "
            f"{'configuration' if IS_1_0 else 'metadata'}."
        )
    instance.attachments.add(read_databases(databases))
    return build_middleware(instance, datasette.app())


def token_store(datasette: Any) -> TokenStore:
    """The store of this instance's managed tokens, to issue and revoke them from code.

    Raises:
        ConfigurationError: ``manage_tokens`` is not on.
    """
    from asgi_token_auth.datasette.instance import configured

    instance = configured(datasette)
    managed = None if instance is None else instance.managed_tokens()
    if managed is None:
        raise ConfigurationError("manage_tokens: is not on for this Datasette, so there is no store of tokens.")
    return managed.store


async def get_secret(datasette: Any, secret_name: str, actor_id: str | None = None) -> str | None:
    """The value of a secret that a plugin registered, or ``None`` if it is not set, or was not registered.

    An environment variable DATASETTE_SECRETS_<NAME> goes before what is stored.

    Args:
        actor_id: for whom it is used, to be shown with the time of last use.

    Raises:
        SecretUnreadable: it is stored, and the key is missing or wrong, or the row is damaged.
        StorageError: the database cannot answer, or another plugin's ``register_secrets`` failed.
    """
    from asgi_token_auth.datasette.secrets import value_of

    return await value_of(datasette, secret_name, actor_id)


# This loads all installed plugins, ours among them. It is the last line, and nothing above imports from Datasette,
# because they may import what is defined here and our hooks import the rest of this package.
from datasette.plugins import pm  # noqa: E402
