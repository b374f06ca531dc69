"""The pages: what they answer, what they keep, what they escape, and the headers that they answer with."""

from __future__ import annotations

import asyncio
import html
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from asgi_token_auth import (
    ConfigurationError,
    ManagedTokens,
    Restrictions,
    TokenAuthMiddleware,
    TokenStore,
    from_config,
)
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError
from asgi_token_auth.web import TokenPages
from tests.support.asgi import SECRET, App, Clock, ask, http
from tests.support.failing import Failing
from tests.support.page_sites import BAD_EXPIRIES, KINDS, PATH, PERMISSIONS, SCOPES, Site, running, signed_in
from tests.support.sites import IS_1_0, bearer, demo_files, full_block, make, serving

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"
DAY = {"expire_type": "days", "expire_duration": "1"}
TEXT = re.compile(r"dsatok_[A-Za-z0-9_.-]{20,}")


async def post(site: Site, path: str, fields: Any, actor_id: str = "ann", **headers: str) -> Any:
    return await site.client.post(PATH + path, headers={**site.user(actor_id), **headers}, data=fields)


async def get(site: Site, path: str = "", actor_id: str = "ann") -> Any:
    return await site.client.get(PATH + path, headers=site.user(actor_id))


def hidden(answer: Any) -> dict[str, str]:
    """The version of the token in the form."""
    found = re.findall(r'<input type="hidden" name="version" value="([0-9a-f]+)">', answer.text)
    assert len(found) == 1
    return {"version": found[0]}


def error_of(answer: Any) -> str:
    """The sentence in the page."""
    found = re.search(r'class="[^"]*message-error[^"]*"[^>]*>(.*?)</', answer.text, re.DOTALL)
    found = found or re.search(r"<h1>[^<]*</h1>\s*<p>(.*?)</p>", answer.text, re.DOTALL)
    assert found, answer.text[-1_000:]
    sentence = html.unescape(found[1]).strip()
    assert sentence.endswith(".")
    return sentence


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


