"""The hooks: what Datasette asks of this plugin. This module is the entry point."""

# Datasette's arguments have no types.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any, Final
from urllib.parse import unquote

from datasette import hookimpl
from datasette.utils.asgi import NotFound

from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.datasette import pages, secrets
from asgi_token_auth.datasette.app import InsideDatasette
from asgi_token_auth.datasette.configuration import StartupRefused
from asgi_token_auth.datasette.handlers import managed_token_handler
from asgi_token_auth.datasette.instance import Instance, configured
from asgi_token_auth.datasette.startup import startup_begins
from asgi_token_auth.errors import TokenAuthError
from asgi_token_auth.middleware import OUTCOME_KEY, ASGIApp
from asgi_token_auth.web.secrets import PATH as SECRETS_PATH
from asgi_token_auth.web.tokens import PATH as TOKENS_PATH

#: What people do to a table through Datasette's own pages and API.
_TABLE_ACTIONS: Final = frozenset(
    {
        "alter-table",
        "delete-row",
        "drop-table",
        "insert-row",
        "set-column-type",
        "update-row",
        "view-table",
    }
)


@hookimpl
def asgi_wrapper(datasette: Any) -> Callable[[ASGIApp], ASGIApp]:
    """Stand inside every app that Datasette builds, those of ``datasette.client`` included."""
    # 0.65 asks for this inside its constructor, which is early enough to take the secrets out of its metadata
    # before anybody can read them.
    configured(datasette)
    return lambda app: InsideDatasette(datasette, app)


@hookimpl
def prepare_jinja2_environment(env: Any, datasette: Any) -> None:
    """Both versions call this first of all startup hooks."""
    startup_begins(datasette)


@hookimpl(trylast=True)
def startup(datasette: Any) -> Any:
    """Refuse to start where something cannot work. Last, because other plugins attach databases at startup."""

    async def check_instance() -> None:
        instance = configured(datasette)
        try:
            if instance is not None:
                await instance.check_databases()
        except TokenAuthError as error:
            raise StartupRefused(error) from error

    return check_instance


@hookimpl(hookwrapper=True, tryfirst=True)
def actor_from_request(datasette: Any, request: Any) -> Generator[None, Any, None]:
    """A presented token decides alone."""
    results = yield
    outcome = request.scope.get(OUTCOME_KEY)
    if not isinstance(outcome, Authenticated):
        return
    # What other plugins and Datasette itself make of the request is not even waited for: one of them could
    # refuse it, or answer with somebody else.
    if results.excinfo is None:
        for other in results.get_result():
            if inspect.iscoroutine(other):
                other.close()
    # Datasette makes no further tokens for an actor that came by one, and knows such an actor by this key.
    actor = outcome.actor()
    actor.setdefault("token", outcome.auth.source)
    results.force_result([actor])


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
    """Datasette 1.0: nobody reaches the token tables through table pages or by writing SQL."""
    instance = configured(datasette)
    if instance is None or (action != "execute-write-sql" and action not in _TABLE_ACTIONS):
        return None
    # Names of their own, because all plugins' parameters meet in one query.
    parameters: dict[str, Any] = {
        "asgi_token_auth_reason": "the tables of asgi-token-auth are not for Datasette's own pages"
    }
    rows: list[str] = []
    for number, (database, child) in enumerate(_protected(instance, action)):
        parameters[f"asgi_token_auth_parent_{number}"] = database
        parameters[f"asgi_token_auth_child_{number}"] = child
        rows.append(
            f"select :asgi_token_auth_parent_{number} as parent, :asgi_token_auth_child_{number} as child, "
            "0 as allow, :asgi_token_auth_reason as reason"
        )
    if not rows:
        return None
    from datasette.permissions import PermissionSQL

    return PermissionSQL(sql=" union all ".join(rows), params=parameters)


def _protected(instance: Instance, action: str) -> list[tuple[str, str | None]]:
    tables = instance.attachments.protected_tables()
    if action == "execute-write-sql":
        return [(database, None) for database in dict.fromkeys(database for database, _ in tables)]
    return [(database, table) for database, names in tables for table in names]


@hookimpl(trylast=True)
def permission_allowed(datasette: Any, actor: Any, action: str, resource: Any) -> bool | None:
    """Datasette 0.65: the same, and what the block's ``permissions`` say about our own actions."""
    # It takes the last answer that is not None, hence trylast.
    instance = configured(datasette)
    if instance is None:
        return None
    if action not in _TABLE_ACTIONS:
        return pages.decide(instance.configuration.permissions, actor, action)
    if not isinstance(resource, tuple) or len(resource) != 2:
        return None
    return False if (resource[0], str(resource[1]).lower()) in _protected(instance, action) else None


@hookimpl
def register_actions(datasette: Any) -> Any:
    """Datasette 1.0: what people may be allowed to do with managed tokens and with secrets."""
    instance = configured(datasette)
    if instance is None:
        return None
    from datasette.permissions import Action

    actions = {
        **(pages.TOKEN_ACTIONS if instance.configuration.manage_tokens else {}),
        **(pages.SECRET_ACTIONS if instance.configuration.encryption_keys else {}),
    }
    return [Action(name=name, description=description) for name, description in actions.items()]


@hookimpl
def register_routes(datasette: Any) -> Any:
    """The pages of managed tokens and of secrets."""
    # Always, because 0.65 asks before wrap_datasette() can have said whether there are any.
    return [
        (rf"^{TOKENS_PATH}(?P<rest>(?:[/.].*)?)$", _token_pages),
        (rf"^{SECRETS_PATH}(?P<rest>(?:[/.].*)?)$", _secret_pages),
    ]


async def _token_pages(datasette: Any, request: Any, scope: Any, receive: Any, send: Any) -> None:
    instance = configured(datasette)
    token_pages = None if instance is None else instance.token_pages()
    if token_pages is None:
        raise NotFound("There are no managed tokens here.")
    base = pages.path(datasette, TOKENS_PATH)
    rest = request.url_vars["rest"]
    await token_pages({**scope, "root_path": base, "path": base + rest}, receive, send)


async def _secret_pages(datasette: Any, request: Any, scope: Any, receive: Any, send: Any) -> None:
    instance = configured(datasette)
    store = None if instance is None else instance.secret_store()
    secret_pages = None if instance is None else instance.secret_pages()
    if store is None or secret_pages is None:
        raise NotFound("No encrypted secrets are configured here.")
    await secrets.register_all(datasette, store)
    base = pages.path(datasette, SECRETS_PATH)
    # Datasette finds the route of a path as it was sent, percent-encoded.
    rest = unquote(request.url_vars["rest"])
    await secret_pages({**scope, "root_path": base, "path": base + rest}, receive, send)


@hookimpl
def menu_links(datasette: Any, actor: Any) -> Any:
    """Links to the pages, for whoever may do what is done there."""
    instance = configured(datasette)
    if instance is None:
        return None
    has_tokens, has_secrets = instance.configuration.manage_tokens, bool(instance.configuration.encryption_keys)
    return lambda: pages.menu(datasette, actor, tokens=has_tokens, secrets=has_secrets)


@hookimpl
def skip_csrf(datasette: Any, scope: Any) -> bool | None:
    """Datasette 0.65: our pages look for other sites' requests themselves, without a token in the form."""
    # With the base_url and without it, because a proxy may take it away, and Datasette answers all the same.
    ours = (TOKENS_PATH, SECRETS_PATH)
    for path in (*ours, *(pages.path(datasette, one) for one in ours)):
        if scope["path"] == path or scope["path"].startswith((path + "/", path + ".")):
            return True
    return None
