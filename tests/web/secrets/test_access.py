"""Who may look after secrets: every kind of visitor on every route, in any app and inside the installed Datasette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import Restrictions
from tests.support.page_sites import KINDS
from tests.support.secret_sites import PATH, Site, running
from tests.support.sites import bearer, needs_1_0

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CREATE = "auth-tokens-create"
MANAGE = "manage-secrets"
AFTER_0_65: dict[str, Any] = {"any app": (), "Datasette": needs_1_0}

#: Name: method, path, body, what a manager gets. SET is stored by bob, with a note.
ROUTES: dict[str, tuple[str, str, Any, int]] = {
    "list": ("GET", "", None, 200),
    "list.json": ("GET", ".json", None, 200),
    "find": ("GET", "?name=A/B", None, 302),
    "stored": ("GET", "/SET", None, 200),
    "stored.json": ("GET", "/SET.json", None, 200),
    "registered": ("GET", "/OPENAI_KEY", None, 200),
    "registered.json": ("GET", "/OPENAI_KEY.json", None, 200),
    "new": ("GET", "/NEW", None, 200),
    "new.json": ("GET", "/NEW.json", None, 404),
    "set": ("POST", "/OPENAI_KEY", "secret=x&note=y", 302),
    "set.json": ("POST", "/OPENAI_KEY.json", '{"value": "x", "note": "y"}', 200),
    "set a new one": ("POST", "/NEW", "secret=x", 302),
    "set a new one.json": ("POST", "/NEW.json", '{"value": "x"}', 200),
    "change": ("POST", "/SET", "secret=x&note=y", 302),
    "change.json": ("POST", "/SET.json", '{"value": "x"}', 200),
    "note": ("POST", "/SET", "secret=&note=z", 302),
    "note.json": ("POST", "/SET.json", '{"note": "z"}', 200),
    "delete": ("POST", "/SET", "delete=1", 302),
    "delete.json": ("POST", "/SET.json", '{"delete": true}', 200),
    "delete a new one": ("POST", "/NEW", "delete=1", 404),
    "delete a new one.json": ("POST", "/NEW.json", '{"delete": true}', 404),
    "set one from the environment": ("POST", "/FROM_ENVIRONMENT", "secret=x", 400),
    "set one from the environment.json": ("POST", "/FROM_ENVIRONMENT.json", '{"value": "x"}', 400),
    "another method": ("PUT", "/SET.json", '{"value": "x"}', 405),
    "another method to end it": ("DELETE", "/SET.json", None, 405),
}

MAY = {name: status for name, (_, _, _, status) in ROUTES.items()}
MAY_NOT = {name: 405 if status == 405 else 403 for name, status in MAY.items()}

ACTORS: dict[str, tuple[Any, bool]] = {
    "actor without id": ({"name": "ann"}, False),
    "actor with a number for an id": ({"id": 5}, False),
    "actor with an empty id": ({"id": ""}, False),
    "actor that came by a foreign token": ({"id": "ann", "token": "other"}, False),
    "somebody": ({"id": "eve"}, False),
    "manager": ({"id": "ann"}, True),
    "manager limited to view-instance": ({"id": "ann", "_r": {"a": ["view-instance", "vi"]}}, False),
    "manager limited to tokens": ({"id": "ann", "_r": {"a": [CREATE]}}, False),
    "manager limited to nothing": ({"id": "ann", "_r": {}}, False),
    "manager with unreadable limits": ({"id": "ann", "_r": {"a": MANAGE}}, False),
    "manager limited to secrets": ({"id": "ann", "_r": {"a": [MANAGE]}}, True),
    "somebody limited to secrets": ({"id": "eve", "_r": {"a": [MANAGE]}}, False),
}

TOKENS: dict[str, Restrictions | None] = {
    "token": None,
    "restricted token": Restrictions(all=("view-instance",)),
    "token that names managing secrets": Restrictions(all=(MANAGE,)),
    "token that names both, where tokens may manage": Restrictions(all=(MANAGE, CREATE)),
}


async def check(site: Site, headers: dict[str, str], table: dict[str, int]) -> list[str]:
    """What differs from the table."""
    wrong = []
    for name, (method, path, body, _) in ROUTES.items():
        site.run_sql(f"delete from {site.store.table}")
        await site.store.set("SET", "the value", note="a private note", by="bob")
        before = site.rows()
        sent = {**headers, **(JSON if ".json" in path else FORM if body else {})}
        answer = await site.client.request(method, PATH + path, headers=sent, content=body)
        if answer.status_code != table[name]:
            wrong.append(f"{name}: {answer.status_code} instead of {table[name]}: {answer.text[-300:]}")
        changed = site.rows() != before
        if changed is not (method == "POST" and table[name] < 400):
            wrong.append(f"{name}: {'something' if changed else 'nothing'} was changed")
        if table[name] >= 400 and "a private note" in answer.text:
            wrong.append(f"{name}: tells about a secret")
        if "the value" in answer.text:
            wrong.append(f"{name}: tells the secret")
    return wrong


@pytest.mark.parametrize("kind", KINDS)
async def test_only_managers_do_anything_at_all(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        assert await check(site, {}, MAY_NOT) == []
        for name, (actor, may) in ACTORS.items():
            assert await check(site, site.as_(actor), MAY if may else MAY_NOT) == [], name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        # Datasette 0.65 refuses every restricted token before the pages are reached.
        pytest.param(kind, name, id=f"{kind}: {name}", marks=AFTER_0_65[kind] if TOKENS[name] else ())
        for kind in KINDS
        for name in TOKENS
    ],
)
async def test_no_token_does_anything_here(tmp_path: Path, kind: str, name: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens="where tokens may manage" in name) as site:
        token = (await site.tokens.issue("ann", restrictions=TOKENS[name])).token
        assert await check(site, bearer(token), MAY_NOT) == []
