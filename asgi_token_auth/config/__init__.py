"""The configuration block: what it may say, where its values come from, and what is built of it."""

from asgi_token_auth.config.assembly import from_config, secret_store_of

__all__ = ["from_config", "secret_store_of"]
