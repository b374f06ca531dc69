"""The hooks: what Datasette asks of this plugin. This module is the entry point."""

# Datasette's arguments have no types.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any
from urllib.parse import unquote

from datasette import hookimpl
from datasette.utils.asgi import NotFound

from asgi_token_auth.asgi.types import ASGIApp
from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.datasette import commands, pages, secrets, stand_in
from asgi_token_auth.datasette.app import InsideDatasette
from asgi_token_auth.datasette.configuration import StartupRefused
from asgi_token_auth.datasette.instance import configured
from asgi_token_auth.datasette.refusals import InsideWrappers
from asgi_token_auth.datasette.startup import startup_begins
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import TokenAuthError
from asgi_token_auth.middleware import OUTCOME_KEY
from asgi_token_auth.web.secrets import PATH as SECRETS_PATH
from asgi_token_auth.web.tokens import PATH as TOKENS_PATH

# A hook that this Datasette does not know would be taken for a typing error by whoever checks its plugins.
if IS_1_0:
    from asgi_token_auth.datasette.hooks_1_0 import permission_resources_sql as permission_resources_sql
    from asgi_token_auth.datasette.hooks_1_0 import register_actions as register_actions
    from asgi_token_auth.datasette.hooks_1_0 import register_token_handler as register_token_handler
else:
    from asgi_token_auth.datasette.hooks_0_65 import permission_allowed as permission_allowed
    from asgi_token_auth.datasette.hooks_0_65 import skip_csrf as skip_csrf

# Before Datasette loads the modules of --plugins-dir.
stand_in.install()
if not stand_in.real_one_is_installed():
    # Or the plugins that were written for it have a hook that nobody knows.
    secrets.declare_hook()


@hookimpl(hookwrapper=True, tryfirst=True)
def asgi_wrapper(datasette: Any) -> Generator[None, Any, None]:
    """Stand in every app that Datasette builds, those of ``datasette.client`` included.

    Outside of the wrappers of all plugins, so that none sees a token or a request that is refused; and inside of them,
    so that their headers are on refusals. Both in whichever order the plugins were found.
    """
    # 0.65 asks for this inside its constructor, which is early enough to take the secrets out of its metadata
    # before anybody can read them.
    configured(datasette)
    results = yield

    def outermost(app: ASGIApp) -> ASGIApp:
        return InsideDatasette(datasette, app)

    # Datasette puts each around those before it.
    results.force_result([InsideWrappers, *results.get_result(), outermost])


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
        raise NotFound("There are no managed tokens here: manage_tokens is not on in the configuration.")
    base = pages.path(datasette, TOKENS_PATH)
    rest = request.url_vars["rest"]
    await token_pages({**scope, "root_path": base, "path": base + rest}, receive, send)


async def _secret_pages(datasette: Any, request: Any, scope: Any, receive: Any, send: Any) -> None:
    instance = configured(datasette)
    store = None if instance is None else instance.secret_store()
    secret_pages = None if instance is None else instance.secret_pages()
    if store is None or secret_pages is None:
        raise NotFound("There are no encrypted secrets here: secrets is not in the configuration.")
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
def register_commands(cli: Any) -> None:
    """``datasette secrets generate-encryption-key``, which datasette-secrets has, unless that is installed."""
    if not stand_in.real_one_is_installed():
        commands.add_to(cli)
