"""API tokens for any ASGI app, and for Datasette first.

The names here need nothing but the core dependencies, but for a SecretStore with an encryption key. The modules for
FastAPI, Datasette, the command line and the pages are imported by their own names.
"""

# Not from typing, whose own imports take longer than all that is left here.
TYPE_CHECKING = False
if TYPE_CHECKING:
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
        AlreadyDone,
        ConfigurationError,
        EditConflict,
        IdempotencyKeyReused,
        InvalidInput,
        SecretNotFound,
        SecretUnreadable,
        StorageError,
        TokenAuthError,
        TokenNotFound,
    )
    from asgi_token_auth.middleware import TokenAuthMiddleware, TokenEvent
    from asgi_token_auth.restrictions import Restrictions
    from asgi_token_auth.secrets.record import Rotation, Secret, SecretRecord, SecretVersion
    from asgi_token_auth.secrets.store import SecretStore
    from asgi_token_auth.sources.managed import ManagedTokens
    from asgi_token_auth.sources.signed import SignedTokens
    from asgi_token_auth.sources.sql import SQLTokens
    from asgi_token_auth.sources.static import StaticTokens
    from asgi_token_auth.storage.idempotency import IdempotencyKey
    from asgi_token_auth.tokens.record import ANY_OWNER, KEEP, Family, IssuedToken, Page, StoredEvent, TokenRecord
    from asgi_token_auth.tokens.store import TokenStore

# Written out, as above: type checkers read no list that is computed. A test holds it and _PLACES together.
__all__ = [
    "ANY_OWNER",
    "KEEP",
    "Actor",
    "AlreadyDone",
    "Authenticated",
    "ConfigurationError",
    "Credential",
    "EditConflict",
    "Family",
    "IdempotencyKey",
    "IdempotencyKeyReused",
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

_PLACES = {
    "authentication": (
        "Actor",
        "Authenticated",
        "Credential",
        "Outcome",
        "Reason",
        "Rejected",
        "Source",
        "TokenAuth",
        "TokenUser",
    ),
    "config": (
        "from_config",
        "secret_store_of",
    ),
    "errors": (
        "AlreadyDone",
        "ConfigurationError",
        "EditConflict",
        "IdempotencyKeyReused",
        "InvalidInput",
        "SecretNotFound",
        "SecretUnreadable",
        "StorageError",
        "TokenAuthError",
        "TokenNotFound",
    ),
    "middleware": (
        "TokenAuthMiddleware",
        "TokenEvent",
    ),
    "restrictions": ("Restrictions",),
    "secrets.record": (
        "Rotation",
        "Secret",
        "SecretRecord",
        "SecretVersion",
    ),
    "secrets.store": ("SecretStore",),
    "sources.managed": ("ManagedTokens",),
    "sources.signed": ("SignedTokens",),
    "sources.sql": ("SQLTokens",),
    "sources.static": ("StaticTokens",),
    "storage.idempotency": ("IdempotencyKey",),
    "tokens.record": (
        "ANY_OWNER",
        "Family",
        "IssuedToken",
        "KEEP",
        "Page",
        "StoredEvent",
        "TokenRecord",
    ),
    "tokens.store": ("TokenStore",),
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """One of the names above, whose module is imported when it is first asked for.

        So a command line that is interrupted while all of that is imported ends with a sentence: its own code, which
        says it, is in this package and runs first.
        """
        import importlib

        for place, names in _PLACES.items():
            if name in names:
                value = getattr(importlib.import_module(f"asgi_token_auth.{place}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
