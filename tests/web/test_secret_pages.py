"""The pages and the JSON API of secrets: what they answer, what they keep, what they escape, and never a value."""

from __future__ import annotations

import asyncio
import html
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_token_auth import ConfigurationError, ManagedTokens, TokenAuthMiddleware, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError
from asgi_token_auth.secrets.record import Secret
from asgi_token_auth.secrets.store import SecretStore
from asgi_token_auth.web import SecretPages
from asgi_token_auth.web.secrets import link_to
from tests.support.asgi import App, ask, http
from tests.support.failing import Failing
from tests.support.page_sites import KINDS, signed_in
from tests.support.secret_sites import ASKED, KEY, PATH, PERMISSIONS, TABLE, Site, running
from tests.support.sites import IS_1_0, SECRET, cookie, make, serving

pytestmark = pytest.mark.anyio

FORM = "application/x-www-form-urlencoded"
RECORD = {
    "name",
    "description",
    "obtain_url",
    "obtain_label",
    "registered",
    "source",
    "note",
    "version",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "last_used_at",
    "last_used_by",
}
VERSION = {
    "version",
    "note",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "deleted_at",
    "deleted_by",
    "last_used_at",
    "last_used_by",
}


async def get(site: Site, path: str = "", actor_id: str = "ann") -> Any:
    return await site.client.get(PATH + path, headers=site.user(actor_id))


async def post(site: Site, path: str, fields: Any, actor_id: str = "ann", **headers: str) -> Any:
    return await site.client.post(PATH + path, headers={**site.user(actor_id), **headers}, data=fields)


async def send(site: Site, path: str, body: Any, actor_id: str = "ann") -> Any:
    return await site.client.post(PATH + path, headers=site.user(actor_id), json=body)


