"""The pages inside Datasette: its actor, its permissions, its base template."""

# Datasette's functions have no types.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from datasette.utils import display_actor
from datasette.utils.asgi import Request

from asgi_token_auth.access.permissions import (
    ACTIONS,
    CREATE_TOKENS,
    MANAGE_SECRETS,
    REVOKE_ALL_TOKENS,
    VIEW_ALL_TOKENS,
    matches,
)
from asgi_token_auth.datasette.outages import outage_log
from asgi_token_auth.datasette.version import IS_1_0
from asgi_token_auth.errors import for_the_log
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.host import Frame, Section, id_of
from asgi_token_auth.web.secrets import PATH as SECRETS_PATH
from asgi_token_auth.web.tokens import PATH as TOKENS_PATH

TOKEN_ACTIONS: Final = {
    CREATE_TOKENS: "Create API tokens",
    VIEW_ALL_TOKENS: "View all API tokens",
    REVOKE_ALL_TOKENS: "Revoke any API tokens",
}
# Word for word as datasette-secrets has it: Datasette refuses two plugins that describe an action differently.
SECRET_ACTIONS: Final = {MANAGE_SECRETS: "Manage Datasette secrets"}

#: Not offered: a token with one of them would reach further than its owner may expect. Scripts may send them.
_NOT_OFFERED: Final = frozenset({CREATE_TOKENS, REVOKE_ALL_TOKENS, MANAGE_SECRETS, "debug-menu", "permissions-debug"})

#: The largest number of tables, and of databases, that the form offers one by one.
_MOST_TABLES: Final = 500

_FRAME: Final = """{% extends "base.html" %}
{% block title %}{{ frame.title }}{% endblock %}
{% block extra_head %}{{ super() }}
<link rel="stylesheet" href="{{ frame.assets }}.css">
<script src="{{ frame.assets }}.js" defer></script>
{% endblock %}
{% block crumbs %}{{ super() }}
<p class="crumbs">&nbsp;/ <a href="{{ frame.base }}">{{ frame.section.title }}</a></p>
{% endblock %}
{% block content %}{{ frame.content }}{% endblock %}
"""


class DatasetteHost:
    """Datasette as the app around the pages."""

    # Datasette's base template has scripts and styles inside of it, so those cannot be forbidden.
    content_security_policy = "frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'"

    # Datasette's own menu leads from one to the other.
    sections: Sequence[Section] = ()

    about_nobody = ""

    def __init__(self, datasette: Any, *, notice: str | None) -> None:
        self._datasette = datasette
        self._notice = notice

    async def actor(self, scope: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Datasette's own actor."""
        return scope.get("actor") or None

    async def allowed(self, scope: Mapping[str, Any], actor: Mapping[str, Any], action: str) -> bool:
        """Datasette's own decision."""
        return await allowed(self._datasette, actor, action)

    async def choices(self, scope: Mapping[str, Any], actor: Mapping[str, Any]) -> Choices:
        """Datasette's actions, and the databases and tables that the actor may see."""
        if not IS_1_0:
            # 0.65 cannot hold a token to its restrictions, so none are offered.
            return Choices()
        actions = self._datasette.actions.values()
        offered = [action for action in actions if action.name not in _NOT_OFFERED]
        return Choices(
            everywhere=_descriptions(offered),
            per_database=_descriptions(action for action in offered if action.takes_parent),
            per_resource=_descriptions(action for action in offered if action.takes_child),
            databases=await self._databases(actor),
            known=frozenset(name for action in actions for name in (action.name, action.abbr) if name),
        )

    async def names(self, actor_ids: Iterable[str]) -> Mapping[str, str]:
        """Names as the plugins know them, through ``actors_from_ids``."""
        wanted = [actor_id for actor_id in actor_ids if actor_id]
        if not wanted or not IS_1_0:
            return {}
        try:
            actors = await self._datasette.actors_from_ids(wanted)
            shown = {str(actor_id): str(display_actor(actor)) for actor_id, actor in actors.items() if actor}
        except Exception as error:
            # A directory that is down must not keep anybody from revoking a token.
            outage_log(self._datasette, "ids are shown in place of names, because actors_from_ids failed").note(
                for_the_log(error)
            )
            return {}
        return {actor_id: name for actor_id, name in shown.items() if name != actor_id}

    async def frame(self, scope: Mapping[str, Any], frame: Frame) -> str:
        """Datasette's base template."""
        request = Request(scope, None)
        environment = self._datasette.get_jinja_environment(request) if IS_1_0 else self._datasette.jinja_env
        template = environment.from_string(_FRAME)
        # render_template() tells plugins the name of the template.
        template.name = "asgi_token_auth.html"
        rendered: str = await self._datasette.render_template(template, {"frame": frame}, request=request)
        return rendered

    async def notice(self) -> str | None:
        """That what is kept will not last, where it will not."""
        return self._notice

    async def _databases(self, actor: Mapping[str, Any]) -> dict[str, list[str]]:
        tables: dict[str, list[str]] = {}
        databases = await self._datasette.allowed_resources("view-database", actor, limit=_MOST_TABLES)
        for resource in databases.resources:
            tables[resource.parent] = []
        page = await self._datasette.allowed_resources("view-table", actor, limit=_MOST_TABLES)
        for resource in page.resources:
            if not resource.child.startswith("_"):
                tables.setdefault(resource.parent, []).append(resource.child)
        return tables


async def allowed(datasette: Any, actor: Mapping[str, Any] | None, action: str) -> bool:
    """Whether Datasette lets ``actor`` do ``action``."""
    if IS_1_0:
        return bool(await datasette.allowed(action=action, actor=actor))
    return bool(await datasette.permission_allowed(actor, action, default=False))


def decide(permissions: Mapping[str, Any] | None, actor: Mapping[str, Any] | None, action: str) -> bool | None:
    """Datasette 0.65: root may, others as the block's allow blocks say; ``None`` where they say nothing."""
    if action not in ACTIONS:
        return None
    if actor is not None and actor.get("id") == "root":
        return True
    allow = (permissions or {}).get(action)
    return None if allow is None else matches(actor, allow)


def path(datasette: Any, pages: str) -> str:
    """Where the pages at ``pages`` are in this instance."""
    return str(datasette.urls.path(pages))


async def menu(datasette: Any, actor: Mapping[str, Any] | None, *, tokens: bool, secrets: bool) -> list[dict[str, str]]:
    """What the menu offers to this actor, of the pages that there are."""
    if not actor or id_of(actor) is None or actor.get("token"):
        return []
    links: list[dict[str, str]] = []
    if tokens and await allowed(datasette, actor, CREATE_TOKENS):
        links.append({"href": f"{path(datasette, TOKENS_PATH)}/create", "label": "Create API token"})
    if secrets and await allowed(datasette, actor, MANAGE_SECRETS):
        links.append({"href": path(datasette, SECRETS_PATH), "label": "Manage secrets"})
    return links


def _descriptions(actions: Iterable[Any]) -> dict[str, str]:
    return {action.name: action.description or "" for action in actions}
