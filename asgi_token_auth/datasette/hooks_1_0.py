"""The hooks that only Datasette 1.0 has."""

# Datasette's arguments have no types.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

from datasette import hookimpl
from datasette.permissions import Action, PermissionSQL

from asgi_token_auth.datasette import pages
from asgi_token_auth.datasette.handlers import managed_token_handler
from asgi_token_auth.datasette.instance import configured
from asgi_token_auth.datasette.protection import TABLE_ACTIONS, protected


@hookimpl(tryfirst=True)
def register_token_handler(datasette: Any) -> Any:
    """``datasette.create_token()`` makes managed tokens where there are any."""
    instance = configured(datasette)
    if instance is None or not instance.configuration.manage_tokens:
        return None
    managed = instance.managed_tokens()
    return None if managed is None else managed_token_handler(managed)


@hookimpl
def permission_resources_sql(datasette: Any, action: str) -> Any:
    """Nobody reaches the token tables through table pages or by writing SQL."""
    instance = configured(datasette)
    if instance is None or (action != "execute-write-sql" and action not in TABLE_ACTIONS):
        return None
    # Names of their own, because all plugins' parameters meet in one query.
    parameters: dict[str, Any] = {
        "asgi_token_auth_reason": "the tables of asgi-token-auth are not for Datasette's own pages"
    }
    rows: list[str] = []
    for number, (database, child) in enumerate(protected(instance, action)):
        parameters[f"asgi_token_auth_parent_{number}"] = database
        parameters[f"asgi_token_auth_child_{number}"] = child
        rows.append(
            f"select :asgi_token_auth_parent_{number} as parent, :asgi_token_auth_child_{number} as child, "
            "0 as allow, :asgi_token_auth_reason as reason"
        )
    if not rows:
        return None
    return PermissionSQL(sql=" union all ".join(rows), params=parameters)


@hookimpl
def register_actions(datasette: Any) -> Any:
    """What people may be allowed to do with managed tokens and with secrets."""
    instance = configured(datasette)
    if instance is None:
        return None
    actions = {
        **(pages.TOKEN_ACTIONS if instance.configuration.manage_tokens else {}),
        **(pages.SECRET_ACTIONS if instance.configuration.encryption_keys else {}),
    }
    return [Action(name=name, description=description) for name, description in actions.items()]
