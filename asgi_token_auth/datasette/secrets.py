"""Secrets inside Datasette: those that its plugins ask for, and their values."""

from __future__ import annotations

import os
from typing import Any, Final

from datasette.plugins import pm
from datasette.utils import await_me_maybe

from asgi_token_auth.datasette import hookspecs
from asgi_token_auth.datasette.instance import configured
from asgi_token_auth.datasette.outages import outage_log
from asgi_token_auth.errors import ConfigurationError, StorageError, for_the_log
from asgi_token_auth.secrets.known import environment_secret
from asgi_token_auth.secrets.record import Secret
from asgi_token_auth.secrets.store import SecretStore

#: Something to try the pages with.
EXAMPLE: Final = Secret("EXAMPLE_SECRET", "An example secret")


async def value_of(datasette: Any, secret_name: str, actor_id: str | None) -> str | None:
    """What ``get_secret`` promises to plugins."""
    secrets = await registered(datasette)
    if secret_name not in {secret.name for secret in secrets}:
        return None
    instance = configured(datasette)
    store = None if instance is None else instance.secret_store()
    if store is None:
        return environment_secret(os.environ, secret_name)
    register(datasette, store, secrets)
    return await store.get_secret(secret_name, actor_id)


async def registered(datasette: Any) -> list[Secret]:
    """What the plugins ask for now. Of several secrets with one name the first counts.

    Raises:
        StorageError: a plugin failed to say.
    """
    declare_hook()
    secrets: dict[str, Secret] = {}
    try:
        for answer in pm.hook.register_secrets(datasette=datasette):
            for given in await await_me_maybe(answer) or ():
                # Plugins may bring a class of their own.
                secret = Secret(given.name, given.description, given.obtain_url, given.obtain_label)
                secrets.setdefault(secret.name, secret)
    except Exception as error:
        raise StorageError(f"A plugin's register_secrets failed: {for_the_log(error)}") from error
    secrets.setdefault(EXAMPLE.name, EXAMPLE)
    return list(secrets.values())


async def register_all(datasette: Any, store: SecretStore) -> None:
    """Make all that plugins ask for known to ``store``. A plugin that fails to say is logged: others go on."""
    try:
        register(datasette, store, await registered(datasette))
    except StorageError as error:
        outage_log(datasette, "not all secrets are known").note(str(error))


def register(datasette: Any, store: SecretStore, secrets: list[Secret]) -> None:
    """Make the secrets known to ``store``. One with an impossible name is logged and left out."""
    for secret in secrets:
        if secret.name not in store.registered:
            try:
                store.register(secret)
            except ConfigurationError as error:
                outage_log(datasette, "a plugin registered a secret that cannot be").note(str(error))


def declare_hook() -> None:
    """Tell Datasette of our hook, once for each process, unless datasette-secrets has done so."""
    hook = getattr(pm.hook, "register_secrets", None)
    if hook is None or not hook.has_spec():
        pm.add_hookspecs(hookspecs)