def error_of(answer: Any) -> str:
    """The sentence in the page."""
    found = re.search(r'class="[^"]*message-error[^"]*"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    found = found or re.search(r"<h1>[^<]*</h1>\s*<p>(.*?)</p>", answer.text, re.DOTALL)
    assert found, answer.text[-1_000:]
    sentence = html.unescape(re.sub(r"<[^>]*>", "", found[1])).strip()
    assert sentence.endswith("."), sentence
    return sentence


def assert_error(answer: Any, status: int) -> None:
    body = answer.json()
    assert answer.status_code == status, body
    assert (body["ok"], body["status"]) == (False, status)
    assert isinstance(body["errors"], list)
    assert all(isinstance(sentence, str) and sentence.endswith(".") for sentence in body["errors"])
    assert answer.headers["content-type"] == "application/json"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRETS_FROM_ENVIRONMENT", "of the environment")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_secret_in_pages(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        listed = (await get(site)).text
        for words in ("OPENAI_KEY", "For the robot", "Not set", "FROM_ENVIRONMENT", "From the environment"):
            assert words in listed
        assert '<a href="https://example.com/keys" rel="noreferrer"><bdi>Get a key</bdi></a>' in listed
        assert f'href="{PATH}/OPENAI_KEY"' in listed
        page = (await get(site, "/OPENAI_KEY")).text
        field = re.search(r"<input[^>]*name=\"secret\"[^>]*>", page)
        assert field is not None
        assert 'type="password"' in field[0]
        assert 'autocomplete="off"' in field[0]
        assert "value=" not in field[0]
        done = await post(site, "/OPENAI_KEY", {"secret": " sk-first \r\n", "note": " for tests "})
        assert (done.status_code, done.headers["location"]) == (302, PATH)
        assert await site.store.get_secret("OPENAI_KEY", "robot") == "sk-first"
        await site.store.flush()
        changed = await post(site, "/OPENAI_KEY", {"secret": "sk-second", "note": "for tests"}, "bob")
        assert changed.status_code == 302
        assert await site.store.get_secret("OPENAI_KEY", "robot") == "sk-second"
        await site.store.flush()
        page = (await get(site, "/OPENAI_KEY")).text
        for words in ("Set", "Version 2 by <bdi>bob<", "Version 1 by <bdi>ann<", 'value="for tests"', "by <bdi>robot<"):
            assert words in page
        await post(site, "/OPENAI_KEY", {"secret": "", "note": "only the note"})
        record = await site.store.get("OPENAI_KEY")
        assert (record.version, record.note, record.updated_by) == (2, "only the note", "ann")
        listed = (await get(site)).text
        assert "only the note" in listed
        await post(site, "/OPENAI_KEY", {"secret": " ", "note": ""})
        assert (await site.store.get("OPENAI_KEY")).note is None
        for text in (page, listed):
            assert "sk-" not in text
        ended = await post(site, "/OPENAI_KEY", {"delete": "1"})
        assert (ended.status_code, ended.headers["location"]) == (302, PATH)
        assert await site.store.get_secret("OPENAI_KEY") is None
        page = (await get(site, "/OPENAI_KEY")).text
        assert "Not set" in page
        assert "deleted by ann" in html.unescape(re.sub(r"<[^>]*>", "", page))
        assert 'name="delete"' not in page


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_secret_in_json(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        listed = (await get(site, ".json")).json()
        assert listed.keys() == {"ok", "secrets"}
        assert all(one.keys() == RECORD for one in listed["secrets"])
        assert {one["name"]: one["source"] for one in listed["secrets"]}.items() >= {
            ("OPENAI_KEY", None),
            ("FROM_ENVIRONMENT", "environment"),
        }
        made = (await send(site, "/OPENAI_KEY.json", {"value": " spaces stay ", "note": " n "})).json()
        assert made.keys() == {"ok", "details"}
        assert made["details"].keys() == RECORD
        assert {key: made["details"][key] for key in ("source", "version", "note", "updated_by")} == {
            "source": "stored",
            "version": 1,
            "note": "n",
            "updated_by": "ann",
        }
        assert made["details"]["updated_at"].endswith("Z")
        assert await site.store.get_secret("OPENAI_KEY") == " spaces stay "
        again = (await send(site, "/OPENAI_KEY.json", {"value": "two\nlines"}, "bob")).json()["details"]
        assert (again["version"], again["note"], again["updated_by"]) == (2, "n", "bob")
        assert await site.store.get_secret("OPENAI_KEY") == "two\nlines"
        noted = (await send(site, "/OPENAI_KEY.json", {"note": None})).json()["details"]
        assert (noted["version"], noted["note"]) == (2, None)
        shown = (await get(site, "/OPENAI_KEY.json")).json()
        assert shown.keys() == {"ok", "details", "versions"}
        assert [one.keys() for one in shown["versions"]] == [VERSION] * 2
        assert [one["version"] for one in shown["versions"]] == [2, 1]
        ended = (await send(site, "/OPENAI_KEY.json", {"delete": True})).json()["details"]
        assert (ended["source"], ended["version"]) == (None, None)
        assert_error(await send(site, "/OPENAI_KEY.json", {"delete": True}), 404)
        shown = (await get(site, "/OPENAI_KEY.json")).json()
        assert [one["deleted_by"] for one in shown["versions"]] == ["ann", "ann"]


NAMES = [
    "plain",
    "with spaces",
    "a/b",
    "/a/b/",
    "a//b",
    "100% & more?",
    "#x;y=z+w",
    "日本語 ключ",
    "\U0001f511",
    "e\u0301",
    "x.json",
    ".json",
    "a/b.json.json",
    "static/pages.css",
    "..a",
    "a/../b",
    "%2F",
    "%2Ejson",
    "a\\b",
    "'\"<b>",
    "~2E",
    "x" * 200,
    "日" * 200,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_name_has_its_own_page_and_its_own_json(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for name in NAMES:
            path = f"/{link_to(name)}"
            page = await get(site, path)
            assert page.status_code == 200, name
            title = re.search(r"<h1><bdi>(.*?)</bdi></h1>", page.text, re.DOTALL)
            assert title is not None
            assert html.unescape(title[1]) == name
            assert (await post(site, path, {"secret": f"form of {name}"})).status_code == 302, name
            assert await site.store.get_secret(name) == f"form of {name}"
            made = await send(site, f"/{quote(name, safe='')}.json", {"value": f"JSON of {name}"})
            assert made.json()["details"]["name"] == name
            assert await site.store.get_secret(name) == f"JSON of {name}"
            assert (await get(site, f"/{quote(name, safe='')}.json")).json()["details"]["version"] == 2
            found = await site.client.get(PATH, params={"name": name}, headers=site.user("ann"))
            assert (found.status_code, found.headers["location"]) == (302, PATH + path)
        listed = (await get(site)).text
        links = {html.unescape(link) for link in re.findall(rf'href="({PATH}/[^"]*)"', listed)}
        assert links >= {f"{PATH}/{link_to(name)}" for name in NAMES}
        stored = {one["name"] for one in (await get(site, ".json")).json()["secrets"]}
        assert stored >= set(NAMES)
        for name in NAMES:
            assert (await send(site, f"/{quote(name, safe='')}.json", {"delete": True})).status_code == 200, name


@given(st.text(min_size=1, max_size=200))
def test_a_link_means_its_name_and_never_json(name: str) -> None:
    link = link_to(name)
    assert unquote(link) == name
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", link)
    assert not link.endswith(".json")


BAD_NAMES = ["x" * 201, "x" * 10_000, "a%00b", "a%0Ab", "%7F", "%1B%5B31m"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_cannot_be_is_refused(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        before = site.rows()
        for name in BAD_NAMES:
            page = await get(site, f"/{name}")
            assert page.status_code == 400, name[:20]
            assert "name of a secret" in error_of(page)
            assert len(page.content) < 20_000
            refused = await post(site, f"/{name}", {"secret": "x"})
            assert refused.status_code == 400
            assert_error(await send(site, f"/{name}.json", {"value": "x"}), 400)
            assert_error(await get(site, f"/{name}.json"), 404)
            assert (await get(site, f"?name={name}")).status_code == 400
        # What is no UTF-8 is read as if it were, and nothing of that name is there.
        assert (await get(site, "/%FF%FE.json")).status_code == 404
        assert (await get(site, "?name=")).status_code == 200
        assert (await get(site, ".json?name=x")).json()["ok"] is True
        assert site.rows() == before


BODIES: dict[str, tuple[str, bytes, str, int]] = {
    "no content type": ("/KEPT", b"secret=x", "", 415),
    "text": ("/KEPT", b"secret=x", "text/plain", 415),
    "multipart": ("/KEPT", b"--x--", "multipart/form-data; boundary=x", 415),
    "JSON on the page": ("/KEPT", b'{"value": "x"}', "application/json", 415),
    "JSON called a form": ("/KEPT", b'{"value": "x"}', FORM, 400),
    "not UTF-8": ("/KEPT", b"secret=%ff", FORM, 400),
    "raw bytes": ("/KEPT", b"secret=\xff", FORM, 400),
    "surrogates": ("/KEPT", b"secret=%ED%A0%80", FORM, 400),
    "oversized": ("/KEPT", b"secret=" + b"x" * 1_048_576, FORM, 413),
    "a value beyond its limit": ("/KEPT", b"secret=" + b"x" * 65_537, FORM, 400),
    "an unknown field": ("/KEPT", b"secret=x&value=y", FORM, 400),
    "delete and more": ("/KEPT", b"delete=1&secret=x", FORM, 400),
    "an empty delete": ("/KEPT", b"delete=", FORM, 400),
    "a note too long": ("/KEPT", b"secret=x&note=" + b"n" * 101, FORM, 400),
    "a note with a line": ("/KEPT", b"secret=x&note=a%00b", FORM, 400),
    "no value for a new one": ("/NEW", b"secret=&note=n", FORM, 400),
    "blanks for a new one": ("/NEW", b"secret=+%0D%0A&note=n", FORM, 400),
    "nothing for a new one": ("/NEW", b"", FORM, 400),
    "nothing for a stored one": ("/KEPT", b"", FORM, 400),
    "blanks and no note for a stored one": ("/KEPT", b"secret=+", FORM, 400),
    "not JSON": ("/KEPT.json", b"{", "application/json", 400),
    "empty JSON": ("/KEPT.json", b"{}", "application/json", 400),
    "a list": ("/KEPT.json", b"[]", "application/json", 400),
    "nested": ("/KEPT.json", b"[" * 200_000, "application/json", 400),
    "JSON that is not UTF-8": ("/KEPT.json", b'{"value": "\xff"}', "application/json", 400),
    "a lone surrogate": ("/KEPT.json", b'{"value": "\\ud800"}', "application/json", 400),
    "a lone surrogate in the note": ("/KEPT.json", b'{"note": "\\ud800"}', "application/json", 400),
    "an empty value": ("/KEPT.json", b'{"value": ""}', "application/json", 400),
    "a blank value": ("/KEPT.json", b'{"value": " "}', "application/json", 400),
    "null": ("/KEPT.json", b'{"value": null}', "application/json", 400),
    "a number": ("/KEPT.json", b'{"value": 5}', "application/json", 400),
    "a value and a bad note": ("/KEPT.json", b'{"value": "x", "note": 5}', "application/json", 400),
    "a long note": ("/KEPT.json", b'{"note": "' + b"n" * 101 + b'"}', "application/json", 400),
    "the name of a form's field": ("/KEPT.json", b'{"secret": "x"}', "application/json", 400),
    "a version": ("/KEPT.json", b'{"value": "x", "version": 7}', "application/json", 400),
    "delete as text": ("/KEPT.json", b'{"delete": "true"}', "application/json", 400),
    "delete as a number": ("/KEPT.json", b'{"delete": 1}', "application/json", 400),
    "delete that is false": ("/KEPT.json", b'{"delete": false}', "application/json", 400),
    "delete and a value": ("/KEPT.json", b'{"delete": true, "value": "x"}', "application/json", 400),
    "oversized JSON": ("/KEPT.json", b'{"value": "' + b"x" * 1_048_576 + b'"}', "application/json", 413),
    "a form to the API": ("/KEPT.json", b"secret=x", FORM, 415),
    "a note for a new one": ("/NEW.json", b'{"note": "n"}', "application/json", 400),
    "the encryption key itself": ("/KEPT", b"secret=" + quote(KEY).encode(), FORM, 400),
    "the encryption key as a note": ("/KEPT.json", b'{"note": "' + KEY.encode() + b'"}', "application/json", 400),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_body_that_cannot_be_read_changes_nothing_and_says_why(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.set("KEPT", "the value", note="the note", by="ann")
        before = site.rows()
        for name, (path, body, content_type, status) in BODIES.items():
            headers = {**site.user("ann"), **({"content-type": content_type} if content_type else {})}
            answer = await site.client.post(PATH + path, headers=headers, content=body)
            assert answer.status_code == status, (name, answer.text[-500:])
            if path.endswith(".json"):
                assert_error(answer, status)
                assert len(answer.content) < 2_000, name
            else:
                error_of(answer)
                assert len(answer.content) < 20_000, name
            assert KEY not in answer.text
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_form_keeps_the_note_and_never_the_value(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        answer = await post(site, "/OPENAI_KEY", {"secret": "sk-typed", "note": "<n>" + "n" * 100})
        assert answer.status_code == 400
        assert "at most 100 characters" in error_of(answer)
        assert "typed again" in error_of(answer)
        assert "&lt;n&gt;nnn" in answer.text
        assert "sk-typed" not in answer.text
        assert 'id="error-note"' in answer.text
        answer = await post(site, "/OPENAI_KEY", {"secret": "sk-typed", "note": "a\0b"})
        assert 'id="error-note"' in answer.text
        assert 'id="error-secret"' not in answer.text


@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_only_datasette_secrets_took_has_a_page_to_delete_it(tmp_path: Path, kind: str) -> None:
    name = "x" * 201
    async with running(kind, tmp_path) as site:
        await site.store.set("x", "value")
        site.run_sql(f"update {TABLE} set name = ?", name)
        assert f'href="{PATH}/{name}"' in (await get(site)).text
        page = await get(site, f"/{name}")
        assert page.status_code == 200
        assert "Delete this secret" in page.text
        assert "1 to 200 characters" in error_of(await post(site, f"/{name}", {"secret": "y"}))
        assert (await post(site, f"/{name}", {"delete": "1"})).status_code == 302
        assert name not in (await get(site)).text
        assert (await get(site, f"/{name}")).status_code == 400


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_from_the_environment_is_not_set_here(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        page = (await get(site, "/FROM_ENVIRONMENT")).text
        assert "DATASETTE_SECRETS_FROM_ENVIRONMENT" in page
        assert "cannot be set here" in page
        assert 'name="secret"' not in page
        before = site.rows()
        assert "cannot be set here" in error_of(await post(site, "/FROM_ENVIRONMENT", {"secret": "x"}))
        assert_error(await send(site, "/FROM_ENVIRONMENT.json", {"value": "x"}), 400)
        assert_error(await send(site, "/FROM_ENVIRONMENT.json", {"delete": True}), 404)
        assert site.rows() == before
        assert "of the environment" not in page
        # What was stored before the variable came can still be erased.
        await site.store.set("FROM_ENVIRONMENT", "stored")
        page = (await get(site, "/FROM_ENVIRONMENT")).text
        assert "what is stored here is not used" in page
        assert (await post(site, "/FROM_ENVIRONMENT", {"delete": "1"})).status_code == 302
        assert (await get(site, "/FROM_ENVIRONMENT.json")).json()["details"]["version"] is None


@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_has_its_headers(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        answers = [
            *[await get(site, path) for path in ("", ".json", "/OPENAI_KEY", "/OPENAI_KEY.json", "/NEW.json")],
            await get(site, "/" + "x" * 300),
            await get(site, "", "eve"),
            await site.client.put(PATH),
            await post(site, "/OPENAI_KEY", {"secret": "x"}),
            await post(site, "/OPENAI_KEY", {}),
        ]
        if kind == "any app":
            answers.append(await post(site, "/OPENAI_KEY", {"secret": "x"}, origin="https://attacker.net"))
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
        style = await site.client.get(f"{PATH}/static/pages.css")
        assert style.headers["content-type"].startswith("text/css")
        # A secret of that name is another address.
        assert (await get(site, "/static%2Fpages.css")).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_method_that_an_address_does_not_take_is_405(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        before = site.rows()
        for path in ("", ".json", "/OPENAI_KEY", "/OPENAI_KEY.json", "/static/pages.css"):
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", *([] if "OPENAI" in path else ["POST"])):
                answer = await site.client.request(method, PATH + path, headers=site.user("ann"))
                assert answer.status_code == 405, (method, path)
                assert ("POST" in answer.headers["allow"]) is ("OPENAI" in path)
            head = await site.client.head(PATH + path, headers=site.user("ann"))
            assert (head.status_code, head.content) == (200, b"")
        assert site.rows() == before


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "</title></textarea><script>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "\u202egpj.exe\u202c",
]


async def test_hostile_names_notes_and_descriptions_are_escaped(tmp_path: Path) -> None:
    asked = [Secret(f"A{number}", text, text, text) for number, text in enumerate(HOSTILE)]
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY, secrets=asked)
    pages: Any = SecretPages(store, signed_in=signed_in, permissions={"manage-secrets": True})
    async with store, serving(pages, lifespan=False) as client:
        for number, text in enumerate(HOSTILE):
            headers = {"x-user": '{"id": "ann", "name": "<script>alert(1)</script>"}'}
            await store.set(text, "v", note=text[:100], by=text)
            await store.set(f"A{number}", "v", note=text[:100], by=text)
            for path in ("/", f"/{link_to(text)}", f"/A{number}"):
                page = await client.get(path, headers=headers)
                assert page.status_code == 200, (text, path)
                for piece in ("<script>", "<img", "' onfocus", 'href="javascript', "{{ 49", ">49"):
                    assert piece not in page.text, (text, path, piece)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.com/?a=1&b=2", True),
        ("http://example.com", True),
        ("HTTPS://EXAMPLE.COM", True),
        ("javascript:alert(1)", False),
        ("JavaScript://example.com/%0Aalert(1)", False),
        (" https://example.com", True),
        ("data:text/html,x", False),
        ("//example.com", False),
        ("/keys", False),
        ("https:", False),
        ("https://[", False),
        ("file:///etc/passwd", False),
    ],
)
async def test_only_addresses_of_the_web_become_links(tmp_path: Path, address: str, shown: bool) -> None:
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY, secrets=[Secret("A", None, address, "Get it")])
    pages: Any = SecretPages(store, signed_in=signed_in, permissions={"manage-secrets": True})
    async with store, serving(pages, lifespan=False) as client:
        for path in ("/", "/A"):
            page = await client.get(path, headers={"x-user": '{"id": "ann"}'})
            assert (f'<a href="{html.escape(address)}" rel="noreferrer"><bdi>Get it</bdi></a>' in page.text) is shown
            assert ("Get it" in page.text) is shown


@pytest.mark.parametrize("kind", KINDS)
async def test_damaged_rows_are_shown_beside_the_others(tmp_path: Path, kind: str) -> None:
    changes = [
        "created_at = 'never', updated_at = '', last_used_at = 'x'",
        "created_at = null, updated_at = null",
        "created_by = null, updated_by = x'ff'",
        "note = cast(x'ff' as text)",
        "encrypted = null",
        "encrypted = 'garbage'",
        "encryption_key_name = 'another'",
    ]
    async with running(kind, tmp_path) as site:
        for number, change in enumerate(changes):
            await site.store.set(f"D{number}", "x", by="ann")
            site.run_sql(f"update {site.store.table} set {change} where name = 'D{number}'")
        await site.store.set("GOOD", "x", note="the good one")
        for path in ("", ".json"):
            assert (await get(site, path)).status_code == 200
        assert "the good one" in (await get(site)).text
        for number in range(len(changes)):
            for path in (f"/D{number}", f"/D{number}.json"):
                assert (await get(site, path)).status_code == 200, changes[number]
            assert (await post(site, f"/D{number}", {"secret": "y"})).status_code == 302, changes[number]
            assert await site.store.get_secret(f"D{number}") == "y"


@pytest.mark.parametrize("kind", KINDS)
async def test_two_people_who_set_at_once_make_two_versions(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        sent = [("ann", f"value {number}") for number in range(4)] + [("bob", f"value {number}") for number in range(4)]
        answers = await asyncio.gather(*(post(site, "/OPENAI_KEY", {"secret": value}, who) for who, value in sent))
        assert [answer.status_code for answer in answers] == [302] * 8
        versions = (await get(site, "/OPENAI_KEY.json")).json()["versions"]
        assert [one["version"] for one in versions] == list(range(8, 0, -1))
        assert sorted(one["created_by"] for one in versions) == ["ann"] * 4 + ["bob"] * 4


async def test_a_page_lists_the_newest_versions_and_the_json_all(tmp_path: Path) -> None:
    async with running("any app", tmp_path) as site:
        for number in range(53):
            await site.store.set("OFTEN", f"{number}")
        page = (await get(site, "/OFTEN")).text
        assert page.count('class="ata-event"') == 50
        assert "Version 53<" in page
        assert "And 3 earlier ones." in page
        assert len((await get(site, "/OFTEN.json")).json()["versions"]) == 53


async def test_without_a_key_the_pages_say_so_and_set_nothing(tmp_path: Path) -> None:
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=None, secrets=ASKED)
    pages: Any = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    headers = {"x-user": '{"id": "ann"}'}
    async with store, serving(pages, lifespan=False) as client:
        assert "no encryption key" in (await client.get("/", headers=headers)).text
        page = (await client.get("/OPENAI_KEY", headers=headers)).text
        assert "no encryption key" in page
        assert 'name="secret"' not in page
        for path, body in (("/OPENAI_KEY", {"data": {"secret": "x"}}), ("/OPENAI_KEY.json", {"json": {"value": "x"}})):
            answer = await client.post(path, headers=headers, **body)  # type: ignore[arg-type]
            assert (answer.status_code, "no encryption key" in answer.text) == (400, True)


async def test_a_fault_of_storage_is_503_and_says_that_nothing_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with SecretStore(SQLite(path), encryption_key=KEY) as outside:
        await outside.set("KEPT", "the value")
        database = Failing(SQLite(path), -1, StorageError("cannot"))
        store = SecretStore(database, encryption_key=KEY)
        pages: Any = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
        async with serving(pages, lifespan=False) as client:
            headers = {"x-user": '{"id": "ann"}'}
            assert (await client.get("/", headers=headers)).status_code == 200
            requests: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", "/", {}),
                ("GET", "/KEPT", {}),
                ("GET", "/KEPT.json", {}),
                ("POST", "/KEPT", {"data": {"secret": "x"}}),
                ("POST", "/KEPT.json", {"json": {"note": "x"}}),
                ("POST", "/KEPT", {"data": {"delete": "1"}}),
            ]
            for method, address, body in requests:
                before = await outside.history("KEPT")
                for nth in range(1, 50):
                    database.fails_at = database.calls + nth
                    answer = await client.request(method, address, headers=headers, **body)
                    if answer.status_code != 503:
                        break
                    assert "nothing was changed" in answer.text
                    assert answer.headers["retry-after"] == "5"
                    assert await outside.history("KEPT") == before, (method, address, nth)
                assert nth > 1
                assert answer.status_code < 400, (method, address)
        await store.close()


async def test_a_locked_database_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with running("any app", tmp_path) as site:
        await site.store.set("KEPT", "the value")
        before = site.rows()
        with closing(sqlite3.connect(site.file, isolation_level=None)) as other:
            other.execute("begin immediate")
            refused = await post(site, "/KEPT", {"secret": "x"})
            assert refused.status_code == 503
            assert "nothing was changed" in error_of(refused)
            assert (await get(site)).status_code == 200
            other.execute("rollback")
        assert site.rows() == before
        assert (await post(site, "/KEPT", {"secret": "x"})).status_code == 302


# Mounting


def _configured(folder: Path, **more: Any) -> Any:
    block = {"secrets": {"encryption_key": KEY, "database": "secrets"}, "permissions": PERMISSIONS, **more}
    databases = {"secrets": folder / "s.db", "tokens": folder / "t.db"}
    secret = SECRET if "manage_tokens" in more else None
    return from_config(App(), block, databases=databases, secret=secret, signed_in=signed_in)


async def test_the_pages_follow_the_root_path(tmp_path: Path) -> None:
    app = _configured(tmp_path)
    headers = {"x-user": '{"id": "ann"}'}
    async with serving(app):
        for root, base in (("", ""), ("/app", "/app"), ("/app/", "/app"), ("/\u65e5", "/%E6%97%A5")):
            transport = httpx.ASGITransport(app, root_path=root)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                done = await client.post(f"{base}{PATH}/a%2Fb", headers=headers, data={"secret": "x"})
                assert (done.status_code, done.headers["location"]) == (302, base + PATH)
                page = await client.get(f"{base}{PATH}", headers=headers)
                assert f'href="{base}{PATH}/a%2Fb"' in page.text
                assert (await client.get(f"{base}{PATH}/static/pages.css")).status_code == 200
        assert (await ask(app, http(path=PATH + "x"))).body == b"served"


async def test_the_pages_can_be_mounted_anywhere(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    tokens = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    store = SecretStore(SQLite(tmp_path / "s.db"), encryption_key=KEY)
    pages = SecretPages(store, signed_in=signed_in, permissions=PERMISSIONS)
    inner = Starlette(routes=[Mount("/admin/secrets", pages)])
    app: Any = TokenAuthMiddleware(inner, sources=[ManagedTokens(tokens)], resources=[store])
    async with serving(app) as client:
        headers = {"x-user": '{"id": "ann"}'}
        page = await client.get("/admin/secrets/A%2FB", headers=headers)
        assert 'action="/admin/secrets/A%2FB"' in page.text
        assert 'href="/admin/secrets/static/pages.css"' in page.text
        assert (await client.get("/admin/secrets/static/pages.css")).status_code == 200
        done = await client.post("/admin/secrets/A%2FB", headers=headers, data={"secret": "x"})
        assert done.headers["location"] == "/admin/secrets"
        assert await store.get_secret("A/B") == "x"


async def test_the_pages_follow_the_base_url_of_datasette(tmp_path: Path) -> None:
    kept = tmp_path / "secrets.db"
    sqlite3.connect(kept).close()
    block: dict[str, Any] = {"secrets": {"encryption_key": KEY, "database": "secrets"}}
    config = {"permissions": PERMISSIONS} if IS_1_0 else {}
    if not IS_1_0:
        block["permissions"] = PERMISSIONS
    datasette = make([kept], block, config=config, settings={"base_url": "/data/"})
    headers = cookie(datasette, {"id": "ann"})
    async with serving(datasette.app()) as client:
        done = await client.post(f"/data{PATH}/a%2Fb", headers=headers, data={"secret": "x"})
        assert (done.status_code, done.headers["location"]) == (302, f"/data{PATH}")
        page = await client.get(f"/data{PATH}", headers=headers)
        assert f'href="/data{PATH}/a%2Fb"' in page.text
        # A proxy may take the prefix away.
        done = await client.post(f"{PATH}/a%2Fb", headers=headers, data={"secret": "y"})
        assert (done.status_code, done.headers["location"]) == (302, f"/data{PATH}")


async def test_each_of_the_pages_leads_to_the_others_that_one_may_see(tmp_path: Path) -> None:
    app = _configured(tmp_path, manage_tokens=True, manage_tokens_database="tokens")
    tokens, secrets = 'href="/-/api/tokens"', f'href="{PATH}"'
    async with serving(app) as client:
        for path in (PATH, f"{PATH}/A", "/-/api/tokens", "/-/api/tokens/create"):
            page = (await client.get(path, headers={"x-user": '{"id": "ann"}'})).text
            header = page[page.index("<header") : page.index("</header>")]
            assert tokens in header
            assert secrets in header
            assert header.count("aria-current") == (path in (PATH, "/-/api/tokens"))
        page = (await client.get("/-/api/tokens/create", headers={"x-user": '{"id": "eve"}'})).text
        assert tokens in page
        assert secrets not in page
        limited = {"x-user": '{"id": "ann", "_r": {"a": ["auth-tokens-create"]}}'}
        assert secrets not in (await client.get("/-/api/tokens", headers=limited)).text
        assert secrets not in (await client.get(PATH)).text.replace(f'<a href="{PATH}">Secrets</a>', "")
    alone = _configured(tmp_path)
    async with serving(alone) as client:
        page = (await client.get(PATH, headers={"x-user": '{"id": "ann"}'})).text
        assert tokens not in page
        assert (await client.get("/-/api/tokens")).text == "served"


async def test_without_the_extra_everything_but_the_pages_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("asgi_token_auth.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"asgi-token-auth\[web\]"):
        _configured(tmp_path)
    block = {"secrets": {"encryption_key": KEY}}
    app: Any = from_config(App(), block, databases={"s": tmp_path / "s.db"})
    assert (await ask(app, http(path=PATH))).body == b"served"
