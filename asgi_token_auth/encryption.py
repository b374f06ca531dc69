"""Keys that encrypt secrets. Needs the extra ``secrets``."""

from asgi_token_auth.secrets.encryption import generate_key

__all__ = ["generate_key"]