BODIES: dict[str, tuple[bytes, str, int]] = {
    "no content type": (b"revoke=1", "", 415),
    "text": (b"revoke=1", "text/plain", 415),
    "multipart": (
        b'--x\r\ncontent-disposition: form-data; name="revoke"\r\n\r\n1\r\n--x--',
        "multipart/form-data; boundary=x",
        415,
    ),
    "JSON on the page": (b'{"revoke": true, "expire_type": ""}', "application/json", 415),
    "JSON called a form": (b'{"revoke": true}', FORM, 400),
    "not UTF-8": (b"description=%ff&expire_type=", FORM, 400),
    "raw bytes": (b"description=\xff&expire_type=", FORM, 400),
    "surrogates": (b"description=%ED%A0%80&expire_type=", FORM, 400),
    "oversized": (b"description=" + b"x" * 1_048_576, FORM, 413),
    "too many fields": (b"&".join(b"a%d=1" % n for n in range(10_002)), FORM, 400),
    "empty": (b"", FORM, 400),
    "a field twice": (b"revoke=1&revoke=1", FORM, 400),
    "an expiry and none": (b"expire_type=days&expire_duration=1&expire_type=", FORM, 400),
    "an unknown action": (b"delete=1", FORM, 400),
    "an empty action": (b"revoke=&rotate=", FORM, 400),
    "one empty action": (b"revoke=", FORM, 400),
    "two actions": (b"revoke=1&rotate=1", FORM, 400),
    "an action and more": (b"revoke=1&grace=5", FORM, 400),
    "a grace that is none": (b"rotate=1&grace=%C2%B2", FORM, 400),
    "a huge grace": (b"rotate=1&grace=999999999", FORM, 400),
    "a negative grace": (b"rotate=1&grace=-1", FORM, 400),
    "an empty owner": (b"revoke_all=1&owner=", FORM, 400),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_cannot_be_read_changes_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        before = site.rows()
        for name, (body, content_type, status) in BODIES.items():
            for path in ("", "/create", "/1", "/1/edit"):
                sent = {**site.user("ann"), **({"content-type": content_type} if content_type else {})}
                answer = await site.client.post(PATH + path, headers=sent, content=body)
                assert answer.status_code == status, (name, path)
                error_of(answer)
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_that_an_address_does_not_take_is_405_with_those_it_takes(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        before = site.rows()
        for path in ("", ".json", "/create", "/1", "/1/edit", "/current.json", "/static/pages.css"):
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", *(["POST"] if "current" in path else [])):
                answer = await site.client.request(method, PATH + path, headers=site.user("ann"))
                assert answer.status_code == 405, (method, path)
                assert "GET" in answer.headers["allow"]
                assert ("POST" in answer.headers["allow"]) is not ("current" in path or "static" in path)
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_head_is_get_without_a_body(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        for path in ("", "/create", "/1", "/1.json", "/99", "/current.json", "/static/pages.css"):
            seen = await get(site, path)
            head = await site.client.head(PATH + path, headers=site.user("ann"))
            assert (head.status_code, head.content) == (seen.status_code, b"")
            assert head.headers["content-type"] == seen.headers["content-type"]
            # A time on the page may have become longer between two of them.
            lengths = [len(page.content) for page in (seen, await get(site, path))]
            assert int(head.headers["content-length"]) in lengths


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/0001", 200),
        ("/1/", 404),
        ("/create/", 404),
        ("/x", 404),
        ("/1.5", 404),
        ("/-1", 404),
        ("/0", 404),
    ],
)
async def test_an_address_is_found_or_404_and_never_500(tmp_path: Path, kind: str, path: str, status: int) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        assert (await get(site, path)).status_code == status


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_has_its_headers(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        answers = [
            *[await get(site, path) for path in ("", ".json", "/create", "/1", "/1/edit", "/1.json", "/9", "/x")],
            await get(site, "?status=x"),
            await site.client.get(PATH),
            await site.client.get(f"{PATH}/current.json"),
            await site.client.put(PATH),
            await post(site, "/create", DAY),
            await post(site, "/create", {}),
            await post(site, "/1", {"rotate": "1"}),
            await post(site, "/1", {"revoke": "1"}),
        ]
        if kind == "any app":
            # Datasette 1.0 refuses other sites itself.
            answers.append(await post(site, "/1", {"revoke": "1"}, origin="https://attacker.net"))
        for answer in answers:
            headers = answer.headers
            assert "no-store" in headers["cache-control"], answer.request.url
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if headers.get("content-type", "").startswith("text/html"):
                policy = headers["content-security-policy"]
                assert "frame-ancestors 'none'" in policy
                assert "form-action 'self'" in policy
                if kind == "any app":
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.text)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "</title></textarea><script>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "\u202egpj.exe\u202c",
    "a\r\nSet-Cookie: x=1",
    "<" * 1_000,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_hostile_descriptions_and_actors_are_escaped_everywhere(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        restrictions = Restrictions(database={"<script>db": ("vt",)}, resource={"d": {'"><script>': ("vt",)}})
        for text in HOSTILE:
            actor_id = text[:400]
            token_id = (
                await site.store.issue(actor_id, by=actor_id, description=text, restrictions=restrictions)
            ).record.id
            pages = [await get(site, path, "viewer") for path in (f"/{token_id}", "", f"?search={quote(text[:50])}")]
            mine = (await site.store.issue("ann", description=text, restrictions=restrictions)).record.id
            pages += [await get(site, f"/{mine}/edit"), await get(site, f"/{mine}")]
            pages += [
                await post(site, "/create", {"description": text}),
                await get(site, f"?owner={quote(text[:50])}", "viewer"),
            ]
            headers = site.as_({"id": actor_id, "name": text})
            if "\n" not in text and kind == "any app":
                pages.append(await site.client.get(PATH, headers=headers))
            for page in pages:
                assert page.status_code in (200, 400), text
                assert "<script>" not in re.sub(r"<script>\s*(?:document|/\*|var|window|\()", "", page.text), text
                for piece in ("<img src=x", "alert(1)</script>", "' onfocus", "<script>db", "49", "<b>", "<<"):
                    if piece != "49":
                        assert piece not in page.text, (text, piece)
                assert "set-cookie: x" not in str(page.headers).lower()
                assert 'href="javascript' not in page.text


class Directions(HTMLParser):
    """Collects the text with marks that turn the direction of writing, and whether an element keeps it apart."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link", "input", "br", "img", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "\u202e" in data:
            # A title is one line of its own, shown by the browser.
            self.found.append((data, "bdi" in self.open or self.open[-1] == "title"))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_somebody_typed_cannot_turn_the_direction_of_the_page_around_it(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        turned = "\u202e\u2067 invoice \u05d0\u05d1"
        theirs = (await site.store.issue(turned, by=turned, description=turned)).record.id
        mine = (await site.store.issue("ann", by=turned, description=turned)).record.id
        await site.store.issue("ann", by=turned)
        headers = site.as_({"id": turned, "name": turned}) if kind == "any app" else site.user("ann")
        answers = {
            "list": (await get(site, "", "both"), 3),
            "list of one owner": (await get(site, f"?owner={quote(turned)}", "both"), 4),
            "details of another": (await get(site, f"/{theirs}", "both"), 3),
            "details": (await get(site, f"/{mine}"), 2),
            "edit": (await get(site, f"/{mine}/edit"), 1),
            "shown": (await post(site, "/create", {"description": turned, "expire_type": ""}), 1),
            "list of somebody so named": (await site.client.get(PATH, headers=headers), 2),
        }
        for name, (answer, least) in answers.items():
            assert answer.status_code == 200, (name, answer.text)
            page = Directions()
            page.feed(answer.text)
            assert len(page.found) >= least, (name, page.found)
            assert all(apart for _, apart in page.found), (name, page.found)


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
async def test_a_page_shows_the_latest_of_many_events_and_json_all(tmp_path: Path, kind: str) -> None:
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
        assert len((await get(site, "/1.json")).json()["events"]) == 101


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


# Mounting


async def test_the_pages_follow_the_root_path(tmp_path: Path) -> None:
    block = {"manage_tokens": True, "permissions": PERMISSIONS}
    app: Any = from_config(App(), block, databases={"tokens": tmp_path / "t.db"}, secret=SECRET, signed_in=signed_in)
    headers = {"x-user": '{"id": "ann"}'}
    async with serving(app):
        for root, base in (("", ""), ("/app", "/app"), ("/app/", "/app"), ("/\u65e5", "/%E6%97%A5")):
            transport = httpx.ASGITransport(app, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                page = await client.get(root.rstrip("/") + PATH, headers=headers)
                assert page.status_code == 200, root
                assert f'href="{base}{PATH}/create"' in page.text
                assert (await client.get(f"{base}{PATH}/static/pages.css")).status_code == 200
                assert (await client.get("/application" + PATH)).text == "served"
                ended = await client.post(f"{base}{PATH}", headers=headers, data={"revoke_all": "1"})
                assert ended.headers["location"] == base + PATH
        assert (await ask(app, http(path=PATH + "x"))).body == b"served"


async def test_the_pages_can_be_mounted_anywhere(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS, scopes=["read"])
    app: Any = TokenAuthMiddleware(Starlette(routes=[Mount("/account/tokens", pages)]), sources=[ManagedTokens(store)])
    async with serving(app, lifespan=False) as client:
        headers = {"x-user": '{"id": "ann"}'}
        assert (
            'href="/account/tokens/create"'
            in (await client.get("/account/tokens", headers=headers, follow_redirects=True)).text
        )
        answer = await client.post("/account/tokens/create", headers=headers, data=DAY)
        assert 'href="/account/tokens/1"' in answer.text
        ended = await client.post("/account/tokens/1", headers=headers, data={"revoke": "1"})
        assert ended.headers["location"] == "/account/tokens/1"
    await store.close()


async def test_the_pages_follow_the_base_url_of_datasette(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    block = full_block(**({} if IS_1_0 else {"permissions": PERMISSIONS}))
    config = {"permissions": PERMISSIONS} if IS_1_0 else {}
    datasette = make(files, block, config=config, settings={"base_url": "/data/"})
    headers = {"cookie": "ds_actor=" + datasette.sign({"a": {"id": "ann"}}, "actor")}
    async with serving(datasette.app()) as client:
        page = await client.get(f"/data{PATH}", headers=headers)
        assert page.status_code == 200
        assert f'href="/data{PATH}/create"' in page.text
        await client.post(f"/data{PATH}/create", headers=headers, data=DAY)
        ended = await client.post(f"/data{PATH}/1", headers=headers, data={"revoke": "1"})
        assert ended.headers["location"] == f"/data{PATH}/1"


async def test_a_websocket_to_the_pages_is_closed(tmp_path: Path) -> None:
    pages = TokenPages(TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await pages({"type": "websocket", "path": PATH}, None, send)
    assert sent[0]["type"] == "websocket.close"


# Faults


async def test_a_fault_of_storage_is_503_and_says_that_nothing_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with TokenStore(SQLite(path), secret=SECRET) as outside:
        await outside.issue("ann")
        database = Failing(SQLite(path), -1, StorageError("cannot"))
        store = TokenStore(database, secret=SECRET)
        pages: Any = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS, scopes=SCOPES)
        async with serving(pages, lifespan=False) as client:
            headers = {"x-user": '{"id": "ann"}'}
            assert (await client.get("/", headers=headers)).status_code == 200
            requests: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", "/", {}),
                ("GET", "/1", {}),
                ("GET", "/1.json", {}),
                ("POST", "/create", {"data": DAY}),
                ("POST", "/create.json", {"json": {}}),
                ("POST", "/1/edit", {"data": {"description": "x", "expire_type": "keep"}}),
                ("POST", "/1.json", {"json": {"rotate": True}}),
                ("POST", "/1", {"data": {"revoke": "1"}}),
                ("POST", "/", {"data": {"revoke_all": "1"}}),
            ]
            for method, address, body in requests:
                before = await outside.list(owner="ann")
                for nth in range(1, 50):
                    database.fails_at = database.calls + nth
                    answer = await client.request(method, address, headers=headers, **body)
                    if answer.status_code != 503:
                        break
                    assert "nothing was changed" in answer.text
                    assert answer.headers["retry-after"] == "5"
                    # The sentence is true.
                    assert await outside.list(owner="ann") == before, (method, address, nth)
                assert nth > 1
                assert answer.status_code < 400, (method, address)
        await store.close()


@pytest.mark.parametrize("error", [RuntimeError("no session store"), KeyError("x")], ids=repr)
async def test_a_fault_of_signed_in_is_503_and_lets_nobody_in(tmp_path: Path, error: Exception) -> None:
    async def failing(scope: Any) -> Any:
        raise error

    pages: Any = TokenPages(TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET), signed_in=failing)
    async with serving(pages, lifespan=False) as client:
        for path in ("/", "/1.json"):
            assert (await client.get(path)).status_code == 503


@pytest.mark.parametrize(
    "answer", [True, "ann", 5, ["ann"], {}, {"id": None}, {"id": "\ud800"}, {"id": "a\0b"}], ids=repr
)
async def test_who_is_no_actor_is_nobody(tmp_path: Path, answer: Any) -> None:
    async def odd(scope: Any) -> Any:
        return answer

    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages: Any = TokenPages(store, signed_in=odd, permissions={"auth-tokens-create": True})
    async with store, serving(pages, lifespan=False) as client:
        for path in ("/", "/1.json"):
            assert (await client.get(path)).status_code in (400, 403)
        assert (await client.post("/create.json", json={})).status_code in (400, 403)
        assert (await client.post("/1", data={"revoke": "1"})).status_code in (400, 403)


async def test_a_client_that_hangs_up_in_the_body_changes_nothing(tmp_path: Path) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    pages = TokenPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    scope = http([(b"x-user", b'{"id": "ann"}'), (b"content-type", FORM.encode())], method="POST", path="/create")
    messages = iter([{"type": "http.request", "body": b"expire_type=", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async with store:
        await pages(scope, receive, send)
        assert sent[0]["status"] == 400
        assert (await store.list(owner="ann")).items == []


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


# Configuration


async def test_without_the_extra_everything_but_the_pages_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("asgi_token_auth.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    block: dict[str, Any] = {"manage_tokens": True}
    for more in ({"permissions": PERMISSIONS}, {"scopes": SCOPES}, {"tokens_may_manage_tokens": True}):
        with pytest.raises(ConfigurationError, match=r"asgi-token-auth\[web\]"):
            from_config(App(), {**block, **more}, databases={"tokens": tmp_path / "t.db"}, secret=SECRET)
    app: Any = from_config(App(), block, databases={"tokens": tmp_path / "t.db"}, secret=SECRET)
    assert (await ask(app, http(path=PATH))).body == b"served"
