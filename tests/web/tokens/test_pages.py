"""The pages of tokens: what they show, what they change, and what a form keeps."""

from __future__ import annotations

import asyncio
import html
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgi_token_auth import Restrictions, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET, Clock
from tests.support.page_sites import BAD_EXPIRIES, DAY, KINDS, PATH, error_of, get, post, running, signed_in
from tests.support.sites import bearer, serving

pytestmark = pytest.mark.anyio

TEXT = re.compile(r"dsatok_[A-Za-z0-9_.-]{20,}")


def hidden(answer: Any) -> dict[str, str]:
    """The version of the token in the form."""
    found = re.findall(r'<input type="hidden" name="version" value="([0-9a-f-]+)">', answer.text)
    assert len(found) == 1
    return {"version": found[0]}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_token_in_pages(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        assert "There are no tokens yet" in (await get(site)).text
        assert 'value="90"' in (await get(site, "/create")).text
        created = await post(site, "/create", {"description": "CI", **DAY})
        assert created.status_code == 200
        (first,) = TEXT.findall(created.text)
        current = f"{PATH}/current.json"
        assert (await site.client.get(current, headers=bearer(first))).json()["actor"]["id"] == "ann"
        listed = await get(site)
        assert "CI" in listed.text
        assert first not in listed.text
        rotated = await post(site, "/1", {"rotate": "1", "grace": "3600"})
        (second,) = TEXT.findall(rotated.text)
        assert "1 hour" in rotated.text
        assert [(await site.client.get(current, headers=bearer(text))).status_code for text in (first, second)] == [
            200
        ] * 2
        warning = "still works, and stops at once if you rotate again"
        assert warning in (await get(site, "/1")).text
        await post(site, "/1", {"rotate": "1", "grace": "0"})
        assert warning not in (await get(site, "/1")).text
        assert [(await site.client.get(current, headers=bearer(text))).status_code for text in (first, second)] == [
            401
        ] * 2
        edited = await post(site, "/1/edit", {"description": "Nightly", "expire_type": "keep"})
        assert (edited.status_code, edited.headers["location"]) == (302, f"{PATH}/1")
        ended = await post(site, "/1", {"revoke": "1"})
        assert (ended.status_code, ended.headers["location"]) == (302, f"{PATH}/1")
        page = (await get(site, "/1")).text
        for word in ("Nightly", "Revoked", "created", "rotated", "edited", "revoked", "by <bdi>ann</bdi>"):
            assert word in page
        assert 'name="revoke"' not in page
        assert "No token fits" in (await get(site, "?status=active")).text


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_form_creates_nothing_says_why_and_keeps_what_was_typed(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann", description="kept")
        before = site.rows()
        bad: list[dict[str, str]] = [fields for fields, _ in BAD_EXPIRIES.values()]
        bad += [
            {**DAY, "description": "x" * 1_001},
            {**DAY, "description": "a\0b"},
            {**DAY, "all:no-such": "1"},
            {**DAY, "limit": "only"},
            {**DAY, "limit": "all", f"all:{site.action}": "1"},
            {**DAY, "database:~": "1"},
            {**DAY, "restrictions": "x"},
        ]
        for fields in bad:
            typed = {"description": "My <token>", **fields}
            for path in ("/create", "/1/edit"):
                if path == "/1/edit" and typed.get("expire_type") == "keep":
                    continue
                answer = await post(site, path, typed)
                assert answer.status_code == 400, (path, fields)
                assert error_of(answer).startswith("Nothing was "), (path, fields)
                shown = typed["description"].replace("\0", "")
                assert html.escape(shown, quote=False) in answer.text.replace("\0", "").replace("&#34;", '"')
                if len(typed.get("expire_duration", "")) < 50:
                    assert f'value="{html.escape(typed.get("expire_duration", "90"))}"' in answer.text
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_damaged_rows_are_shown_beside_the_others(tmp_path: Path, kind: str) -> None:
    changes = [
        "permissions = '{'",
        "permissions = null",
        "permissions = '[1]'",
        'permissions = \'{"d": {"\\ud800": ["vt"]}}\'',
        "created_timestamp = null, expires_after_seconds = 5",
        "created_timestamp = 9223372036854775807",
        "created_timestamp = -9223372036854775808",
        "created_timestamp = -9223372036854775807",
        "expires_after_seconds = 'abc'",
        "actor_id = null",
        "description = cast(x'ff' as text)",
        "last_used_timestamp = 9223372036854775807, ended_timestamp = 'x'",
        "token_status = 'Z'",
        "parent_id = 'x', previous_until = 'x'",
    ]
    async with running(kind, tmp_path) as site:
        for change in changes:
            token_id = (await site.store.issue("viewer", description="fine")).record.id
            site.run_sql(f"update {site.store.table} set {change} where id = {token_id}")
        site.run_sql(f"update {site.store.table}_events set at_timestamp = 'x', details = x'ff' where id = 1")
        await site.store.issue("viewer", description="the good one")
        for path in ("", ".json", "?status=active", "?status=expired", "?search=fine"):
            answer = await get(site, path, "viewer")
            assert answer.status_code == 200, path
        assert "the good one" in (await get(site, "", "viewer")).text
        assert "Damaged" in (await get(site, "", "viewer")).text
        for token_id in range(1, len(changes) + 1):
            for path in (f"/{token_id}", f"/{token_id}.json", f"/{token_id}/edit"):
                answer = await get(site, path, "viewer")
                assert answer.status_code in (200, 400, 403), (path, changes[token_id - 1])
            for path, body in (
                ("/edit", {"expires_after": 60}),
                ("/edit", {"description": "x"}),
                ("", {"rotate": True}),
            ):
                address = f"{PATH}/{token_id}{path}.json"
                answer = await site.client.post(address, json=body, headers=site.user("viewer"))
                assert answer.status_code in (200, 400, 403), (path, body, changes[token_id - 1])
            assert (await post(site, f"/{token_id}", {"revoke": "1"}, "both")).status_code == 302


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_shows_the_latest_of_many_events_and_json_more_of_them(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        site.run_sql(
            f"insert into {site.store.table}_events (token_id, event, at_timestamp, details) "
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 99) "
            "select 1, 'edited', 5, 'number ' || i || '.' from n"
        )
        page = (await get(site, "/1")).text
        assert "created" in page
        assert "These are the latest" not in page
        await site.store.edit(1, owner="ann", description="the very last")
        page = (await get(site, "/1")).text
        assert page.count("<strong>edited</strong>") == 100
        assert page.index("number 99.") < page.index("number 1.")
        assert "<strong>created</strong>" not in page
        assert f'These are the latest 100. <a href="{PATH}/1.json">' in page
        shown = (await get(site, "/1.json")).json()
        assert (len(shown["events"]), shown["earlier_events"]) == (101, False)
        # Nobody who has a token changed for years may hold up others with it.
        site.run_sql(
            f"insert into {site.store.table}_events (token_id, event, at_timestamp) "
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) "
            "select 1, 'edited', 6 from n"
        )
        shown = (await get(site, "/1.json")).json()
        assert (len(shown["events"]), shown["earlier_events"]) == (1_000, True)
        assert shown["events"][-1]["at"] == "1970-01-01T00:00:06Z"


@pytest.mark.parametrize("kind", KINDS)
async def test_editing_a_description_takes_and_gives_no_right(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        held = Restrictions(
            all=(site.action, "auth-tokens-create"), database={"gone": ("odd",)}, resource={"demo": {"_t": ("odd",)}}
        )
        await site.store.issue("ann", restrictions=held, expires_after=1_000)
        before = await site.store.get(1, owner="ann")
        assert (await post(site, "/1/edit", {"description": "x", "expire_type": "keep"})).status_code == 302
        page = (await get(site, "/1/edit")).text
        boxes = re.findall(r'type="checkbox" name="([^"]+)" value="1" checked', page)
        assert len(boxes) == 4
        fields = {
            "description": "y",
            "expire_type": "keep",
            "limit": "only",
            **dict.fromkeys(map(html.unescape, boxes), "1"),
        }
        assert (await post(site, "/1/edit", fields)).status_code == 302
        after = await site.store.get(1, owner="ann")
        assert (after.restrictions, after.expires_at) == (before.restrictions, before.expires_at)
        assert after.description == "y"
        for child in ("x", "y"):
            assert child not in [event.details for event in await site.store.events(1, owner="ann")]
        lifted = {"description": "y", "expire_type": "keep", "limit": "all"}
        assert (await post(site, "/1/edit", lifted)).status_code == 302
        assert (await site.store.get(1, owner="ann")).restrictions is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_that_was_opened_before_a_change_undoes_it_only_on_purpose(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann", description="<old>")
        opened = hidden(await get(site, "/1/edit"))
        await site.store.edit(1, owner="ann", description="<new>", restrictions=Restrictions(all=(site.action,)))
        before = site.rows()
        typed = {"description": "<mine>", "expire_type": "keep", "limit": "all"}
        answer = await post(site, "/1/edit", {**typed, **opened})
        assert answer.status_code == 409
        assert site.rows() == before
        said = answer.text
        assert "changed since you opened the form" in said
        # What it is now, and what was typed, which the form still holds.
        assert "&lt;new&gt;" in said
        assert 'value="&lt;mine&gt;"' in said
        assert site.action in said
        # A mistake does not make the form any newer.
        wrong = await post(site, "/1/edit", {**typed, **opened, "limit": "only"})
        assert (wrong.status_code, hidden(wrong)) == (400, opened)
        assert site.rows() == before
        assert (await post(site, "/1/edit", {**typed, **hidden(answer)})).status_code == 302
        record = await site.store.get(1, owner="ann")
        assert (record.description, record.restrictions) == ("<mine>", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_script_may_say_which_version_it_changes(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")

        async def edit(**fields: object) -> httpx.Response:
            return await site.client.post(f"{PATH}/1/edit.json", headers=site.user("ann"), json=fields)

        version = (await get(site, "/1.json")).json()["details"]["version"]
        assert (await edit(version=version, description="x")).status_code == 200
        before = site.rows()
        answer = await edit(version=version, description="y")
        assert (answer.status_code, answer.json()["ok"], answer.json()["status"]) == (409, False, 409)
        assert site.rows() == before
        assert (await edit(description="y")).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_the_limit_of_life_is_said_and_enforced(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, max_expires_after=7_200) as site:
        page = (await get(site, "/create")).text
        assert "at most 2 hours" in page
        assert "never expires" not in page
        before = site.rows()
        for fields in ({"expire_type": ""}, DAY, {"expire_type": "hours", "expire_duration": "3"}):
            assert "at most 2 hours" in error_of(await post(site, "/create", fields))
        assert site.rows() == before
        assert (await post(site, "/create", {"expire_type": "hours", "expire_duration": "2"})).status_code == 200
        answer = await site.client.post(f"{PATH}/create.json", headers=site.user("ann"), json={"expires_after": None})
        assert (answer.status_code, "at most 2 hours" in answer.json()["error"]) == (400, True)
        answer = await site.client.post(f"{PATH}/create.json", headers=site.user("ann"), json={})
        assert answer.status_code == 201
        choices = (await site.client.get(f"{PATH}/create.json", headers=site.user("ann"))).json()
        assert choices["max_expires_after"] == 7_200


@pytest.mark.parametrize("kind", KINDS)
async def test_two_people_revoking_at_once_both_succeed_and_one_end_is_kept(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        answers = await asyncio.gather(
            *(post(site, "/1", {"revoke": "1"}, who) for who in ("ann", "both", "ann", "both"))
        )
        assert [answer.status_code for answer in answers] == [302] * 4
        assert [event.name for event in await site.store.events(1, owner="ann")] == ["created", "revoked"]


@pytest.mark.parametrize("kind", KINDS)
async def test_pages_of_a_list_follow_each_other_without_loss(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for number in range(65):
            await site.store.issue("ann", description=f"n{number}n")
        path, seen = "?search=n&_auth=dsatok_leaked&size=", []
        for _ in range(5):
            answer = await get(site, path)
            seen += re.findall(r">n(\d+)n<", answer.text)
            assert "leaked" not in answer.text
            found = re.search(r'href="([^"]*)">Next page', answer.text)
            if not found:
                break
            path = html.unescape(found[1]).removeprefix(PATH)
        assert seen == [str(number) for number in range(64, -1, -1)]
        for bad in (
            "next=x",
            "next=-1",
            "next=" + "9" * 30,
            "size=1001",
            "status=gone",
            "search=" + "x" * 201,
            "used_after=x",
        ):
            assert (await get(site, "?" + bad)).status_code == 400, bad
        assert (await get(site, "?next=0")).status_code == 200


async def test_times_are_those_of_the_clock(tmp_path: Path) -> None:
    clock = Clock(int(time.time()) + 10_000)
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET, clock=clock)
    pages: Any = TokenPages(store, signed_in=signed_in)
    async with store, serving(pages, lifespan=False) as client:
        await store.issue("ann", expires_after=7_200)
        clock.now += 3_600
        page = (await client.get("/", headers={"x-user": '{"id": "ann"}'})).text
        assert "1 hour ago" in page
        assert "in 1 hour" in page
