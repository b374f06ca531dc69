"""The hooks that only Datasette 0.65 has."""

# Datasette's arguments have no types.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

from datasette import hookimpl

from asgi_token_auth.datasette import pages
from asgi_token_auth.datasette.instance import configured
from asgi_token_auth.datasette.protection import TABLE_ACTIONS, protected
from asgi_token_auth.web.secrets import PATH as SECRETS_PATH
from asgi_token_auth.web.tokens import PATH as TOKENS_PATH


@hookimpl(trylast=True)
def permission_allowed(datasette: Any, actor: Any, action: str, resource: Any) -> bool | None:
    """Nobody reaches the token tables through table pages; our own actions are for the block's ``permissions``."""
    # It takes the last answer that is not None, hence trylast.
    instance = configured(datasette)
    if instance is None:
        return None
    if action not in TABLE_ACTIONS:
        return pages.decide(instance.configuration.permissions, actor, action)
    if not isinstance(resource, tuple) or len(resource) != 2:
        return None
    return False if (resource[0], str(resource[1]).lower()) in protected(instance, action) else None


@hookimpl
def skip_csrf(datasette: Any, scope: Any) -> bool | None:
    """Our pages look for other sites' requests themselves, without a token in the form."""
    # With the base_url and without it, because a proxy may take it away, and Datasette answers all the same.
    ours = (TOKENS_PATH, SECRETS_PATH)
    for path in (*ours, *(pages.path(datasette, one) for one in ours)):
        if scope["path"] == path or scope["path"].startswith((path + "/", path + ".")):
            return True
    return None
