"""The JSON API: everything that a page can do, and errors in Datasette's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.page_sites import KINDS, PATH, Site, running
from tests.support.sites import bearer

pytestmark = pytest.mark.anyio

RECORD = {
    "id",
    "actor_id",
    "status",
    "description",
    "restrictions",
    "created_at",
    "expires_at",
    "last_used_at",
    "last_used_address",
    "ended_at",
    "parent_id",
    "previous_until",
    "version",
}


async def post(site: Site, path: str, body: Any, actor_id: str = "ann") -> Any:
    return await site.client.post(PATH + path, headers=site.user(actor_id), json=body)


def assert_error(answer: Any, status: int) -> None:
    body = answer.json()
    assert answer.status_code == status, body
    assert (body["ok"], body["status"]) == (False, status)
    assert body["error"]
    assert isinstance(body["errors"], list)
    assert all(isinstance(sentence, str) and sentence.endswith(".") for sentence in body["errors"])
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_token_in_json(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        created = await post(site, "/create.json", {"description": " CI ", "expires_after": 3_600})
        assert created.status_code == 201
        token, details = created.json()["token"], created.json()["details"]
        assert details.keys() == RECORD
        assert (details["id"], details["description"], details["actor_id"]) == (1, " CI ", "ann")
        me = (await site.client.get(f"{PATH}/current.json", headers=bearer(token))).json()
        assert (me["actor"]["id"], me["token_id"], me["expires_at"]) == ("ann", 1, details["expires_at"])
        rotated = (await post(site, "/1.json", {"rotate": True, "grace": 60})).json()
        assert rotated["token"] != token
        assert rotated["details"]["previous_until"] is not None
        edited = (await post(site, "/1/edit.json", {"description": None, "expires_after": None})).json()["details"]
        assert (edited["description"], edited["expires_at"], edited["restrictions"]) == (None, None, None)
        listed = (await site.client.get(f"{PATH}.json", headers=site.user("ann"))).json()
        assert [item.keys() for item in listed["tokens"]] == [RECORD]
        assert (listed["next"], listed["next_url"]) == (None, None)
        shown = (await site.client.get(f"{PATH}/1.json", headers=site.user("ann"))).json()
        assert [event["event"] for event in shown["events"]] == ["created", "rotated", "edited"]
        assert all(event["by"] == "ann" for event in shown["events"])
        ended = (await post(site, "/1.json", {"revoke": True})).json()
        assert ended["details"]["status"] == "revoked"
        assert (await post(site, "/1.json", {"revoke": True})).json() == ended
        await post(site, "/create.json", {})
        assert (await post(site, ".json", {"revoke_all": True})).json() == {"ok": True, "revoked": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_list_in_json_is_followed_by_its_next_url(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for _ in range(5):
            await site.store.issue("ann")
        url, seen = f"{PATH}.json?size=2&search=ann", []
        while url:
            page = (await site.client.get(url, headers=site.user("ann"))).json()
            seen += [token["id"] for token in page["tokens"]]
            url = page["next_url"]
        assert seen == [5, 4, 3, 2, 1]


BAD: dict[str, tuple[str, bytes, str | None, int]] = {
    "not JSON": ("/create.json", b"{", "application/json", 400),
    "empty": ("/create.json", b"", "application/json", 400),
    "a list": ("/create.json", b"[]", "application/json", 400),
    "a string": ("/create.json", b'"x"', "application/json", 400),
    "null": ("/create.json", b"null", "application/json", 400),
    "a name twice": ("/create.json", b'{"expires_after": 60, "expires_after": null}', "application/json", 400),
    "a name twice inside": (
        "/1/edit.json",
        b'{"restrictions": {"a": ["auth-tokens-create"], "a": []}}',
        "application/json",
        400,
    ),
    "not UTF-8": ("/create.json", b'{"description": "\xff"}', "application/json", 400),
    "a lone surrogate": ("/create.json", b'{"description": "\\ud800"}', "application/json", 400),
    "nested": ("/create.json", b"[" * 100_000, "application/json", 400),
    "nested inside": ("/create.json", b'{"restrictions": ' + b'{"d":' * 20_000, "application/json", 400),
    "a number of many digits": ("/create.json", b'{"expires_after": ' + b"9" * 10_000 + b"}", "application/json", 400),
    "not a number": ("/create.json", b'{"expires_after": NaN}', "application/json", 400),
    "infinite": ("/create.json", b'{"expires_after": 1e999}', "application/json", 400),
    "a text": ("/create.json", '{"expires_after": "²"}'.encode(), "application/json", 400),
    "zero": ("/create.json", b'{"expires_after": 0}', "application/json", 400),
    "negative": ("/create.json", b'{"expires_after": -5}', "application/json", 400),
    "10^20": ("/create.json", b'{"expires_after": 100000000000000000000}', "application/json", 400),
    "a fraction": ("/create.json", b'{"expires_after": 60.5}', "application/json", 400),
    "an unknown field": ("/create.json", b'{"expire_after": 60}', "application/json", 400),
    "an actor": ("/create.json", b'{"actor_id": "root"}', "application/json", 400),
    "an unknown action": ("/create.json", b'{"restrictions": {"a": ["no-such"]}}', "application/json", 400),
    "oversized": ("/create.json", b'{"description": "' + b"x" * 131_072 + b'"}', "application/json", 413),
    "a form": ("/create.json", b"expire_type=", "application/x-www-form-urlencoded", 415),
    "multipart": ("/create.json", b"--x--", "multipart/form-data; boundary=x", 415),
    "no type": ("/create.json", b"{}", None, 415),
    "another type": ("/create.json", b"{}", "text/json", 415),
    "no action": ("/1.json", b"{}", "application/json", 400),
    "an action as text": ("/1.json", b'{"revoke": "false"}', "application/json", 400),
    "an action as a number": ("/1.json", b'{"revoke": 1}', "application/json", 400),
    "an action that is false": ("/1.json", b'{"revoke": false}', "application/json", 400),
    "two actions": ("/1.json", b'{"revoke": true, "rotate": true}', "application/json", 400),
    "revoke with grace": ("/1.json", b'{"revoke": true, "grace": 5}', "application/json", 400),
    "grace as text": ("/1.json", b'{"rotate": true, "grace": "60"}', "application/json", 400),
    "grace null": ("/1.json", b'{"rotate": true, "grace": null}', "application/json", 400),
    "grace true": ("/1.json", b'{"rotate": true, "grace": true}', "application/json", 400),
    "grace too long": ("/1.json", b'{"rotate": true, "grace": 99999999}', "application/json", 400),
    "edit a version that is none": ("/1/edit.json", b'{"version": null}', "application/json", 400),
    "edit an unknown field": ("/1/edit.json", b'{"status": "active"}', "application/json", 400),
    "edit the actor": ("/1/edit.json", b'{"actor_id": "root"}', "application/json", 400),
    "edit an expiry": ("/1/edit.json", b'{"expires_after": 0}', "application/json", 400),
    "edit restrictions": ("/1/edit.json", b'{"restrictions": []}', "application/json", 400),
    "an owner that is none": (".json", b'{"revoke_all": true, "owner": 5}', "application/json", 400),
    "an empty owner": (".json", b'{"revoke_all": true, "owner": ""}', "application/json", 400),
    "revoke all as text": (".json", b'{"revoke_all": "yes"}', "application/json", 400),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_json_changes_nothing_and_says_why(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann", description="kept")
        before = site.rows()
        for name, (path, body, content_type, status) in BAD.items():
            headers = {**site.user("ann"), **({"content-type": content_type} if content_type else {})}
            answer = await site.client.post(PATH + path, headers=headers, content=body)
            assert answer.status_code == status, (name, answer.text[:200])
            assert_error(answer, status)
            assert len(answer.content) < 2_000, name
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_other_errors_have_the_same_shape(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        ann = site.user("ann")
        assert_error(await site.client.get(f"{PATH}.json"), 403)
        assert_error(await site.client.get(f"{PATH}/99.json", headers=ann), 404)
        assert_error(await site.client.get(f"{PATH}/x.json", headers=ann), 404)
        assert_error(await site.client.get(f"{PATH}/current.json", headers=ann), 401)
        assert_error(await site.client.put(f"{PATH}.json", headers=ann), 405)
        assert_error(await site.client.get(f"{PATH}.json?status=x", headers=ann), 400)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_set_of_restrictions_is_kept_as_one(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        assert (await post(site, "/create.json", {"restrictions": {}})).json()["details"]["restrictions"] == {}
        edited = await post(site, "/1/edit.json", {"description": "x"})
        assert edited.json()["details"]["restrictions"] == {}
        assert (await post(site, "/1/edit.json", {"restrictions": None})).json()["details"]["restrictions"] is None
