"""What other plugins import from us.

It must be there before Datasette is imported: that loads all plugins, in the middle of our own import where ours
came first.
"""

from __future__ import annotations

from typing import Any

from asgi_token_auth.secrets.record import Secret

__all__ = ["Secret", "get_secret"]


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
