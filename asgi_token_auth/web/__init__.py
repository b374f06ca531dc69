"""Pages and a JSON API to manage tokens and secrets, for any ASGI app. Needs the extra ``web``."""

from asgi_token_auth.web.secrets import SecretPages
from asgi_token_auth.web.tokens import TokenPages

__all__ = ["SecretPages", "TokenPages"]
