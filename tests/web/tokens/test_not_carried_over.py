"""The defects of datasette-auth-tokens' pages, one test each; each name starts with its number in the list of them.

D5 to D7 are in tests/datasette/test_not_carried_over.py, with the other defects of what a token opens.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ANY_OWNER, Restrictions
from tests.support.page_sites import KINDS, PATH, Site, running
from tests.support.sites import TABLE, bearer, needs_1_0, who

pytestmark = pytest.mark.anyio

CREATE = "auth-tokens-create"
both_sites = pytest.mark.parametrize("kind", KINDS)
# Datasette 0.65 refuses every restricted token before the pages are reached.
sites_with_restricted_tokens = pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=needs_1_0)])


async def post(site: Site, path: str, headers: dict[str, str], **body: Any) -> int:
    status: int = (await site.client.post(PATH + path, headers=headers, **body)).status_code
    return status


@both_sites
async def test_d1_no_visitor_lists_the_tokens_of_others(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for _ in range(15):
            await site.store.issue("bob", description="of bob")
        for query in ("", "?next=10", "?search=bob", "?owner=bob"):
            for path in ("", ".json"):
                assert (await site.client.get(PATH + path + query)).status_code == 403
                answer = await site.client.get(PATH + path + query, headers=site.user("ann"))
                assert "of bob" not in answer.text


@both_sites
async def test_d2_details_and_revocation_ask_who_is_there(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("bob")
        for headers, status in (({}, 403), (site.user("ann"), 404)):
            assert (await site.client.get(f"{PATH}/1", headers=headers)).status_code == status
            assert await post(site, "/1", headers, data={"revoke": "1"}) == status
        assert (await site.store.get(1, owner="bob")).status == "active"


@both_sites
async def test_d3_d33_an_invalid_expiry_mints_no_token(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        durations = [("days", text) for text in ("abc", "-5", "0", "", "²", str(10**20), "9" * 5_000)]
        for unit, text in [*durations, ("weeks", "5"), ("Days", "5")]:
            fields = {"expire_type": unit, "expire_duration": text}
            assert await post(site, "/create", site.user("ann"), data=fields) == 400, fields
        assert await post(site, "/create", site.user("ann"), data={"expire_type": "days"}) == 400
        assert site.rows()[0] == []


@both_sites
async def test_d4_a_body_that_is_no_form_mints_no_token(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        ann = site.user("ann")
        assert await post(site, "/create", ann, json={"expire_type": "days", "expire_duration": "1"}) == 415
        assert await post(site, "/create", ann, files={"expire_type": (None, "days")}) == 415
        assert await post(site, "/create", ann) == 415
        assert site.rows()[0] == []


@sites_with_restricted_tokens
async def test_d8_a_token_that_may_create_mints_none_that_may_do_more(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True) as site:
        parent = await site.store.issue("ann", restrictions=Restrictions(all=(CREATE,)))
        for body in ({}, {"restrictions": None}, {"restrictions": {"a": [site.action]}}):
            assert await post(site, "/create.json", bearer(parent.token), json=body) == 400
        fields = {"expire_type": "days", "expire_duration": "1"}
        assert await post(site, "/create", bearer(parent.token), data=fields) == 400
        assert len(site.rows()[0]) == 1


@both_sites
async def test_d9_a_limited_actor_mints_no_unlimited_token(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        headers = site.as_({"id": "ann", "_r": {"a": [CREATE]}})
        fields = {"expire_type": "days", "expire_duration": "1"}
        assert await post(site, "/create", headers, data=fields) == 400
        assert await post(site, "/create.json", headers, json={}) == 400
        assert site.rows()[0] == []


@sites_with_restricted_tokens
async def test_d10_a_token_of_a_minute_mints_none_that_lives_longer(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True) as site:
        parent = await site.store.issue("ann", restrictions=Restrictions(all=(CREATE,)), expires_after=60)
        for life in (None, 61, 3_600):
            body: dict[str, Any] = {"restrictions": {}, "expires_after": life}
            assert await post(site, "/create.json", bearer(parent.token), json=body) == 400
        assert await post(site, "/create.json", bearer(parent.token), json={"restrictions": {}}) == 201
        child = await site.store.get(2, owner="ann")
        assert child.expires_at is not None
        assert parent.record.expires_at is not None
        assert child.expires_at <= parent.record.expires_at


@both_sites
async def test_d11_a_limited_token_or_actor_lists_opens_and_revokes_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        limits = Restrictions(all=("view-table",))
        token = (await site.store.issue("ann", restrictions=limits)).token
        for headers in (bearer(token), site.as_({"id": "ann", "_r": {"a": ["view-table"]}})):
            for path in ("", "/1", "/1.json"):
                assert (await site.client.get(PATH + path, headers=headers)).status_code == 403
            assert await post(site, "/1", headers, data={"revoke": "1"}) == 403
        assert (await site.store.get(1, owner="ann")).status == "active"


async def test_d12_d13_nobody_reads_or_writes_the_rows_through_datasette(tmp_path: Path) -> None:
    async with running("Datasette", tmp_path) as site:
        token = (await site.store.issue("ann")).token
        before = site.rows()
        for headers in ({}, bearer(token), site.user("root")):
            assert (await site.client.get(f"/tokens/{TABLE}.json", headers=headers)).status_code == 403
            for update in ("/1/-/update", "/-/insert", "/1/-/delete"):
                url = f"/tokens/{TABLE}{update}"
                body = {"update": {"actor_id": "root", "permissions": "null"}, "row": {"actor_id": "root"}}
                answer = await site.client.post(url, headers={**headers, "content-type": "application/json"}, json=body)
                assert answer.status_code >= 400
        assert site.rows() == before
        assert (await who(site.client, token))["id"] == "ann"


@both_sites
async def test_d29_d30_looking_at_an_ended_token_or_revoking_it_again_writes_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for _ in range(2):
            await site.store.issue("ann", expires_after=1_000)
        await site.store.revoke(1, owner="ann")
        past = int(time.time()) - 5_000
        site.run_sql(f"update {TABLE} set created_timestamp = {past}, ended_timestamp = ended_timestamp - 4500")
        before = site.rows()
        for token_id in (1, 2):
            for path in ("", f"/{token_id}", f"/{token_id}.json"):
                assert (await site.client.get(PATH + path, headers=site.user("ann"))).status_code == 200
            assert await post(site, f"/{token_id}", site.user("ann"), data={"revoke": "1"}) == 302
        assert site.rows() == before
        statuses = [token.status for token in (await site.store.list(owner="ann")).items]
        assert statuses == ["expired", "revoked"]


@both_sites
async def test_d31_whoever_may_revoke_all_needs_no_right_to_view_all(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("bob")
        assert (await site.client.get(f"{PATH}/1", headers=site.user("revoker"))).status_code == 200
        assert await post(site, "/1", site.user("revoker"), data={"revoke": "1"}) == 302
        assert (await site.store.get(1, owner=ANY_OWNER)).status == "revoked"


@both_sites
async def test_d35_a_body_that_is_no_text_or_too_long_is_refused(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        form = {**site.user("ann"), "content-type": "application/x-www-form-urlencoded"}
        assert await post(site, "/create", form, content=b"description=\xff&expire_type=") == 400
        assert await post(site, "/create", form, content=b"expire_type=&description=" + b"x" * 400_000) == 400
        assert await post(site, "/create", form, content=b"expire_type=&description=" + b"x" * 5_000_000) == 413
        assert site.rows()[0] == []


@both_sites
async def test_d36_one_damaged_row_breaks_no_list(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for change in ("created_timestamp = null", "expires_after_seconds = 'abc'"):
            token_id = (await site.store.issue("ann", description="x", expires_after=60)).record.id
            site.run_sql(f"update {TABLE} set {change} where id = {token_id}")
        await site.store.issue("ann", description="the good one")
        for path in ("", ".json"):
            answer = await site.client.get(PATH + path, headers=site.user("ann"))
            assert answer.status_code == 200
            assert "the good one" in answer.text
