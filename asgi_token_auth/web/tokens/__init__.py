"""The pages and the JSON API of managed tokens."""

from asgi_token_auth.web.tokens.pages import PATH, SECTION, TokenPages

__all__ = ["PATH", "SECTION", "TokenPages"]
