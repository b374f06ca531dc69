"""API tokens for any ASGI app, and for Datasette first.

The names here need nothing but the core dependencies, but for a SecretStore with an encryption key. The rooms for
FastAPI, Datasette, the command line and the pages are imported by their own names.
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
from asgi_token_auth.config import from_config, secret_store_of
from asgi_token_auth.errors import (
    ConfigurationError,
    InvalidInput,
    SecretNotFound,
    SecretUnreadable,
    StorageError,
    TokenAuthError,
    TokenNotFound,
)
from asgi_token_auth.middleware import TokenAuthMiddleware, TokenEvent
from asgi_token_auth.records import ANY_OWNER, KEEP, Family, IssuedToken, Page, StoredEvent, TokenRecord
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.secret_store import Rotation, Secret, SecretRecord, SecretStore, SecretVersion
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.sources.sql import SQLTokens
from asgi_token_auth.sources.static import StaticTokens
from asgi_token_auth.store import TokenStore

__all__ = [
    "ANY_OWNER",
    "KEEP",
    "Actor",
    "Authenticated",
    "ConfigurationError",
    "Credential",
    "Family",
    "InvalidInput",
    "IssuedToken",
    "ManagedTokens",
    "Outcome",
    "Page",
    "Reason",
    "Rejected",
    "Restrictions",
    "Rotation",
    "SQLTokens",
    "Secret",
    "SecretNotFound",
    "SecretRecord",
    "SecretStore",
    "SecretUnreadable",
    "SecretVersion",
    "SignedTokens",
    "Source",
    "StaticTokens",
    "StorageError",
    "StoredEvent",
    "TokenAuth",
    "TokenAuthError",
    "TokenAuthMiddleware",
    "TokenEvent",
    "TokenNotFound",
    "TokenRecord",
    "TokenStore",
    "TokenUser",
    "from_config",
    "secret_store_of",
]
