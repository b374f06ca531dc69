"""API tokens for any ASGI app, and for Datasette first.

The names here need nothing but the core dependencies. The rooms for FastAPI, Datasette, the command line,
the pages and encrypted secrets are imported by their own names.
"""

from asgi_token_auth.authentication import (
    Actor,
    Authenticated,
    Credential,
    Outcome,
    Reason,
    Rejected,
    Source,
    TokenAuth,
    TokenUser,
)
from asgi_token_auth.config import from_config
from asgi_token_auth.errors import (
    ConfigurationError,
    InvalidInput,
    StorageError,
    TokenAuthError,
    TokenNotFound,
)
from asgi_token_auth.middleware import TokenAuthMiddleware, TokenEvent
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.sources.sql import SQLTokens
from asgi_token_auth.sources.static import StaticTokens
from asgi_token_auth.store import ANY_OWNER, IssuedToken, TokenRecord, TokenStore

__all__ = [
    "ANY_OWNER",
    "Actor",
    "Authenticated",
    "ConfigurationError",
    "Credential",
    "InvalidInput",
    "IssuedToken",
    "ManagedTokens",
    "Outcome",
    "Reason",
    "Rejected",
    "Restrictions",
    "SQLTokens",
    "SignedTokens",
    "Source",
    "StaticTokens",
    "StorageError",
    "TokenAuth",
    "TokenAuthError",
    "TokenAuthMiddleware",
    "TokenEvent",
    "TokenNotFound",
    "TokenRecord",
    "TokenStore",
    "TokenUser",
    "from_config",
]
