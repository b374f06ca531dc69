"""Who may do what: every kind of visitor on every route, in any app and inside the installed Datasette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import Restrictions
from tests.support.page_sites import KINDS, PATH, Site, running
from tests.support.sites import bearer, needs_1_0

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CREATE = "auth-tokens-create"
AFTER_0_65: dict[str, Any] = {"any app": (), "Datasette": needs_1_0}

#: Name: method, path, body. ``{own}`` is a token of the visitor, ``{other}`` one of bob.
ROUTES: dict[str, tuple[str, str, Any]] = {
    "list": ("GET", "", None),
    "list.json": ("GET", ".json", None),
    "create form": ("GET", "/create", None),
    "create.json choices": ("GET", "/create.json", None),
    "create": ("POST", "/create", "description=x&expire_type=days&expire_duration=1"),
    "create.json": ("POST", "/create.json", "{}"),
    "own": ("GET", "/{own}", None),
    "own.json": ("GET", "/{own}.json", None),
    "other": ("GET", "/{other}", None),
    "other.json": ("GET", "/{other}.json", None),
    "unknown": ("GET", "/99999", None),
    "huge": ("GET", "/9999999999999999999", None),
    "beyond": ("GET", "/99999999999999999999999.json", None),
    "edit form of own": ("GET", "/{own}/edit", None),
    "edit form of other": ("GET", "/{other}/edit", None),
    "edit own": ("POST", "/{own}/edit", "description=y&expire_type=keep"),
    "edit own.json": ("POST", "/{own}/edit.json", '{"description": "z"}'),
    "edit other": ("POST", "/{other}/edit", "description=y&expire_type=keep"),
    "edit other.json": ("POST", "/{other}/edit.json", '{"description": "z"}'),
    "rotate own": ("POST", "/{own}", "rotate=1&grace=60"),
    "rotate own.json": ("POST", "/{own}.json", '{"rotate": true}'),
    "rotate other": ("POST", "/{other}", "rotate=1"),
    "rotate other.json": ("POST", "/{other}.json", '{"rotate": true}'),
    "revoke other": ("POST", "/{other}", "revoke=1"),
    "revoke other.json": ("POST", "/{other}.json", '{"revoke": true}'),
    "revoke unknown": ("POST", "/99999.json", '{"revoke": true}'),
    "revoke all of other": ("POST", "", "revoke_all=1&owner=bob"),
    "revoke all of other.json": ("POST", ".json", '{"revoke_all": true, "owner": "bob"}'),
    "revoke own": ("POST", "/{own}", "revoke=1"),
    "revoke own.json": ("POST", "/{own}.json", '{"revoke": true}'),
    "revoke all own": ("POST", "", "revoke_all=1"),
    "revoke all own.json": ("POST", ".json", '{"revoke_all": true}'),
    "current.json": ("GET", "/current.json", None),
}

NO_SUCH_ID = {"unknown": 404, "huge": 404, "beyond": 404, "revoke unknown": 404}

#: Nobody: no actor, or one who is not a person with an id, or whose limits do not name the pages.
REFUSED = {**dict.fromkeys(ROUTES, 403), "beyond": 404, "current.json": 401}

#: An owner without any other permission than to create.
OWNER = {
    "list": 200,
    "list.json": 200,
    "create form": 200,
    "create.json choices": 200,
    "create": 200,
    "create.json": 201,
    "own": 200,
    "own.json": 200,
    "other": 404,
    "other.json": 404,
    **NO_SUCH_ID,
    "edit form of own": 200,
    "edit form of other": 404,
    "edit own": 302,
    "edit own.json": 200,
    "edit other": 404,
    "edit other.json": 404,
    "rotate own": 200,
    "rotate own.json": 200,
    "rotate other": 404,
    "rotate other.json": 404,
    "revoke other": 404,
    "revoke other.json": 404,
    "revoke all of other": 403,
    "revoke all of other.json": 403,
    "revoke own": 302,
    "revoke own.json": 200,
    "revoke all own": 302,
    "revoke all own.json": 200,
    "current.json": 401,
}

#: Somebody who may not create: they still see and end what is theirs.
PLAIN = {
    **OWNER,
    "create form": 403,
    "create.json choices": 403,
    "create": 403,
    "create.json": 403,
    "edit form of own": 403,
    "edit own": 403,
    "edit own.json": 403,
    "rotate own": 403,
    "rotate own.json": 403,
}

SEES_ALL = {
    "other": 200,
    "other.json": 200,
    "edit form of other": 403,
    "edit other": 403,
    "edit other.json": 403,
    "rotate other": 403,
    "rotate other.json": 403,
    "revoke other": 403,
    "revoke other.json": 403,
}

ENDS_ALL = {
    "other": 200,
    "other.json": 200,
    "revoke other": 302,
    "revoke other.json": 200,
    "revoke all of other": 302,
    "revoke all of other.json": 200,
}

#: A token is told about itself and else refused.
TOKEN = {**REFUSED, "current.json": 200}

#: A token that names auth-tokens-create where tokens may manage: itself and what it created. {own} is its child.
MANAGING = {
    **OWNER,
    "current.json": 200,
    # A child must stay within its parent: it needs restrictions, which these bodies do not send.
    "create": 400,
    "create.json": 400,
    # Another token of the same actor is not of its family.
    "other": 404,
}

VISITORS: dict[str, dict[str, int]] = {
    "anonymous": REFUSED,
    "actor without id": REFUSED,
    "actor with a fraction for an id": REFUSED,
    "actor with a list for an id": REFUSED,
    "actor with true for an id": REFUSED,
    "actor with a number for an id": PLAIN,
    "actor with an empty id": REFUSED,
    "actor that came by a foreign token": REFUSED,
    "other user": PLAIN,
    "owner": OWNER,
    "owner limited to view-instance": REFUSED,
    "owner limited to nothing": REFUSED,
    "owner with unreadable limits": REFUSED,
    "view-all": {**OWNER, **SEES_ALL},
    "revoke-all": {**OWNER, **ENDS_ALL},
    "both": {**OWNER, **SEES_ALL, **ENDS_ALL},
    "token": TOKEN,
    "restricted token": TOKEN,
    "token that names create": TOKEN,
    "token where tokens may manage": TOKEN,
    "token limited otherwise where tokens may manage": TOKEN,
    "token that names create where tokens may manage": MANAGING,
}

ACTORS: dict[str, Any] = {
    "actor without id": {"name": "ann"},
    "actor with a fraction for an id": {"id": 5.0},
    "actor with a list for an id": {"id": ["ann"]},
    "actor with true for an id": {"id": True},
    "actor with a number for an id": {"id": 5},
    "actor with an empty id": {"id": ""},
    "actor that came by a foreign token": {"id": "ann", "token": "other"},
    "other user": {"id": "eve"},
    "owner": {"id": "ann"},
    "owner limited to view-instance": {"id": "ann", "_r": {"a": ["view-instance", "vi"]}},
    "owner limited to nothing": {"id": "ann", "_r": {}},
    "owner with unreadable limits": {"id": "ann", "_r": {"a": CREATE}},
    "view-all": {"id": "viewer"},
    "revoke-all": {"id": "revoker"},
    "both": {"id": "both"},
}

TOKENS: dict[str, Restrictions | None] = {
    "token": None,
    "restricted token": Restrictions(all=("view-instance",)),
    "token that names create": Restrictions(all=(CREATE, "view-table")),
    "token where tokens may manage": None,
    "token limited otherwise where tokens may manage": Restrictions(all=("view-instance",)),
    "token that names create where tokens may manage": Restrictions(all=(CREATE, "view-table")),
}


async def visit(site: Site, visitor: str) -> tuple[dict[str, str], int]:
    """Headers of the visitor, and the id of a token of theirs."""
    if visitor in TOKENS:
        parent = await site.store.issue("ann", restrictions=TOKENS[visitor], expires_after=10_000)
        child = Restrictions(all=("view-table",)) if TOKENS[visitor] else None
        if TOKENS[visitor] and "view-table" not in TOKENS[visitor].all:  # type: ignore[union-attr]
            child = Restrictions()
        own = await site.store.issue("ann", parent=parent.record.id, restrictions=child, expires_after=1_000)
        return bearer(parent.token), own.record.id
    actor = ACTORS.get(visitor)
    own = await site.store.issue(str((actor or {}).get("id") or "ann"))
    return ({} if actor is None else site.as_(actor)), own.record.id


async def check(site: Site, visitor: str) -> list[str]:
    """What differs from the table."""
    wrong = []
    for name, (method, path, body) in ROUTES.items():
        headers, own = await visit(site, visitor)
        other = (await site.store.issue("bob", description="of bob")).record.id
        before = site.rows()
        sent = {**headers, **(JSON if ".json" in path else FORM if body else {})}
        url = PATH + path.format(own=own, other=other)
        answer = await site.client.request(method, url, headers=sent, content=body)
        expected = VISITORS[visitor][name]
        if answer.status_code != expected:
            wrong.append(f"{name}: {answer.status_code} instead of {expected}: {answer.text[:200]}")
        changed = site.rows() != before
        if changed is not (method == "POST" and expected < 400):
            wrong.append(f"{name}: {'something' if changed else 'nothing'} was changed")
        if expected >= 400 and "of bob" in answer.text:
            wrong.append(f"{name}: tells about the token of bob")
        for row, previous in zip(site.rows()[0], before[0], strict=False):
            reaches_bob = VISITORS[visitor]["revoke other"] < 400
            if row != previous and row[3] == "bob" and not reaches_bob:
                wrong.append(f"{name}: changed the token of bob")
    return wrong


def rows() -> list[Any]:
    return [
        # Datasette 0.65 refuses every restricted token before the pages are reached.
        pytest.param(kind, visitor, id=f"{kind}: {visitor}", marks=AFTER_0_65[kind] if TOKENS.get(visitor) else ())
        for kind in KINDS
        for visitor in VISITORS
    ]


@pytest.mark.parametrize(("kind", "visitor"), rows())
async def test_everybody_may_do_what_the_table_says_and_nothing_else(tmp_path: Path, kind: str, visitor: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens="where tokens may manage" in visitor) as site:
        assert await check(site, visitor) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_may_only_revoke_reads_nothing_but_whose_token_it_is(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        limits = Restrictions(all=(site.action,))
        token_id = (await site.store.issue("bob", description="a secret plan", restrictions=limits)).record.id
        headers = site.user("revoker")
        for path in (f"/{token_id}", f"/{token_id}.json"):
            answer = await site.client.get(PATH + path, headers=headers)
            assert "bob" in answer.text
            assert "secret plan" not in answer.text
            assert site.action not in answer.text.replace("data-action", "")
        ended = await site.client.post(f"{PATH}/{token_id}.json", headers=headers, json={"revoke": True})
        assert ended.json()["details"] == {"id": token_id, "status": "revoked", "actor_id": "bob"}
        assert [
            token["id"] for token in (await site.client.get(f"{PATH}.json", headers=headers)).json()["tokens"]
        ] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_list_of_an_owner_is_for_whoever_sees_all(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for actor_id in ("ann", "bob", "bob"):
            await site.store.issue(actor_id)

        async def owners(actor_id: str, query: str = "") -> list[str]:
            answer = await site.client.get(f"{PATH}.json{query}", headers=site.user(actor_id))
            return [token["actor_id"] for token in answer.json()["tokens"]]

        assert await owners("ann") == ["ann"]
        assert await owners("ann", "?owner=bob") == ["ann"]
        assert await owners("viewer") == ["bob", "bob", "ann"]
        assert await owners("viewer", "?owner=bob") == ["bob", "bob"]
        assert await owners("revoker") == []


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=AFTER_0_65[kind]) for kind in KINDS])
async def test_a_limited_actor_who_may_create_stays_within_the_limits(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        headers = site.as_({"id": "ann", "_r": {"a": [CREATE, site.action]}})
        wide = (await site.store.issue("ann")).record.id
        narrow = (await site.store.issue("ann", restrictions=Restrictions())).record.id
        refused = [
            ("/create.json", {}),
            ("/create.json", {"restrictions": {"a": ["auth-tokens-view-all"]}}),
            (f"/{wide}.json", {"rotate": True}),
            (f"/{wide}/edit.json", {"restrictions": {"a": [site.action]}}),
            (f"/{narrow}/edit.json", {"restrictions": None}),
            (f"/{narrow}/edit.json", {"restrictions": {"a": ["auth-tokens-view-all"]}}),
        ]
        before = site.rows()
        for path, body in refused:
            assert (await site.client.post(PATH + path, headers=headers, json=body)).status_code in (400, 403), path
        assert site.rows() == before
        allowed = [
            ("/create.json", {"restrictions": {"a": [site.action]}}),
            (f"/{narrow}.json", {"rotate": True}),
            (f"/{narrow}/edit.json", {"restrictions": {"a": [site.action]}}),
        ]
        for path, body in allowed:
            assert (await site.client.post(PATH + path, headers=headers, json=body)).status_code in (200, 201), path


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=AFTER_0_65[kind]) for kind in KINDS])
async def test_the_old_text_of_a_rotated_token_manages_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True) as site:
        old = await site.store.issue("ann", restrictions=Restrictions(all=(CREATE,)))
        new = await site.store.rotate(old.record.id, owner="ann", grace=3_600)
        body = {"restrictions": {}, "expires_after": 60}
        answers = [
            await site.client.post(f"{PATH}/create.json", headers=bearer(text.token), json=body) for text in (old, new)
        ]
        assert [answer.status_code for answer in answers] == [403, 201]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_told_about_itself(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        issued = await site.store.issue("ann", expires_after=60)
        told = (await site.client.get(f"{PATH}/current.json", headers=bearer(issued.token))).json()
        assert told["ok"] is True
        assert (told["actor"]["id"], told["token_id"], told["source"]) == ("ann", issued.record.id, "managed")
        assert (told["restrictions"], told["expires_at"][-1]) == (None, "Z")
        challenge = (await site.client.get(f"{PATH}/current.json")).headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
